"""Whether a teacher folder may be written to: maps of different settings are never mixed."""

import shutil
from pathlib import Path
from typing import Any

from feature_gs.errors import UserError
from feature_gs.features.teacher import META, TeacherStore

_SHOWN = 4


def open_folder(folder: Path, settings: dict[str, Any]) -> bool:
    """Checks that maps of these settings may go into a folder.

    Args:
        folder: The teacher's folder; may be missing.
        settings: What was asked for, as JSON would give it back.

    Returns:
        Whether the folder is already one of these settings; False: it is new.

    Raises:
        UserError: It holds something else; says which settings differ and what to do.
    """
    if not folder.exists():
        return False
    if not (folder / META).is_file():
        if folder.is_dir() and all(entry.name.startswith(".") for entry in folder.iterdir()):
            return False
        raise UserError(f"{folder} is there and has no {META}: move it away, or choose another --name.")
    found = TeacherStore.open(folder).meta
    if "encoder" not in found:
        raise UserError(
            f"{folder} holds maps that `feature-gs encode` did not make. Train on them as they are, or "
            "encode into another folder with --name."
        )
    stored = {key: found.get(key) for key in settings}
    if stored == settings:
        return True
    there, asked = _flat(stored), _flat(settings)
    differing = [key for key in sorted(there | asked) if there.get(key) != asked.get(key)]
    changes = [f"{key}: {there.get(key)} there, {asked.get(key)} asked for" for key in differing]
    more = f"\n  and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else ""
    raise UserError(
        f"{folder} holds maps of other settings:\n  " + "\n  ".join(changes[:_SHOWN]) + more + "\n"
        "  Keep both: feature-gs encode ... --name OTHER, and train with -f OTHER.\n"
        "  Or replace them: feature-gs encode ... --overwrite."
    )


def clear_folder(folder: Path) -> None:
    """Removes a folder of maps that `feature-gs encode` made; nothing else is ever removed.

    Raises:
        UserError: The folder holds something else.
    """
    try:
        ours = (folder / META).is_file() and "encoder" in TeacherStore.open(folder).meta
    except UserError as error:
        raise UserError(f"{error}\n  Nothing says who made {folder}: remove it by hand.") from None
    if ours:
        shutil.rmtree(folder)
    elif folder.exists():
        raise UserError(f"{folder} was not made by `feature-gs encode`; remove it by hand, or choose --name.")


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"encoder": {"layer": 11}} as {"encoder.layer": 11}."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        nested = isinstance(value, dict)
        flat |= _flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat
