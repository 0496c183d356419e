"""A prompt answered in a single view: from the cells of a map, rendered or a teacher's own, to its pixels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from feature_gs.features.field import FeatureField
from feature_gs.features.rendering import FeatureMap, decoded_solid, enlarged
from feature_gs.queries.graph import grid_graph
from feature_gs.queries.growing import Nodes, grow_from_box, grow_from_points
from feature_gs.queries.similarity import evened
from feature_gs.queries.views import Box, Point, point_map
from feature_gs.scenes import Camera
from feature_gs.training.trained import Trained

RING = 2.0  # times a box's sides: what is this far about it is what it does not hold
_NUMBERS = 1 << 26  # of a map in the teacher's space
_SOLID = 0.5  # alpha from which a cell shows something


@dataclass(frozen=True, eq=False)
class ViewMap:
    """Features of one view in the teacher's space.

    Attributes:
        features: One vector per cell. [h, w, C] float32
        shown: Whether a cell shows something. [h, w] bool
        cells_x: How many cells the picture's full width spans; may be fractional.
        cells_y: How many cells the picture's full height spans.
        width: The picture's width in pixels.
        height: The picture's height in pixels.
    """

    features: Tensor
    shown: Tensor
    cells_x: float
    cells_y: float
    width: int
    height: int

    def at_points(self, points: Sequence[Point], negatives: Sequence[Point] = ()) -> Tensor:
        """How much each pixel belongs to the thing at the points, in [0, 1]. [H, W]"""  # noqa: D415
        weights = [[self._at(point) for point in some] for some in (points, negatives)]
        return self._enlarged(grow_from_points(self._nodes(), *weights))

    def in_box(self, box: Box) -> Tensor:
        """How much each pixel belongs to the thing in the box, in [0, 1]; outside the box 0. [H, W]"""
        inside = self._share(box)
        ring = self._share(box.widened(RING)) - inside
        beyond = 1 - inside - ring
        scores = self._enlarged(grow_from_box(self._nodes(), inside, ring, beyond))
        return scores * (box.mask(self.width, self.height) >= 0.5)

    def _at(self, point: Point) -> Tensor:
        """How much of a point is in each cell. [h * w]"""
        rows, columns = self.shown.shape
        image = point_map(*point, self.width, self.height)
        y, x = image.nonzero(as_tuple=True)
        column = ((x + 0.5) * (self.cells_x / self.width)).long().clamp(max=columns - 1)
        row = ((y + 0.5) * (self.cells_y / self.height)).long().clamp(max=rows - 1)
        return torch.zeros(rows * columns).index_add(0, row * columns + column, image[y, x])

    def _share(self, box: Box) -> Tensor:
        rows, columns = self.shown.shape
        return box.scaled(self.cells_x / self.width, self.cells_y / self.height).mask(columns, rows).flatten()

    def _nodes(self) -> Nodes:
        rows, columns = self.shown.shape
        places = np.indices((rows, columns)).reshape(2, -1).T.astype(np.float64)
        features, _ = evened(self.features.flatten(0, 1).cpu(), self.shown.flatten().cpu())
        return Nodes(features, None, grid_graph(rows, columns), places)

    def _enlarged(self, scores: Tensor) -> Tensor:
        scores = scores.reshape(self.shown.shape) * self.shown.cpu()
        return enlarged(scores[..., None], self.cells_x, self.cells_y, self.width, self.height)[..., 0]


def cell_of_view(field: FeatureField, camera: Camera) -> tuple[float, float]:
    """The cell at which a view is asked: a pixel, or 2, 4, ... where the map would be huge.

    A conv3x3 decoder knows the teacher's cells only, so it gets these.
    """
    if field.decoder.kind == "conv3x3":
        return field.cell
    numbers = camera.width * camera.height * max(field.decoder.features, field.decoder.channels)
    side = 2.0 ** math.ceil(math.log2(max(1.0, numbers / _NUMBERS)) / 2)
    return side, side


def rendered_map(trained: Trained, field: FeatureField, camera: Camera) -> ViewMap:
    """What the field says of a view, in the teacher's space."""
    return decoded_map(field, camera, trained.render_features(field, camera, cell_of_view(field, camera)))


@torch.no_grad()
def decoded_map(field: FeatureField, camera: Camera, rendered: FeatureMap) -> ViewMap:
    """A rendered map of a view in the teacher's space."""
    return ViewMap(
        decoded_solid(field, rendered),
        rendered.alpha >= _SOLID,
        rendered.cells_x,
        rendered.cells_y,
        camera.width,
        camera.height,
    )
