"""The folder a model is written to: where it is, and when it may be written to."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from feature_gs.errors import UserError
from feature_gs.training.checkpoint import checkpoints_of

# Of a model; answers and figures are about its Gaussians, and nobody else's.
_FOLDERS = ("point_cloud", "checkpoints", "train", "test", "novel", "queries")
_FILES = (
    *("config.json", "cameras.json", "results.json", "per_view.json"),
    *("retrieval.json", "segmentation.json", "edit.yaml"),
)


def model_folder(model_path: str, source_path: str) -> Path:
    """The folder given with -m, or output/NAME-OF-THE-SCENE-FOLDER.

    Raises:
        UserError: Neither a model nor a scene was named.
    """
    if model_path:
        return Path(model_path)
    if not source_path:
        raise UserError("which photos? Name the folder of a scene: -s path/to/scene")
    return Path("output") / Path(source_path).resolve().name


def ply_path(folder: Path, iteration: int) -> Path:
    """Where the PLY of an iteration lies."""
    return folder / "point_cloud" / f"iteration_{iteration}" / "point_cloud.ply"


def check_vacant(folder: Path) -> None:
    """Raises UserError when a model is in the folder already, or the path is a file."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; -m takes a folder.")
    held = _newest(folder)
    if held is not None:
        resume = " continue it with --resume," if checkpoints_of(folder) else ""
        raise UserError(
            f"{folder} already holds a model (iteration {held}):{resume} replace it with --overwrite, "
            "or name another folder with -m."
        )


def make_folder(folder: Path, clear: bool) -> None:
    """Makes the folder ready to be written to.

    Args:
        folder: The model folder.
        clear: Remove the model that is there and what came of it, and nothing else.

    Raises:
        UserError: The folder cannot be created.
    """
    if clear:
        _clear(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create {folder}: {error.strerror}. Name another folder with -m.") from error


@contextmanager
def model_written_whole(folder: Path, overwrite: bool) -> Iterator[Path]:
    """Yields a folder to write a model into, which takes its place when it is whole.

    Where the body raises, a full disk say, the model that was there stays as it was.

    Args:
        folder: The model folder.
        overwrite: Remove the model that is there, and what came of it.

    Yields:
        An empty folder beside it. config.json is the last of its files to be moved.

    Raises:
        UserError: The folder cannot be written to.
    """
    folder = folder.resolve()
    beside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    make_folder(beside, clear=False)
    try:
        yield beside
        make_folder(folder, clear=overwrite)
        written = [path for path in beside.rglob("*") if path.is_file()]
        for path in sorted(written, key=lambda path: path.name == "config.json"):
            target = folder / path.relative_to(beside)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _newest(folder: Path) -> int | None:
    """The newest iteration of which a PLY or a checkpoint is in the folder."""
    names = [path.parent.name for path in folder.glob("point_cloud/iteration_*/point_cloud.ply")]
    names += [path.stem for path in checkpoints_of(folder)]
    return max((int(name[10:]) for name in names if re.fullmatch(r"iteration_\d+", name)), default=None)


def _clear(folder: Path) -> None:
    for name in _FOLDERS:
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
    for path in [*(folder / name for name in _FILES), *folder.glob("events.out.tfevents.*")]:
        path.unlink(missing_ok=True)
