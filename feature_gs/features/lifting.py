"""Features onto finished Gaussians in closed form: seconds instead of a training."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from feature_gs.errors import UserError
from feature_gs.features.decoders import Decoder, encode_with, make_decoder
from feature_gs.features.field import FeatureField
from feature_gs.features.grid import FeatureGrid, cell_size, cell_weights, grid_for
from feature_gs.features.maps import TeacherMap
from feature_gs.features.teacher import TeacherStore
from feature_gs.gaussians import GaussianModel
from feature_gs.rasterizer import CellWeights
from feature_gs.scenes import View

SOLVERS = ("mean", "cg")
Solver = Literal["mean", "cg"]
_RIDGE = 1e-3  # of the mean weight of a Gaussian: what the views leave open stays at the weighted mean
_ENOUGH = 1e-3  # of the first residual


@dataclass(frozen=True)
class Lifted:
    """What `lift` found.

    Attributes:
        field: The features.
        residual: Root mean square of what the solution leaves over at the teacher's cells, in the space that
            the Gaussians carry, after each iteration; the first is the weighted mean's. Empty for "mean".
    """

    field: FeatureField
    residual: list[float]


def lift(
    model: GaussianModel,
    views: Sequence[View],
    teacher: TeacherStore,
    *,
    decoder: Decoder | None = None,
    solver: Solver = "mean",
    iterations: int = 10,
    antialiased: bool = False,
    near: float = 0.01,
    watch: Callable[[Iterable[View]], Iterable[View]] = iter,
) -> Lifted:
    """Gives every Gaussian the feature that the teacher's maps say it has; its colours and shape stay.

    With A the weights of the Gaussians in the cells of all views (`CellWeights`) and M the maps:

    "mean": `f = Aᵀ M / Aᵀ 1`, the mean of the cells that show the Gaussian, weighted by how much they do
    (as LUDVIG and Occam's LGS lift). One pass over the views.

    "cg": the least-squares features, `(Aᵀ A + r I) (f - mean) = Aᵀ (M - A mean)` with a small ridge r, by
    conjugate gradients, preconditioned by `Aᵀ 1`, all channels at once. One more pass per iteration.

    Memory: N x c numbers (four times that for "cg") and one view; weights and maps are made anew for each.

    Args:
        model: Gaussians of any origin.
        views: The photos to learn from, usually the training views.
        teacher: The maps; each view needs one.
        decoder: Gaussians carry what it decodes ("linear" or "none"); None: the teacher's own channels.
        solver: "mean" or "cg".
        iterations: Most iterations of "cg".
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
    device = model.means.device
    features = torch.zeros(len(model), decoder.features, device=device)
    weight = torch.zeros(len(model), 1, device=device)
    for cells, target, inside in passes:
        cells.accumulate(features, target)
        cells.accumulate(weight, inside)
    seen = weight[:, 0] > 0
    features /= torch.where(seen, weight[:, 0], 1.0)[:, None]
    residual = _refine(features, weight[:, 0], passes, iterations) if solver == "cg" else []
    field = FeatureField(
        features=features,
        decoder=decoder,
        teacher=teacher.reference,
        cell=passes.cell,
        seen=seen,
        meta=dict(teacher.meta),
    )
    return Lifted(field, residual)


@dataclass
class _Passes:
    """All views, one after the other: their weights, and the teacher's maps in the Gaussians' space.

    Cells that a map leaves out hold zeros and take no part: their rows of A are zeroed by `inside`.
    """

    model: GaussianModel
    views: Sequence[View]
    teacher: TeacherStore
    decoder: Decoder
    antialiased: bool
    near: float
    watch: Callable[[Iterable[View]], Iterable[View]]
    cell: tuple[float, float] = (1.0, 1.0)

    def __iter__(self) -> Iterator[tuple[CellWeights, Tensor, Tensor]]:
        """Weights, targets [1, h, w, c], and 1 where the teacher's map is, else 0, [1, h, w, 1]."""
        sizes = []
        for view in self.watch(self.views):
            teacher_map = self.teacher.load(view)
            sizes.append(cell_size(teacher_map, view.camera))
            grid = grid_for(view.camera, *sizes[-1])
            cells = cell_weights(self.model, grid, antialiased=self.antialiased, near=self.near)
            target, inside = self._target(teacher_map, grid)
            yield cells, target, inside
        self.cell = middle_cell(sizes)

    def _target(self, teacher_map: TeacherMap, grid: FeatureGrid) -> tuple[Tensor, Tensor]:
        device = self.model.means.device
        rows = encode_with(self.decoder, as_rows(teacher_map, device))
        target = torch.zeros(1, grid.rows, grid.columns, rows.shape[2], device=device)
        inside = torch.zeros(1, grid.rows, grid.columns, 1, device=device)
        target[0, : rows.shape[0], : rows.shape[1]] = rows
        inside[0, : rows.shape[0], : rows.shape[1]] = 1
        return target, inside


def as_rows(teacher_map: TeacherMap, device: torch.device) -> Tensor:
    """A map with its channels last, float32. [h, w, C]"""  # noqa: D415
    return teacher_map.features.to(device).permute(1, 2, 0).float().contiguous()


def middle_cell(sizes: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The cell that stands for all: the middle one by area."""
    return sorted(sizes, key=lambda size: size[0] * size[1])[len(sizes) // 2]


def _refine(features: Tensor, weight: Tensor, passes: _Passes, iterations: int) -> list[float]:
    """Conjugate gradients from the weighted mean, in place; returns the residuals at the cells."""
    seen = weight > 0
    ridge = _RIDGE * weight[seen].mean() if bool(seen.any()) else 0.0
    scale = 1 / (torch.where(seen, weight, 1.0) + ridge)[:, None]  # the preconditioner
    remaining = torch.zeros_like(features)  # Aᵀ (M - A f) - r (f - mean)
    squares, cells_seen = torch.zeros((), dtype=torch.float64), 0
    for cells, target, inside in passes:
        left = (target - cells.blend(features)) * inside
        cells.accumulate(remaining, left)
        squares += left.double().square().sum().cpu()
        cells_seen += int(inside.sum()) * left.shape[-1]
    history = [(squares / max(cells_seen, 1)).sqrt().item()]
    direction = scale * remaining
    power = (remaining * direction).sum(dim=0)  # one conjugate gradient per channel
    first = power.clone()
    for _ in range(iterations):
        answer = ridge * direction
        for cells, _, inside in passes:
            cells.accumulate(answer, cells.blend(direction) * inside)
        curvature = (direction * answer).sum(dim=0)
        step = torch.where(curvature > 0, power / curvature, 0.0)
        features += step * direction
        remaining -= step * answer
        # Of |A f - M|², which this iteration lowered by step * power (up to the ridge's share).
        squares -= (step * power).double().sum().cpu()
        history.append((squares.clamp_min(0) / max(cells_seen, 1)).sqrt().item())
        preconditioned = scale * remaining
        following = (remaining * preconditioned).sum(dim=0)
        if bool((following <= _ENOUGH**2 * first).all()):
            break
        direction = preconditioned + torch.where(power > 0, following / power, 0.0) * direction
        power = following
    return history
