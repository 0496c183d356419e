"""What a page of the documentation shows, and what it tells people to type, run in this process."""

import re
import runpy
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

from feature_gs.cli import main as cli

ROOT = Path(__file__).resolve().parents[1]


def blocks(page: str, language: str) -> list[str]:
    """The page's fenced blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    """The lines of its bash blocks."""
    return [line.strip() for block in blocks(page, "bash") for line in block.splitlines() if line.strip()]


def run(command: str) -> int:
    """Runs `python FILE ...`, of the project, or `feature-gs ...`; returns the exit code."""
    program, *arguments = shlex.split(command)
    if program == "feature-gs":
        return _code(lambda: cli.main(arguments))
    assert program == "python", f"no test runs {command!r}"
    before = sys.argv
    sys.argv = [str(ROOT / arguments[0]), *arguments[1:]]
    try:
        return _code(lambda: runpy.run_path(sys.argv[0], run_name="__main__"))
    finally:
        sys.argv = before


def _code(call: Callable[[], object]) -> int:
    try:
        return int(cast(int, call() or 0))
    except SystemExit as end:
        return int(end.code or 0)
