"""Features onto finished Gaussians in closed form: seconds instead of a training."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from feature_gs.errors import UserError
from feature_gs.features.decoders import Decoder, encoder_of, make_decoder
from feature_gs.features.field import FeatureField
from feature_gs.features.grid import FeatureGrid, cell_size, cell_weights, grid_for
from feature_gs.features.maps import TeacherMap
from feature_gs.features.teacher import TeacherStore
from feature_gs.gaussians import GaussianModel
from feature_gs.rasterizer import CellWeights
from feature_gs.scenes import View

SOLVERS = ("mean", "cg")
Solver = Literal["mean", "cg"]
_ENOUGH = 1e-3  # of the first gradient: solved
_ROWS = 1 << 13  # Gaussians whose products are summed at a time


@dataclass(frozen=True)
class Lifted:
    """What `lift` found.

    Attributes:
        field: The features.
        residual: Root mean square of A f - M over the teacher's cells and the channels that the Gaussians
            carry: the weighted mean's, then that after each iteration. Empty for "mean".
    """

    field: FeatureField
    residual: list[float]


@torch.no_grad()
def lift(
    model: GaussianModel,
    views: Sequence[View],
    teacher: TeacherStore,
    *,
    decoder: Decoder | None = None,
    solver: Solver = "mean",
    iterations: int = 5,
    ridge: float = 0.3,
    antialiased: bool = False,
    near: float = 0.01,
    watch: Callable[[Iterable[View]], Iterable[View]] = iter,
) -> Lifted:
    """Gives every Gaussian the feature that the teacher's maps say it has; its colours and shape stay.

    With A the weights of the Gaussians in the cells of all views (`CellWeights`) and M the maps:

    "mean": `f = Aᵀ M / Aᵀ 1`, the mean of the cells that show the Gaussian, weighted by how much they do
    (as LUDVIG and Occam's LGS lift). One pass over the views.

    "cg": least squares held near the mean, `min |A f - M|² + ridge Σ (Aᵀ 1)_n |f_n - mean_n|²`, that is
    `(Aᵀ A + ridge D) (f - mean) = Aᵀ (M - A mean)` with D = diag(Aᵀ 1), by conjugate gradients preconditioned
    by D, every channel on its own. As Aᵀ A is no larger than D, a few iterations suffice whatever the scene.
    One pass more to begin with, and one per iteration.

    The mean blurs over the borders of things but averages the teacher's noise away; least squares are sharper
    but, with more Gaussians than cells, learn that noise by heart when the ridge is small.

    Memory: N x c numbers (four times that for "cg") and one view; weights and maps are made anew for each.

    Args:
        model: Gaussians of any origin.
        views: The photos to learn from, usually the training views.
        teacher: The maps; each view needs one.
        decoder: Gaussians carry what it decodes ("linear" or "none"); None: the teacher's own channels.
        solver: "mean" or "cg".
        iterations: Most iterations of "cg".
        ridge: How firmly "cg" holds on to the mean, >= 0; 1: as firmly as to the maps.
        antialiased: As the model was trained.
        near: As the model was trained, scene units.
        watch: Called with the views of every pass, e.g. to show a progress bar.

    Returns:
        The field, whose `seen` marks the Gaussians that some cell shows; the others have zero features.

    Raises:
        UserError: There are no views, a map is missing or damaged, or the decoder is conv3x3.
    """
    if not views:
        raise UserError("lifting needs at least one view with a teacher map, got none.")
    if solver not in SOLVERS:
        raise ValueError(f"solver must be one of {SOLVERS}, got {solver!r}")
    if decoder is None:
        decoder = make_decoder("none", teacher.channels, teacher.channels)
    passes = _Passes(model, views, teacher, decoder, antialiased, near, watch)
    features, weight, seen = _weighted_mean(passes)
    residual = _refine(features, weight, passes, iterations, ridge) if solver == "cg" else []
    field = FeatureField(
        features=features,
        decoder=decoder,
        teacher=teacher.reference,
        cell=passes.cell,
        seen=seen,
        meta=dict(teacher.meta),
    )
    return Lifted(field, residual)


@dataclass(frozen=True)
class _Look:
    """One view in one pass.

    Cells that the teacher's map leaves out take no part: `target` and `inside` are zero there.

    Attributes:
        cells: The Gaussians' weights in the view's cells.
        grid: The cells.
        teacher_map: What the teacher says of them.
        encode: From the teacher's space to what the Gaussians carry.
        inside: 1 where the map is, else 0. [1, h, w, 1]
    """

    cells: CellWeights
    grid: FeatureGrid
    teacher_map: TeacherMap
    encode: Callable[[Tensor], Tensor]
    inside: Tensor

    def target(self) -> Tensor:
        """The map in the space that the Gaussians carry. [1, h, w, c]"""  # noqa: D415
        rows = self.encode(as_rows(self.teacher_map, self.grid, self.inside.device))
        target = self.inside.new_zeros(*self.inside.shape[:3], rows.shape[2])
        target[0, : rows.shape[0], : rows.shape[1]] = rows
        return target


@dataclass
class _Passes:
    """All views, one after the other, as often as wanted."""

    model: GaussianModel
    views: Sequence[View]
    teacher: TeacherStore
    decoder: Decoder
    antialiased: bool
    near: float
    watch: Callable[[Iterable[View]], Iterable[View]]
    cell: tuple[float, float] = (1.0, 1.0)

    def __iter__(self) -> Iterator[_Look]:
        sizes, encode = [], encoder_of(self.decoder)
        for view in self.watch(self.views):
            teacher_map = self.teacher.load(view)
            sizes.append(cell_size(teacher_map, view.camera))
            grid = grid_for(view.camera, *sizes[-1])
            cells = cell_weights(self.model, grid, antialiased=self.antialiased, near=self.near)
            inside = self.model.means.new_zeros(1, grid.rows, grid.columns, 1)
            inside[:, : teacher_map.features.shape[1], : teacher_map.features.shape[2]] = 1
            yield _Look(cells, grid, teacher_map, encode, inside)
        self.cell = middle_cell(sizes)


def as_rows(teacher_map: TeacherMap, grid: FeatureGrid, device: torch.device) -> Tensor:
    """A map with its channels last, float32, without slivers of cells beyond the grid. [h, w, C]"""  # noqa: D415
    features = teacher_map.features[:, : grid.rows, : grid.columns]
    rows = features.to(device).permute(1, 2, 0)
    return rows.to(torch.float32, memory_format=torch.contiguous_format)  # one pass


def middle_cell(sizes: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The cell that stands for all: the middle one by area."""
    return sorted(sizes, key=lambda size: size[0] * size[1])[len(sizes) // 2]


def _weighted_mean(passes: _Passes) -> tuple[Tensor, Tensor, Tensor]:
    """The mean [N, c], Aᵀ 1 or 1 where that is 0 [N, 1], and where it is not [N]."""
    like, count = passes.model.means, len(passes.model)
    features, weight = like.new_zeros(count, passes.decoder.features), like.new_zeros(count, 1)
    for look in passes:
        look.cells.accumulate(features, look.target())
        look.cells.accumulate(weight, look.inside)
    seen = weight[:, 0] > 0
    weight[~seen] = 1
    return features.div_(weight), weight, seen


def _refine(
    features: Tensor,  # [N, c]
    weight: Tensor,  # [N, 1]
    passes: _Passes,
    iterations: int,
    ridge: float,
) -> list[float]:
    """Conjugate gradients from the weighted mean, in place; returns the residuals at the cells.

    What is minimised, |A f - M|² + ridge |f - mean|² in the norm of D, falls by step * power each iteration.
    The share of the ridge is subtracted; it follows from recurrences, without a copy of the mean.

    Args:
        features: The weighted mean, which becomes the solution. [N, c]
        weight: D, 1 for Gaussians that are not seen. [N, 1]
        passes: The views.
        iterations: The most there may be.
        ridge: Weight of the mean.
    """
    remaining = torch.zeros_like(features)  # Aᵀ (M - A f) - ridge D (f - mean)
    total, numbers = torch.zeros((), dtype=torch.float64), 0
    for look in passes:
        left = (look.target() - look.cells.blend(features)) * look.inside
        look.cells.accumulate(remaining, left)
        total += left.double().square().sum().cpu()
        numbers += int(look.inside.sum()) * left.shape[-1]
    history = [(total / numbers).sqrt().item()]
    direction = remaining / weight
    first = power = _dots(remaining, direction)
    # In the norm of D: |direction|², (f - mean) · direction, |f - mean|².
    length, crossing, away = power, torch.zeros_like(power), torch.zeros_like(power)
    answer = torch.empty_like(features)
    for _ in range(iterations):
        torch.mul(direction, ridge * weight, out=answer)
        for look in passes:
            look.cells.accumulate(answer, look.cells.blend(direction) * look.inside)
        step = _ratio(power, _dots(direction, answer))
        features.addcmul_(direction, step.to(features))
        remaining.addcmul_(answer, step.to(features), value=-1)
        away = away + 2 * step * crossing + step.square() * length
        total -= (step * power).sum().cpu()
        history.append(((total - ridge * away.sum().cpu()).clamp_min(0) / numbers).sqrt().item())
        torch.div(remaining, weight, out=answer)
        following = _dots(remaining, answer)
        if bool((following <= _ENOUGH**2 * first).all()):
            break
        turn = _ratio(following, power)
        direction.mul_(turn.to(features)).add_(answer)
        crossing = turn * (crossing + step * length)
        length = following + turn.square() * length
        power = following
    return history


def _dots(a: Tensor, b: Tensor) -> Tensor:  # [N, c] each
    """The scalar product of each channel, float64. [c]"""  # noqa: D415
    sums = torch.zeros(a.shape[1], dtype=torch.float64, device=a.device)
    for x, y in zip(a.split(_ROWS), b.split(_ROWS), strict=True):
        sums += (x.double() * y.double()).sum(dim=0)
    return sums


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:  # [c] each
    """Their ratio, 0 where the denominator is: such a channel is solved."""
    return torch.where(denominator > 0, numerator / denominator, 0.0)
