"""Teacher and distilled features of one view side by side: distance to a patch, and principal components."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from feature_gs.errors import UserError
from feature_gs.features.field import FeatureField
from feature_gs.features.maps import TeacherMap
from feature_gs.features.rendering import FeatureMap, decoded_solid, enlarged
from feature_gs.rendering.colormap import Picture
from feature_gs.rendering.pictures import to_uint8
from feature_gs.rendering.strip import picture_strip
from feature_gs.scenes import Camera

_FRAME = (255, 60, 60)
_CELLS = 1 << 14  # decoded at a time
_LARGEST = 1 << 26  # numbers of a rendered map


@dataclass(frozen=True)
class Patch:
    """A square of pixels to look for.

    Attributes:
        x: Its centre, pixels from the left.
        y: Its centre, pixels from the top.
        size: Its side in pixels.
    """

    x: float
    y: float
    size: float

    @classmethod
    def central(cls, width: int, height: int) -> "Patch":
        """In the middle of a picture, its side an eighth of the shorter one's."""
        return cls(width / 2, height / 2, min(width, height) / 8)

    def check(self, width: int, height: int) -> None:
        """Raises a UserError unless the centre lies in the picture and the size is above 0."""
        if not (0 <= self.x < width and 0 <= self.y < height and 0 < self.size < math.inf):
            raise UserError(
                f"--patch {self.x:g} {self.y:g} {self.size:g}: expected X and Y of its centre inside the "
                f"picture of {width} x {height} pixels, and a size above 0."
            )


def cell_to_compare(field: FeatureField, camera: Camera) -> tuple[float, float]:
    """The cell at which a view's features are compared: single pixels unless the map would be huge.

    A conv3x3 decoder knows the teacher's cells only, so it gets these.
    """
    if field.decoder.kind == "conv3x3":
        return field.cell
    numbers = camera.width * camera.height * field.decoder.features
    side = 2.0 ** math.ceil(math.log2(max(1.0, numbers / _LARGEST)) / 2)
    return side, side


