"""COLMAP as the library that came with feature_gs: no program needs to be installed."""

import json
import sys
from pathlib import Path
from typing import Any

import pycolmap

from feature_gs.errors import UserError
from feature_gs.scenes.conversion.colmap_process import BLOCK, TOLERANCE, Command
from feature_gs.scenes.conversion.progress import processors
from feature_gs.scenes.conversion.settings import VOCAB_TREE

_SCRIPT = Path(__file__).with_name("colmap_stages.py")


class ColmapLibrary:
    """Starts the stages of COLMAP's library.

    Args:
        gpu: Use a GPU where this build of pycolmap can.
    """

    def __init__(self, gpu: bool) -> None:
        self._common = {"device": "auto" if gpu else "cpu", "threads": processors()}

    def extract(
        self, database: Path, photos: Path, names: list[str], camera: str, camera_id: int | None
    ) -> Command:
        """Finds features in the photos `names` of one camera, new or `camera_id`."""
        return self._command(
            "extract", database, photos=str(photos), names=names, camera=camera, camera_id=camera_id
        )

    def match(self, database: Path, matcher: str, vocab_tree: Path | None) -> Command:
        """Compares photos and checks what they have in common."""
        tree = str(vocab_tree) if vocab_tree else None
        return self._command("match", database, matcher=matcher, vocab_tree=tree, block=BLOCK)

    def map(self, database: Path, photos: Path, output: Path) -> Command:
        """Writes models to `output`/0, `output`/1, and so on."""
        return self._command("map", database, photos=str(photos), output=str(output), tolerance=TOLERANCE)

    def _command(self, stage: str, database: Path, **task: Any) -> Command:
        task |= {"stage": stage, "database": str(database), **self._common}
        return Command([sys.executable, str(_SCRIPT)], json.dumps(task) + "\n")


def check_vocab_tree(path: Path) -> None:
    """Checks that the library can read a vocabulary tree.

    Raises:
        UserError: It cannot.
    """
    try:
        pycolmap.VisualIndex.read(path)
    except Exception:  # pycolmap lets through whatever C++ threw
        raise UserError(
            f"--vocab_tree {path} is no vocabulary tree that COLMAP {pycolmap.__version__} reads; those for "
            f"COLMAP before 3.12 have another format. There is one at {VOCAB_TREE}"
        ) from None
