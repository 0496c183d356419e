"""Pictures whose values are ids: reading them, and what the ids are called."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from feature_gs.errors import UserError

Ids = NDArray[np.int64]
NAMES_FILE = "labels.json"
_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")


def read_label_image(path: Path) -> Ids:
    """The ids of a PNG with one channel of 1, 8 or 16 bits; of a palette picture the indices. [H, W]

    Raises:
        UserError: The file cannot be read or shows colours.
    """  # noqa: D415
    try:
        with Image.open(path) as image:
            if image.mode not in _MODES:
                raise UserError(f"{path} holds colours ({image.mode}); expected one id per pixel.")
            ids = np.asarray(image).astype(np.int64)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as a picture ({error}).") from error
    return ids


def label_images(folder: Path) -> dict[str, Path]:
    """The label pictures in a folder and below, by their path in it without suffix, sorted.

    Raises:
        UserError: There is no such folder, or no PNG in it.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}.")
    found = {path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob("*.png")}
    if not found:
        raise UserError(f"{folder} holds no label pictures (NAME.png, one id per pixel).")
    return dict(sorted(found.items()))


def label_names(folder: Path) -> dict[int, str]:
    """What the ids of a folder's pictures mean: labels.json in it or beside it; nothing where there is none.

    Read are {"labels": {"1": "floor", ...}} and {"1": "floor", ...}.

    Raises:
        UserError: The file is there but is something else.
    """
    for path in (folder / NAMES_FILE, folder.resolve().parent / NAMES_FILE):
        if not path.is_file():
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            named = content.get("labels", content)
            return {int(key): str(name) for key, name in named.items()}
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            raise UserError(
                f'{path} must hold names by id ({{"labels": {{"1": "floor"}}}}): {error}.'
            ) from error
    return {}


def find_label(text: str, names: dict[int, str]) -> int:
    """The id that a user means: a number, or a name of `names` in any case.

    Raises:
        UserError: There is no such name.
    """
    if text.isdecimal():
        return int(text)
    for key, name in names.items():
        if name.casefold() == text.strip().casefold():
            return key
    listed = ", ".join(names.values()) or "none: give the number"
    raise UserError(f"there is no label {text!r}; those with names: {listed}.")


def matched(pred: Path, labels: Path) -> list[tuple[str, Path, Path]]:
    """Names that both folders hold, with the files of each.

    Raises:
        UserError: A prediction has no labels of the same name.
    """
    predicted, true = label_images(pred), label_images(labels)
    lost = [name for name in predicted if name not in true]
    if lost:
        raise UserError(
            f"{labels} lacks {len(lost)} of the {len(predicted)} names in {pred}, {lost[0]}.png the first: "
            "files belong together by their names."
        )
    return [(name, path, true[name]) for name, path in predicted.items()]


def by_name(names: dict[int, str], wanted: dict[int, str]) -> dict[int, int]:
    """Ids of one list as ids of another where both give them the same name, in any case."""
    known = {name.casefold(): key for key, name in wanted.items()}
    return {key: known[name.casefold()] for key, name in names.items() if name.casefold() in known}


def replaced(ids: Ids, mapping: dict[int, int]) -> Ids:  # [H, W]
    """Ids with some of them replaced, all at once."""
    if not mapping:
        return ids
    values, places = np.unique(ids, return_inverse=True)
    new = np.array([mapping.get(int(value), int(value)) for value in values], dtype=np.int64)
    return new[places].reshape(ids.shape)


def cell_labels(
    ids: Ids,  # [H, W]
    cells_x: float,
    cells_y: float,
    shape: Sequence[int],
) -> Ids:
    """The id of most of each cell's pixels; -1 where a cell has no pixel. Of equals the smallest.

    Args:
        ids: A label picture. [H, W]
        cells_x: How many cells its full width spans; may be fractional.
        cells_y: How many cells its full height spans.
        shape: Rows and columns of cells, the last of which may reach beyond the picture.

    Returns:
        [rows, columns]
    """
    height, width = ids.shape
    row = ((np.arange(height) + 0.5) * (cells_y / height)).astype(np.int64)
    column = ((np.arange(width) + 0.5) * (cells_x / width)).astype(np.int64)
    inside = (row[:, None] < shape[0]) & (column < shape[1])
    cell = (row[:, None] * shape[1] + column)[inside]
    values, places = np.unique(ids[inside], return_inverse=True)
    counts = np.bincount(cell * len(values) + places, minlength=shape[0] * shape[1] * len(values))
    counts = counts.reshape(shape[0] * shape[1], len(values))
    best = np.where(counts.any(axis=1), values[counts.argmax(axis=1)], -1)
    return np.asarray(best, dtype=np.int64).reshape(shape[0], shape[1])