@dataclass(frozen=True, eq=False)
class _Cells:
    """A map in the teacher's space that is brought there part by part.

    Attributes:
        rows: Rows of cells.
        columns: Columns of cells.
        cells: How many cells the picture's full width and height span.
        part: The features of the rows from a to b, (a, b) -> [b - a, columns, C] float32.
    """

    rows: int
    columns: int
    cells: tuple[float, float]
    part: Callable[[int, int], Tensor]

    @classmethod
    def of_teacher(cls, teacher: TeacherMap) -> "_Cells":
        rows, columns = teacher.features.shape[1:]

        def part(a: int, b: int) -> Tensor:
            return teacher.features[:, a:b].permute(1, 2, 0).float()

        return cls(rows, columns, (teacher.cells_x, teacher.cells_y), part)

    @classmethod
    def of_field(cls, field: FeatureField, rendered: FeatureMap) -> "_Cells":
        rows, columns = rendered.alpha.shape
        whole = decoded_solid(field, rendered).cpu() if field.decoder.kind == "conv3x3" else None

        def part(a: int, b: int) -> Tensor:
            if whole is not None:  # the decoder looks at neighbours
                return whole[a:b]
            cut = replace(rendered, features=rendered.features[a:b], alpha=rendered.alpha[a:b])
            return decoded_solid(field, cut).cpu()

        return cls(rows, columns, (rendered.cells_x, rendered.cells_y), part)

    def query(self, patch: Patch, width: int, height: int) -> Tensor:
        """The mean of the unit features whose cells have their centre in the patch, of length 1. [C]"""
        left, right = _within(patch.x, patch.size, self.cells[0] / width, self.columns)
        top, bottom = _within(patch.y, patch.size, self.cells[1] / height, self.rows)
        units = F.normalize(self.part(top, bottom)[:, left:right], dim=-1)
        return F.normalize(units.mean(dim=(0, 1)), dim=0)

    def distance(self, query: Tensor) -> Tensor:  # [C]
        """The distance of each cell's unit feature from the query, 0 to 2. [rows, columns]"""
        step = max(1, _CELLS // self.columns)
        cosines = [
            F.normalize(self.part(a, min(a + step, self.rows)), dim=-1) @ query
            for a in range(0, self.rows, step)
        ]
        return (2 - 2 * torch.cat(cosines)).clamp(min=0).sqrt()


class Comparison:
    """Figures of several views with one query, one scale of distance and one palette.

    The teacher is asked with its own mean feature of the patch and the distilled features with theirs. The
    distance is the Euclidean one of unit vectors, sqrt(2 - 2 cos).
    """

    def __init__(
        self,
        field: FeatureField,
        patch: Patch,
        teacher: TeacherMap,
        rendered: FeatureMap,
        size: tuple[int, int],
    ) -> None:
        """Takes query and scale from one view.

        Args:
            field: The features, with a palette.
            patch: What to look for, in pixels of the view.
            teacher: The teacher's map of the view.
            rendered: The view's rendered features, not decoded, of any cell.
            size: The view's width and height in pixels.
        """
        if field.palette is None:
            raise ValueError("the field has no palette: fit one with fit_field_palette")
        self._field, self._palette = field, field.palette
        sides = self._sides(teacher, rendered)
        self._queries = [side.query(patch, *size) for side in sides]
        distances = [side.distance(query) for side, query in zip(sides, self._queries, strict=True)]
        both = np.concatenate([distance.numpy().ravel() for distance in distances])
        near, far = (float(value) for value in np.quantile(both, (0.01, 0.99)))
        self._near, self._far = near, max(far, near + 1e-3)

    def figure(
        self, teacher: TeacherMap, rendered: FeatureMap, colors: Picture, patch: Patch | None = None
    ) -> Picture:
        """The four panels of a view: distance above principal components, teacher left of distilled.

        White is near. The teacher's cells are shown as they are.

        Args:
            teacher: The teacher's map of the view.
            rendered: Its rendered features, not decoded, of any cell.
            colors: Its features as colours of the palette (`render_palette`). [H, W, 3] uint8
            patch: The patch to be outlined, where it is in this view.

        Returns:
            The figure, with captions. [H', W', 3] uint8
        """
        height, width = colors.shape[:2]
        nearness = []
        for side, query, mode in zip(
            self._sides(teacher, rendered), self._queries, ("nearest", "bilinear"), strict=True
        ):
            near = (self._far - side.distance(query)) / (self._far - self._near)
            nearness.append(enlarged(near.clamp(0, 1)[..., None], *side.cells, width, height, mode=mode))
        alpha = rendered.alpha.cpu()[..., None]
        nearness[1] *= enlarged(alpha, rendered.cells_x, rendered.cells_y, width, height)
        distances = [to_uint8(near.expand(-1, -1, 3)) for near in nearness]
        if patch is not None:
            for panel in distances:
                _outline(panel, patch)
        teachers = self._palette.colors(teacher.features.permute(1, 2, 0))
        cells = (teacher.cells_x, teacher.cells_y)
        components = [to_uint8(enlarged(teachers, *cells, width, height, mode="nearest")), colors]
        return np.concatenate(
            [
                picture_strip([panels], (f"teacher: {what}", f"distilled: {what}"))
                for panels, what in ((distances, "distance"), (components, "PCA"))
            ]
        )

    def _sides(self, teacher: TeacherMap, rendered: FeatureMap) -> tuple[_Cells, _Cells]:
        return _Cells.of_teacher(teacher), _Cells.of_field(self._field, rendered)


def _within(centre: float, size: float, cells_per_pixel: float, count: int) -> tuple[int, int]:
    """The cells, from a up to but not b, whose centre is in an interval of pixels; at least one."""
    a = math.ceil((centre - size / 2) * cells_per_pixel - 0.5)
    b = math.floor((centre + size / 2) * cells_per_pixel - 0.5) + 1
    if a >= b:
        a = math.floor(centre * cells_per_pixel)
        b = a + 1
    a = min(max(a, 0), count - 1)
    return a, min(max(b, a + 1), count)


def _outline(panel: Picture, patch: Patch) -> None:
    corners = [
        (round(patch.x + side * patch.size / 2), round(patch.y + side * patch.size / 2)) for side in (-1, 1)
    ]
    cv2.rectangle(panel, corners[0], corners[1], _FRAME, max(1, panel.shape[1] // 300))
