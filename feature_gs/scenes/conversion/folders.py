"""Folders that appear whole or not at all."""

import os
import shutil
from pathlib import Path


def fresh(folder: Path) -> Path:
    """Makes an empty folder where a killed run may have left a half-written one."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def install(made: Path, target: Path) -> None:
    """Puts a finished folder in its place; an older one there is removed once the new one is in.

    Killed at any moment, it leaves the older or the new one: `recover` brings back the older one.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    older = _older(target)
    if target.exists():
        shutil.rmtree(older, ignore_errors=True)
        os.rename(target, older)
    os.rename(made, target)
    shutil.rmtree(older, ignore_errors=True)


def recover(target: Path) -> None:
    """Ends what a killed `install` began: the older folder is back, or gone."""
    older = _older(target)
    if older.exists() and not target.exists():
        os.rename(older, target)
    shutil.rmtree(older, ignore_errors=True)


def _older(target: Path) -> Path:
    return target.with_name(f".{target.name}.older")
