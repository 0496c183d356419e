"""Views of a model: found by name, asked which Gaussians a pixel shows, and shown what a score selects."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import torch
from torch import Tensor

from feature_gs.errors import UserError
from feature_gs.rendering.render import rasterize_view
from feature_gs.scenes import Camera
from feature_gs.training.trained import SPLITS, Trained

Point = tuple[float, float]  # x from the left and y from the top, pixels

_LISTED = 8  # names in a message


def find_view(trained: Trained, name: str) -> Camera:
    """The camera of a photo, by its name with or without suffix.

    Raises:
        UserError: There is no such photo, or several.
    """
    cameras = {camera.name: camera for split in SPLITS for camera in trained.cameras[split]}
    if name in cameras:
        return cameras[name]
    stems = [other for other in cameras if str(PurePosixPath(other).with_suffix("")) == name]
    if len(stems) == 1:
        return cameras[stems[0]]
    if stems:
        raise UserError(f"--view {name} may be {' or '.join(stems)}: give the suffix, too.")
    near = difflib.get_close_matches(name, cameras, n=3, cutoff=0.5)
    listed = [*cameras][:_LISTED]
    more = f" and {len(cameras) - len(listed)} others" if len(cameras) > len(listed) else ""
    hint = f"Did you mean {' or '.join(near)}?" if near else f"There are {', '.join(listed)}{more}."
    raise UserError(f"{trained.path} has no view {name!r}. {hint}")


def votes(trained: Trained, camera: Camera, maps: Tensor) -> Tensor:  # [H, W, k] -> [N, k]
    """What the pixels of a view give to the Gaussians they show: `Aᵀ M`, as in lifting, pixel by pixel.

    Args:
        trained: The model.
        camera: The view.
        maps: k numbers per pixel. [H, W, k] float32

    Returns:
        Of each Gaussian the sum over pixels of blending weight times number. A map of ones gives its visible
        area in pixels. [N, k]
    """
    model = trained.model
    with torch.enable_grad():
        features = model.means.new_zeros(len(model), maps.shape[2]).requires_grad_()
        image = _blended(trained, camera, features)
        (gathered,) = torch.autograd.grad(image, features, maps.to(image)[None])
    return gathered


@torch.no_grad()
def score_images(trained: Trained, camera: Camera, scores: Tensor) -> Tensor:  # [N, k] -> [H, W, k]
    """Scores as a view shows them, what lies in front hiding what is behind.

    Args:
        trained: The model.
        camera: The view.
        scores: k scores of each Gaussian. [N, k]

    Returns:
        `Σ w s` of each pixel; with scores in [0, 1] in [0, alpha]. [H, W, k]
    """
    return _blended(trained, camera, scores.to(trained.model.means))[0]


def _blended(trained: Trained, camera: Camera, features: Tensor) -> Tensor:
    output = rasterize_view(
        trained.model,
        camera,
        features=features,
        antialiased=trained.config.antialiased,
        near=trained.config.near,
    )
    assert output.features is not None
    return output.features


@dataclass(frozen=True)
class Box:
    """A rectangle in a picture, pixels from its top left corner.

    Attributes:
        left: Its left edge.
        top: Its upper edge.
        right: Its right edge, > left.
        bottom: Its lower edge, > top.
    """

    left: float
    top: float
    right: float
    bottom: float

    def check(self, width: int, height: int) -> None:
        """Raises a UserError unless the box has an area and a part of it lies in the picture."""
        numbers = f"--box {self.left:g} {self.top:g} {self.right:g} {self.bottom:g}"
        if not (self.left < self.right and self.top < self.bottom):
            raise UserError(f"{numbers} is empty: expected X1 Y1 X2 Y2 with X1 < X2 and Y1 < Y2.")
        if not (self.left < width and self.right > 0 and self.top < height and self.bottom > 0):
            raise UserError(f"{numbers} lies outside the picture of {width} x {height} pixels.")

    def scaled(self, x: float, y: float) -> "Box":
        """The box in other pixels, of which there are x and y times as many."""
        return Box(self.left * x, self.top * y, self.right * x, self.bottom * y)

    def widened(self, factor: float) -> "Box":
        """The box about the same middle, `factor` times as wide and high."""
        x, y = (self.right - self.left) * (factor - 1) / 2, (self.bottom - self.top) * (factor - 1) / 2
        return Box(self.left - x, self.top - y, self.right + x, self.bottom + y)

    def mask(self, width: int, height: int) -> Tensor:
        """The share of each pixel that is in the box. [height, width] float32"""
        across, down = (
            ((edges + 1).clamp(max=end) - edges.clamp(min=start)).clamp(0, 1)
            for edges, start, end in (
                (torch.arange(float(width)), self.left, self.right),
                (torch.arange(float(height)), self.top, self.bottom),
            )
        )
        return down[:, None] * across[None]


def check_points(points: Sequence[Point], width: int, height: int, flag: str) -> None:
    """Raises a UserError unless every point lies in the picture."""
    for x, y in points:
        if not (0 <= x < width and 0 <= y < height):
            raise UserError(
                f"{flag} {x:g} {y:g} lies outside the picture of {width} x {height} pixels: give X (from the "
                "left) and Y (from the top) in pixels of the photo as the model was trained."
            )


def point_map(x: float, y: float, width: int, height: int) -> Tensor:
    """How much each pixel counts for a point: its own 4, those beside it 2 and 1. [height, width] float32"""
    image = torch.zeros(height, width)
    top, left = int(y) - 1, int(x) - 1
    rows, columns = range(max(top, 0), min(top + 3, height)), range(max(left, 0), min(left + 3, width))
    for row in rows:
        for column in columns:
            image[row, column] = _BINOMIAL[row - top] * _BINOMIAL[column - left]
    return image


_BINOMIAL = (1.0, 2.0, 1.0)
