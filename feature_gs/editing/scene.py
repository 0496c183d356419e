"""A trained scene in Python: ask it, take it apart, render it, save it."""

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from feature_gs.editing import decompose
from feature_gs.editing.answer import answer
from feature_gs.editing.cleanup import CleanUp
from feature_gs.editing.cloud import Cloud
from feature_gs.editing.edit import edited, read_plan
from feature_gs.editing.folder import write_model
from feature_gs.editing.questions import Question
from feature_gs.editing.reading import is_number
from feature_gs.features.field import FeatureField
from feature_gs.queries.selection import Selection
from feature_gs.queries.views import find_view
from feature_gs.rasterizer import RenderOutput
from feature_gs.scenes import Camera
from feature_gs.training.trained import Trained, load_trained

Numbers = Sequence[float] | np.ndarray | Tensor
Points = Numbers | Sequence[Numbers]  # one or several

_OF_VIEWS = "point", "box", "patch"  # queries that need a view


@dataclass(frozen=True, eq=False)
class GaussianScene:
    """Gaussians with cameras and features. Every method leaves it as it is.

    Attributes:
        trained: Gaussians, cameras and settings.
        field: The features, or None.
    """

    trained: Trained
    field: FeatureField | None

    def __len__(self) -> int:
        return len(self.trained.model)

    @property
    def views(self) -> list[str]:
        """The names of the training and test views."""
        return [camera.name for cameras in self.trained.cameras.values() for camera in cameras]

    def select(
        self,
        *,
        selection: str | Path | None = None,
        text: str | Sequence[str] | None = None,
        negative_text: str | Sequence[str] = (),
        point: Points | None = None,
        negative_point: Points = (),
        box: Numbers | None = None,
        patch: Numbers | None = None,
        view: str | None = None,
        weights: Path | None = None,
        smooth: int = 0,
        threshold: float | None = None,
        largest_cluster: bool = False,
        drop_hidden: float = 0.0,
    ) -> Selection:
        """Finds a part of the scene by exactly one of selection, text, point, box and patch.

        Args:
            selection: Name of a query made by `feature-gs segment`, or the path of its file.
            text: What it is called; several words mean any of them.
            negative_text: What else there is, in words.
            point: X and Y in pixels of `view`, once or several times.
            negative_point: Where it is not, likewise.
            box: X1, Y1, X2, Y2 in pixels of `view`.
            patch: X, Y and side of a square of `view`; all that looks alike is selected.
            view: Name of the photo that point, box or patch are in.
            weights: File of the teacher's weights, for words and for SAM's decoder; None: those it finds.
            smooth: Average scores over so many neighbours.
            threshold: Selected is what scores above it, 0 to 1; None: as the query says.
            largest_cluster: Drop what lies apart from the largest part.
            drop_hidden: Drop what the training views hide: see `CleanUp`. For extracting, not for removing.

        Returns:
            The selection; `~a`, `a & b` and `a | b` combine several.

        Raises:
            UserError: The query has no answer, the scene has no features, or a clean-up is beyond its limits.
            ValueError: Not exactly one kind of query, a view is missing, or an argument does not belong
                to the query or is not what it should be.

        Example:
            >>> scene.select(point=(120, 80), view="008.png")
        """
        queries = {"selection": selection, "text": text, "point": point, "box": box, "patch": patch}
        given = [kind for kind, value in queries.items() if value is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(queries)}, got {', '.join(given) or 'none'}")
        (kind,) = given
        if kind in _OF_VIEWS and view is None:
            raise ValueError(f"{kind} needs the view that it is in")
        negative_points, negative_words = _points("negative_point", negative_point), _words(negative_text)
        # What a query has no use for would be thought to count.
        for name, is_given, takers in (
            ("view", view is not None, _OF_VIEWS),
            ("negative_point", bool(negative_points), ("point",)),
            ("negative_text", bool(negative_words), ("text",)),
        ):
            if is_given and kind not in takers:
                raise ValueError(f"{name} does not go with {kind}, only with {' or '.join(takers)}")
        asked: dict[str, Any] = {"view": None if view is None else _photo(view)}
        if kind == "selection":
            asked = {"name": str(selection)}
        elif kind == "text":
            asked = {"text": _words(text or ""), "negative_text": negative_words}
        elif kind == "point":
            asked |= {"point": _points("point", point), "negative_point": negative_points}
            if not asked["point"]:
                raise _not_numbers("point", 2, point)
        else:
            asked[kind] = _numbers(kind, 4 if kind == "box" else 3, queries[kind])
        clean_up = CleanUp(smooth, threshold, largest_cluster, drop_hidden)
        return answer(Question("select", kind, asked, clean_up), self.trained, self.field, weights)

    def only(self, selection: Selection, *, soft: bool = False) -> "GaussianScene":
        """Only what is selected; `soft` multiplies opacities by the scores instead.

        Raises:
            UserError: The selection is of another scene.
        """
        return self._with(decompose.only(self._cloud, selection, soft=soft))

    def without(self, selection: Selection, *, soft: bool = False) -> "GaussianScene":
        """The scene without what is selected; `soft` multiplies opacities by 1 - score instead.

        Raises:
            UserError: The selection is of another scene.
        """
        return self._with(decompose.without(self._cloud, selection, soft=soft))

    def edited(self, config: str | Path) -> "GaussianScene":
        """The scene after the edits of an edit.yaml (docs/editing.md).

        Raises:
            UserError: The edits cannot be read or carried out.
        """
        return self._with(edited(self.trained, self.field, read_plan(Path(config)), say=_silent))

    def render(self, view: Camera | str) -> RenderOutput:
        """One view as the model was trained to be seen: `color` [1, H, W, 3], `alpha` [1, H, W], and so on.

        Args:
            view: A camera, or the name of a photo with or without suffix.

        Raises:
            UserError: There is no such photo.
            ValueError: It is neither a camera nor a name.
        """
        if not isinstance(view, Camera):
            view = find_view(self.trained, _photo(view, "a camera or "))
        return self.trained.render(view)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Writes a model folder, which every verb takes.

        Args:
            folder: The folder.
            overwrite: Replace the model that is in it.

        Returns:
            The PLY.

        Raises:
            UserError: The folder is in use, is the scene's own, or cannot be written to.
        """
        return write_model(Path(folder), self.trained, self._cloud, overwrite=overwrite)

    @property
    def _cloud(self) -> Cloud:
        return Cloud(self.trained.model, self.field)

    def _with(self, cloud: Cloud) -> "GaussianScene":
        return GaussianScene(replace(self.trained, model=cloud.model), cloud.field)


def load(model_path: str | Path, iteration: int = -1) -> GaussianScene:
    """Reads a model folder.

    Args:
        model_path: The folder.
        iteration: The iteration to load; -1: the newest.

    Raises:
        UserError: The folder is no model's folder, or a file in it is damaged.
    """
    trained = load_trained(Path(model_path), iteration)
    return GaussianScene(trained, trained.field())


def _words(text: str | Sequence[str]) -> list[str]:
    words = text.split(",") if isinstance(text, str) else text
    return [word.strip() for word in words if word.strip()]


def _points(name: str, points: Any) -> list[tuple[float, ...]]:
    """One point or several, as several; none where there are none."""
    plain = _plain(points)
    if not isinstance(plain, list):
        raise _not_numbers(name, 2, points)
    single = plain and not any(isinstance(part, list) for part in plain)
    return [_numbers(name, 2, part, points) for part in ([plain] if single else plain)]


def _numbers(name: str, count: int, value: Any, shown: Any = None) -> tuple[float, ...]:
    """So many numbers; a message names `name` and shows `shown`, or the value."""
    plain = _plain(value)
    if not isinstance(plain, list) or len(plain) != count or not all(map(is_number, plain)):
        raise _not_numbers(name, count, value if shown is None else shown)
    return tuple(float(number) for number in plain)


def _plain(value: Any) -> Any:
    """Arrays, tensors and sequences of any of them as lists; all else as it is."""
    if isinstance(value, np.ndarray | np.generic | Tensor):
        return value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(part) for part in value]
    return value


def _not_numbers(name: str, count: int, value: Any) -> ValueError:
    return ValueError(f"{name} must be {count} numbers, got {reprlib.repr(value)}")


def _photo(view: Any, otherwise: str = "") -> str:
    """The name of a view, if it is one."""
    if not isinstance(view, str):
        raise ValueError(f"view must be {otherwise}the name of a photo, got {reprlib.repr(view)}")
    return view


def _silent(_: str) -> None:
    pass
