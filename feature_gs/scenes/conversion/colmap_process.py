"""COLMAP's three long stages as processes of their own, and waiting for them.

Processes of their own, because COLMAP ends the process it runs in when something goes wrong in one of its
threads, and because progress is asked of the database meanwhile: Python's copy of SQLite and COLMAP's do not
see each other's locks within one process.
"""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from feature_gs.errors import UserError

BLOCK = 10  # exhaustive matching compares so many photos with so many at a time, and then saves
TOLERANCE = 1e-6  # relative, at which the adjustment of all cameras stops
_TICK = 0.3  # seconds between two looks at how far COLMAP is
_TAIL = 8  # lines of the log in an error message


@dataclass(frozen=True)
class Command:
    """A process to start.

    Attributes:
        arguments: The program and its arguments.
        task: What is written to its standard input, which then stays open until it ends.
    """

    arguments: list[str]
    task: str = ""


class Colmap(Protocol):
    """What starts COLMAP's stages."""

    def extract(
        self, database: Path, photos: Path, names: list[str], camera: str, camera_id: int | None
    ) -> Command:
        """Finds features in the photos `names` of one camera, new or `camera_id`."""

    def match(self, database: Path, matcher: str, vocab_tree: Path | None) -> Command:
        """Compares photos and checks what they have in common."""

    def map(self, database: Path, photos: Path, output: Path) -> Command:
        """Writes models to `output`/0, `output`/1, and so on."""


def run(command: Command, what: str, log: Path, count: Callable[[str], int], bar: "tqdm[None]") -> None:
    """Runs a stage to its end.

    Args:
        command: The process.
        what: The stage, for messages.
        log: File that its messages go to.
        count: How far it is, given its messages; asked several times a second.
        bar: Shows that.

    Raises:
        UserError: It failed; the message has the end of the log.
        KeyboardInterrupt: Ctrl-C; the process has ended.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as file:
        process = subprocess.Popen(
            command.arguments, stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT
        )
    assert process.stdin is not None
    try:
        process.stdin.write(command.task.encode())
        process.stdin.flush()
        while True:
            try:
                code = process.wait(_TICK)
            except subprocess.TimeoutExpired:
                code = None
            shown = count(log.read_text(encoding="utf-8", errors="replace"))
            bar.update((shown if bar.total is None else min(shown, bar.total)) - bar.n)
            if code is not None:
                break
    except BrokenPipeError:  # it ended before it had read its task
        code = process.wait()
    finally:
        if process.poll() is None:
            process.kill()  # nothing of it is trusted but the database, which bears it
            process.wait()
    if code != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:]
        tail = "\n".join(f"  {line}" for line in lines)
        raise UserError(f"COLMAP failed ({what}, exit code {code}). The end of {log}:\n{tail}")


def placed(messages: str) -> int:
    """How many photos the mapper has tried to place, by its messages."""
    return messages.count("Registering ") + messages.count("initial image pair #")
