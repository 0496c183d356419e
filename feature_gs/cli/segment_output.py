"""What `feature-gs segment` writes of an answer."""

import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_gs.errors import UserError
from feature_gs.files import atomic_write
from feature_gs.queries.answers import Answer, ViewAnswer
from feature_gs.queries.coco import coco_file
from feature_gs.queries.drawing import Marks, label_colors, overlay, with_legend
from feature_gs.queries.selection import FILE_NAME
from feature_gs.queries.stopwatch import Stopwatch
from feature_gs.rendering.colormap import Picture
from feature_gs.rendering.pictures import save_picture, to_uint8
from feature_gs.scenes import Camera, View
from feature_gs.training.trained import Trained

QUERY_FILE = "query.json"
_FOLDERS = ("masks", "overlay", "scores", "parts", "decompose")
_LONGEST_NAME = 60
_FILES = (FILE_NAME, "labels.json", "instances.json", "histogram.png", "timing.json")


def prepare(folder: Path) -> None:
    """Makes the folder of a query; what an earlier one has written there stays until there is an answer.

    Raises:
        UserError: It cannot be written to, or holds something, but no query.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}.") from None
    if any(folder.iterdir()) and not (folder / QUERY_FILE).is_file():
        raise UserError(f"{folder} is not empty and holds no query: choose another --name.")


def folder_names(words: Iterable[str]) -> list[str]:
    """A folder's name for each word, all different."""
    names: list[str] = []
    for word in words:
        plain = re.sub(r"[^\w-]+", "_", word)[:_LONGEST_NAME]
        numbered = (f"{plain}_{number}" for number in count(2))
        names.append(next(name for name in chain([plain], numbered) if name not in names))
    return names


class AnswerWriter:
    """Writes the files of one answer, view by view.

    Attributes:
        folder: Where they go.
    """

    def __init__(
        self,
        folder: Path,
        answer: Answer,
        trained: Trained,
        photos: Mapping[str, View],
        marks: Mapping[str, Marks],
    ) -> None:
        """Takes what is the same for all views.

        Args:
            folder: Where to write.
            answer: What is written.
            trained: The model.
            photos: The photos by the names of their cameras, as far as there are any.
            marks: What was asked, by the name of the camera.
        """
        self.folder = folder
        self._answer, self._trained, self._photos, self._marks = answer, trained, photos, marks
        self._colors = label_colors(max(1, len(answer.names)))
        self._instances: list[tuple[str, NDArray[np.bool_]]] = []

    def clear(self) -> None:
        """Removes what an earlier query of the same name has written."""
        for name in _FOLDERS:
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for name in (*_FILES, QUERY_FILE):
            (self.folder / name).unlink(missing_ok=True)

    def write_query(self, query: Mapping[str, Any]) -> None:
        """Writes query.json, labels.json where labels have names, and the selections."""
        self._write_json(QUERY_FILE, query)
        if self._answer.names:
            names = ["other", *self._answer.names]
            self._write_json("labels.json", {"labels": {str(key): name for key, name in enumerate(names)}})
        if self._answer.selection is not None:
            self._answer.selection.save(self.folder / FILE_NAME)
        for folder, part in zip(folder_names(self._answer.parts), self._answer.parts.values(), strict=True):
            part.save(self.folder / "parts" / folder / FILE_NAME)

    def picture(self, camera: Camera) -> Picture:
        """The photo of a view, or how the model shows it."""
        if camera.name in self._photos:
            return self._photos[camera.name].load().numpy()
        return to_uint8(self._trained.render(camera).color[0])

    def write_view(self, camera: Camera, name: str, found: ViewAnswer, watch: Stopwatch) -> None:
        """Writes mask, scores and overlay of a view.

        Args:
            camera: The view.
            name: The name of its files, without suffix.
            found: What it shows.
            watch: Counts for the stages "rendering" of a background without photo, and "writing".
        """
        with watch.stage("pictures"):
            picture = self.picture(camera)
        with watch.stage("writing"):
            labels, file = found.labels.numpy(), f"{name}.png"
            save_picture(self.folder / "masks" / file, _mask_picture(labels, self._answer.names))
            steps = (found.scores.clamp(0, 1) * 65535 + 0.5).int().numpy().astype(np.uint16)
            save_picture(self.folder / "scores" / file, steps)
            shown = overlay(picture, labels, self._colors, self._marks.get(camera.name))
            if self._answer.names:
                there = np.unique(labels).tolist()
                shown = with_legend(
                    shown, self._colors, {key: self._answer.names[key - 1] for key in there if key}
                )
            save_picture(self.folder / "overlay" / file, shown)
        if found.masks is not None:
            self._instances = [entry for entry in self._instances if entry[0] != camera.name]
            self._instances.append((camera.name, found.masks.numpy()))

    def finish(self, about: str) -> None:
        """Writes instances.json where there are things."""
        if self._instances:
            self._write_json("instances.json", coco_file(self._instances, about), indent=None)

    def write_timing(self, stages: Mapping[str, tuple[float, float]], query: float, rounds: int) -> None:
        """Writes timing.json: seconds of the query, and of each stage the median of a view and the sum."""
        listed = {name: {"median_of_a_view": one, "all_views": both} for name, (one, both) in stages.items()}
        self._write_json("timing.json", {"rounds": rounds, "query": query, "stages": listed})

    def _write_json(self, name: str, content: Mapping[str, Any], indent: int | None = 1) -> None:
        with atomic_write(self.folder / name) as temporary:
            temporary.write_text(json.dumps(content, indent=indent) + "\n", encoding="utf-8")


def _mask_picture(
    labels: NDArray[np.int64], names: Sequence[str]
) -> NDArray[np.uint8] | NDArray[np.uint16]:  # [H, W]
    if not names:
        return np.where(labels > 0, 255, 0).astype(np.uint8)
    return labels.astype(np.uint8) if len(names) < 256 else labels.astype(np.uint16)
