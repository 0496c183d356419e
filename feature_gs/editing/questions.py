"""Which Gaussians an edit means: a selection on disk or a query, and how it is cleaned up."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feature_gs.editing.cleanup import NO_CLEAN_UP, CleanUp
from feature_gs.editing.reading import Entry, Reader
from feature_gs.errors import UserError
from feature_gs.queries.selection import FILE_NAME

_CLEAN_UP = ("threshold", "smooth", "largest_cluster", "drop_hidden")
_LISTED = 8  # names in a message


@dataclass(frozen=True)
class Question:
    """A part of a scene, described.

    Attributes:
        where: File and line, or what asks, for messages.
        kind: How it is found: a key of QUERIES, or "feature_3dgs".
        asked: What that way needs.
        clean_up: What is done with the answer.
    """

    where: str
    kind: str
    asked: dict[str, Any]
    clean_up: CleanUp = NO_CLEAN_UP


def read_question(reader: Reader, key: str, what: Any) -> Question:
    """The value of a key as a question: the name of a selection, or a query with its clean-up."""
    if isinstance(what, str) and what.strip():
        return Question(reader.where(key), "selection", {"name": what.strip()})
    if not isinstance(what, Entry):
        raise reader.error(
            f"{key} must be followed by what is meant: a name, a file, `all`, or a query as {{text: mug}} "
            "or {point: [120, 80], view: 008.png}.",
            key,
        )
    inner = reader.inner(key, what)
    kind = inner.one_of(QUERIES)
    question = Question(
        where=inner.where(),
        kind=kind,
        asked=QUERIES[kind](inner),
        clean_up=CleanUp(
            smooth=inner.whole("smooth", 1, CleanUp.MOST_NEIGHBOURS) if "smooth" in inner else 0,
            threshold=inner.number("threshold", 0, 1) if "threshold" in inner else None,
            largest_cluster=inner.flag("largest_cluster"),
            drop_hidden=inner.number("drop_hidden", 0, 1) if "drop_hidden" in inner else 0.0,
        ),
    )
    inner.finish(_CLEAN_UP)
    return question


def _selection(reader: Reader) -> dict[str, Any]:
    return {"name": reader.text("selection")}


def _text(reader: Reader) -> dict[str, Any]:
    negatives = reader.texts("negative_text") if "negative_text" in reader else []
    return {"text": reader.texts("text"), "negative_text": negatives}


def _point(reader: Reader) -> dict[str, Any]:
    asked = {"point": _points(reader, "point"), "view": reader.text("view")}
    asked["negative_point"] = _points(reader, "negative_point") if "negative_point" in reader else []
    return asked


def _points(reader: Reader, key: str) -> list[tuple[float, ...]]:
    """One point [x, y] or several [[x, y], ...]."""
    value = reader.raw(key)
    single = isinstance(value, list) and not any(isinstance(part, list) for part in value)
    rows = [reader.numbers(key, 2)] if single else reader.rows(key, None, 2)
    return [tuple(row) for row in rows]


def _box(reader: Reader) -> dict[str, Any]:
    return {"box": tuple(reader.numbers("box", 4)), "view": reader.text("view")}


def _patch(reader: Reader) -> dict[str, Any]:
    return {"patch": tuple(reader.numbers("patch", 3)), "view": reader.text("view")}


QUERIES: dict[str, Callable[[Reader], dict[str, Any]]] = {
    "selection": _selection,
    "text": _text,
    "point": _point,
    "box": _box,
    "patch": _patch,
}


def selection_file(model_path: Path, name: str) -> Path:
    """The file of a selection: MODEL/queries/NAME/selection.safetensors, or the path `name` itself.

    Raises:
        UserError: There is neither.
    """
    folder = model_path / "queries"
    for path in (folder / name / FILE_NAME, Path(name), Path(name) / FILE_NAME):
        if os.path.isfile(path):  # also says so of names that are too long for a file
            return path
    there = sorted(path.parent.relative_to(folder).as_posix() for path in folder.glob(f"*/{FILE_NAME}"))
    listed = ", ".join(there[:_LISTED]) or "none yet"
    raise UserError(
        f"{name!r} is no selection: neither a query of {model_path} (there are: {listed}) nor a file. Make "
        f"one: feature-gs segment -m {model_path} --name {name} --view VIEW --point X Y"
    )
