"""Lifting: the weighted mean by hand, least squares against the dense matrix, and what both leave alone."""

import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny_scenes import circle_pose, write_photo
from torch import Tensor

from feature_gs.errors import UserError
from feature_gs.features.decoders import make_decoder, pca_decoder
from feature_gs.features.grid import cell_weights, grid_for
from feature_gs.features.lifting import Lifted, lift
from feature_gs.features.teacher import TeacherStore, write_meta
from feature_gs.gaussians import GaussianModel
from feature_gs.scenes import Camera, View

CHANNELS = 5
pytestmark = pytest.mark.usefixtures("one_thread")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random_model(count: int = 40, size: float = 0.12) -> GaussianModel:
    return GaussianModel(
        means=0.35 * draw(count, 3),
        quats=draw(count, 4, seed=1),
        log_scales=torch.full((count, 3), size).log(),
        logit_opacities=draw(count, seed=2),
        sh_dc=torch.zeros(count, 3),
        sh_rest=torch.zeros(count, 0, 3),
        sh_degree=0,
    )


def circle(folder: Path, count: int = 4, width: int = 48, height: int = 40) -> list[View]:
    """Views of photos around the origin; the cameras are half as large as the photos."""
    views = []
    for index in range(count):
        path = folder / f"{index}.png"
        write_photo(path, 2 * width, 2 * height)
        K = torch.tensor([[40.0, 0, width / 2 + 1], [0, 40.0, height / 2 - 1], [0, 0, 1]])
        pose = torch.from_numpy(circle_pose(index, count)).float()
        views.append(View(Camera(path.name, width, height, K, pose), path))
    return views


def store(folder: Path, views: list[View], maps: list[Tensor], cell: float = 4) -> TeacherStore:
    """A teacher that says `maps` [C, h, w], in float32, with cells of so many pixels of the cameras."""
    scale = {f"cells_per_pixel_{axis}": repr(0.5 / cell) for axis in "xy"}
    write_meta(folder / "codes", "codes", maps[0].shape[0])
    for view, features in zip(views, maps, strict=True):
        path = folder / "codes" / Path(view.camera.name).with_suffix(".safetensors")
        save_file({"features": features.contiguous()}, path, scale)
    return TeacherStore.open(folder / "codes")


def dense(model: GaussianModel, views: list[View], cell: float = 4) -> list[Tensor]:
    """A of every view. [h, w, N] each"""
    grids = (grid_for(view.camera, cell, cell) for view in views)
    return [cell_weights(model, grid).blend(torch.eye(len(model)))[0].detach() for grid in grids]


def rendered(matrices: list[Tensor], features: Tensor) -> list[Tensor]:
    return [(matrix @ features).permute(2, 0, 1) for matrix in matrices]


def noise(matrices: list[Tensor], channels: int = CHANNELS) -> list[Tensor]:
    return [draw(channels, *matrix.shape[:2], seed=9 + i) for i, matrix in enumerate(matrices)]


def rms(matrices: list[Tensor], maps: list[Tensor], features: Tensor) -> float:
    left = [m.permute(1, 2, 0) - a @ features for a, m in zip(matrices, maps, strict=True)]
    return torch.cat([part.flatten() for part in left]).square().mean().sqrt().item()


def mean_of(matrices: list[Tensor], maps: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The weighted mean by its formula, and Aᵀ 1. [N, C] and [N]"""  # noqa: D415
    A = torch.cat([matrix.flatten(0, 1) for matrix in matrices])
    M = torch.cat([values.flatten(1).t() for values in maps])
    weight = A.sum(dim=0)
    return A.t() @ M / weight.clamp(min=1e-30)[:, None], weight


def test_two_gaussians_by_hand(tmp_path: Path) -> None:
    """One before the other, on a picture of two cells: the front one lies in the left cell only."""
    model = random_model(2)
    model.means.data[:] = torch.tensor([[-0.2, 0, 1.0], [0.0, 0, 2.0]])
    model.log_scales.data[:] = torch.tensor([0.02, 0.2]).log()[:, None]
    model.logit_opacities.data.fill_(2.0)
    camera = Camera("0.png", 8, 4, torch.tensor([[10.0, 0, 4], [0, 10.0, 2], [0, 0, 1]]), torch.eye(4))
    write_photo(tmp_path / "0.png", 8, 4)
    views = [View(camera, tmp_path / "0.png")]
    write_meta(tmp_path / "codes", "codes", 2)
    left, right = torch.tensor([3.0, -1.0]), torch.tensor([1.0, 5.0])
    maps = torch.stack([left, right], dim=1)[:, None].contiguous()  # [2, 1, 2], spans the photo
    save_file({"features": maps}, tmp_path / "codes/0.safetensors")
    field = lift(model, views, TeacherStore.open(tmp_path / "codes")).field

    assert torch.allclose(field.features[0], left), "its cell's value, though it fills little of it"
    weights = dense(model, views)[0][0, :, 1]  # of the rear one, left and right
    assert 0 < weights[0] < weights[1], "the front one hides some of it"
    expected = (weights[0] * left + weights[1] * right) / weights.sum()
    assert torch.allclose(field.features[1], expected)
    assert field.seen.all()
    assert (field.cell, field.teacher) == ((4, 4), str(tmp_path / "codes"))


@pytest.mark.parametrize(
    ("width", "height", "cell"),
    [(48, 40, 4), (40, 52, 8), (50, 37, 16), (48, 40, 5.5), (37, 50, 3.3), (20, 30, 1), (20, 30, 2)],
)
def test_the_mean_is_the_formula_on_any_grid(tmp_path: Path, width: int, height: int, cell: float) -> None:
    model, views = random_model(), circle(tmp_path, 3, width, height)
    matrices = dense(model, views, cell)
    rows, columns = -int(-height // cell), -int(-width // cell)
    assert matrices[0].shape == (rows, columns, len(model))
    maps = noise(matrices)
    field = lift(model, views, store(tmp_path, views, maps, cell)).field
    expected, weight = mean_of(matrices, maps)
    seen = weight > 1e-4  # where less is seen, rounding decides
    assert seen.sum() > 20
    assert torch.allclose(field.features[seen], expected[seen], atol=1e-4)
    assert field.cell == pytest.approx((cell, cell))


@pytest.mark.parametrize("cell", [4, 5.5])
@pytest.mark.parametrize("solver", ["mean", "cg"])
def test_a_constant_map_gives_everyone_its_value(tmp_path: Path, solver: Any, cell: float) -> None:
    """Least squares may strengthen what is faint, but not turn it: all channels stay in proportion."""
    model, views = random_model(), circle(tmp_path)
    value = torch.tensor([1.0, -2.0, 0.5, 3.0, 0.25])
    shape = dense(model, views, cell)[0].shape[:2]
    maps = [value[:, None, None].expand(-1, *shape)] * len(views)
    field = lift(model, views, store(tmp_path, views, maps, cell), solver=solver).field
    seen = field.features[field.seen]
    if solver == "mean":
        assert torch.allclose(seen, value.expand_as(seen), atol=1e-5)
    assert torch.allclose(seen / seen[:, :1], value.expand_as(seen), atol=1e-3)


@pytest.mark.parametrize("solver", ["mean", "cg"])
def test_gaussians_that_no_view_shows_are_marked(tmp_path: Path, solver: Any) -> None:
    model, views = random_model(), circle(tmp_path)
    model.means.data[3] = torch.tensor([0, 0, 50.0])  # above all pictures
    model.logit_opacities.data[7] = -20
    maps = noise(dense(model, views))
    field = lift(model, views, store(tmp_path, views, maps), solver=solver).field
    assert not field.seen[[3, 7]].any() and field.seen.sum() >= 36
    assert torch.equal(field.features[~field.seen], torch.zeros(int((~field.seen).sum()), CHANNELS))


def test_the_order_of_the_views_does_not_matter(tmp_path: Path) -> None:
    model, views = random_model(), circle(tmp_path)
    teacher = store(tmp_path, views, noise(dense(model, views)))
    one, other = (lift(model, order, teacher, solver="cg").field for order in (views, views[::-1]))
    assert torch.allclose(one.features, other.features, atol=1e-4)
    twice = lift(model, [*views, *views], teacher).field
    assert torch.allclose(twice.features, lift(model, views, teacher).field.features, atol=1e-5)


@pytest.mark.parametrize("solver", ["mean", "cg"])
def test_cells_that_a_map_leaves_out_take_no_part(tmp_path: Path, solver: Any) -> None:
    """A margin at the right and below: as if these rows of A were not there."""
    model, views = random_model(), circle(tmp_path)
    matrices = dense(model, views)
    whole = noise(matrices)
    maps = [values[:, :8, :9] for values in whole]
    found = lift(model, views, store(tmp_path, views, maps), solver=solver, iterations=40)
    cropped = [matrix[:8, :9] for matrix in matrices]
    expected, weight = mean_of(cropped, maps)
    if solver == "cg":
        expected = least_squares(cropped, maps, 0.3)
        assert found.residual[-1] == pytest.approx(rms(cropped, maps, found.field.features), rel=1e-4)
    sure = weight > 1e-3
    assert torch.equal(found.field.seen, weight > 0)
    assert torch.allclose(found.field.features[sure], expected[sure], atol=5e-3)
    assert not torch.allclose(expected[sure], mean_of(matrices, whole)[0][sure], atol=0.1)


def test_slivers_of_cells_beyond_the_grid_are_left_out(tmp_path: Path) -> None:
    """A rounded scale: 48 pixels are 12.0006 cells, the teacher wrote 13 columns."""
    model, views = random_model(), circle(tmp_path)
    maps = [draw(CHANNELS, 11, 13, seed=i) for i in range(4)]
    found = lift(model, views, store(tmp_path, views, maps, 4 * 12 / 12.0006)).field
    expected, weight = mean_of(dense(model, views), [values[:, :10, :12] for values in maps])
    assert torch.allclose(found.features[weight > 1e-3], expected[weight > 1e-3], atol=1e-2)


def least_squares(matrices: list[Tensor], maps: list[Tensor], ridge: float) -> Tensor:
    """What `cg` solves, by a dense solver in float64."""
    A = torch.cat([matrix.flatten(0, 1) for matrix in matrices]).double()
    M = torch.cat([values.flatten(1).t() for values in maps]).double()
    mean, weight = (part.double() for part in mean_of(matrices, maps))
    seen = weight > 0
    A, mean, weight = A[:, seen], mean[seen], weight[seen]
    change = torch.linalg.solve(A.t() @ A + ridge * weight.diag(), A.t() @ (M - A @ mean))
    result = torch.zeros(len(seen), M.shape[1], dtype=torch.float64)
    result[seen] = mean + change
    return result.float()


@pytest.mark.parametrize("ridge", [0.03, 0.3, 3.0])
def test_cg_solves_its_equations(tmp_path: Path, ridge: float) -> None:
    model, views = random_model(), circle(tmp_path)
    matrices = dense(model, views)
    maps = noise(matrices)
    found = lift(model, views, store(tmp_path, views, maps), solver="cg", iterations=60, ridge=ridge)
    expected = least_squares(matrices, maps, ridge)
    mean, weight = mean_of(matrices, maps)
    sure = weight > 1e-3
    missed = (found.field.features - expected)[sure].norm() / (expected - mean)[sure].norm()
    assert missed < 5e-3


@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("decoder", ["none", "linear"])
def test_the_residuals_are_the_true_ones_and_fall(tmp_path: Path, ridge: float, decoder: str) -> None:
    """Of noise, which nothing fits: after every number of iterations, and first of all the mean's."""
    model, views = random_model(), circle(tmp_path)
    matrices = dense(model, views)
    maps = noise(matrices)
    teacher = store(tmp_path, views, maps)
    chosen = None
    if decoder == "linear":
        chosen = pca_decoder(maps, 3, CHANNELS)
        bias, components = chosen.bias.detach()[:, None, None], chosen.weight.detach()
        maps = [torch.einsum("chw,ck->khw", values - bias, components) for values in maps]

    def run(solver: Any, iterations: int = 1) -> Lifted:
        return lift(model, views, teacher, decoder=chosen, solver=solver, iterations=iterations, ridge=ridge)

    longest = run("cg", 6).residual
    assert longest[0] == pytest.approx(rms(matrices, maps, run("mean").field.features), rel=1e-5)
    for iterations in (1, 2, 6):
        found = run("cg", iterations)
        assert found.residual == pytest.approx(longest[: iterations + 1], rel=1e-6)
        assert found.residual[-1] == pytest.approx(rms(matrices, maps, found.field.features), rel=1e-4)
    assert all(later < earlier for earlier, later in zip(longest, longest[1:], strict=False))
    assert run("mean").residual == []


def test_cg_finds_the_features_that_made_the_maps(tmp_path: Path) -> None:
    """Without noise and without ridge; the mean blurs them."""
    model, views = random_model(12, 0.1), circle(tmp_path, 6)
    truth = draw(12, CHANNELS, seed=5)
    matrices = dense(model, views)
    maps = rendered(matrices, truth)
    teacher = store(tmp_path, views, maps)
    exact = lift(model, views, teacher, solver="cg", iterations=100, ridge=0.0)
    mean = lift(model, views, teacher).field.features
    _, weight = mean_of(matrices, maps)
    well = weight > 1
    assert well.sum() >= 10
    assert exact.residual[-1] < 1e-3 * exact.residual[0]
    assert torch.allclose(exact.field.features[well], truth[well], atol=0.02)
    assert (mean[well] - truth[well]).abs().mean() > 0.2
    held = lift(model, views, teacher, solver="cg").residual
    assert exact.residual[-1] < held[-1] < held[0], "the ridge holds back"


def test_a_ridge_keeps_noise_out(tmp_path: Path) -> None:
    """More Gaussians than cells and a noisy teacher: the smaller the ridge, the farther from the truth."""
    model, views = random_model(400, 0.06), circle(tmp_path, 4)
    matrices = dense(model, views, 8)
    _, weight = mean_of(matrices, noise(matrices))
    truth = torch.ones(400, CHANNELS)
    maps = [m + 0.5 * n for m, n in zip(rendered(matrices, truth), noise(matrices), strict=True)]
    teacher = store(tmp_path, views, maps, 8)
    wrong = [
        (lift(model, views, teacher, solver="cg", ridge=ridge, iterations=30).field.features - truth)[
            weight > 0.1
        ]
        .square()
        .mean()
        .item()
        for ridge in (0.001, 0.3, 10.0)
    ]
    assert wrong[0] > 2 * wrong[1] > 2 * wrong[2]


@pytest.mark.parametrize("solver", ["mean", "cg"])
def test_lifting_through_a_decoder_is_lifting_and_then_projecting(tmp_path: Path, solver: Any) -> None:
    """Maps of rank 3 through three principal components lose nothing."""
    model, views = random_model(), circle(tmp_path)
    matrices = dense(model, views)
    basis = draw(3, CHANNELS, seed=8)
    maps = [torch.einsum("khw,kc->chw", part, basis) + 2 for part in noise(matrices, 3)]
    teacher = store(tmp_path, views, maps)
    decoder = pca_decoder(maps, 3, CHANNELS)
    few, all_ = (
        lift(model, views, teacher, decoder=chosen, solver=solver, iterations=40).field
        for chosen in (decoder, None)
    )
    assert few.features.shape == (len(model), 3) and few.decoder is decoder
    if solver == "mean":
        back = decoder.decode_gaussians(few.features)
        assert torch.allclose(back[few.seen], all_.features[few.seen], atol=1e-4)
    else:  # the bias is not blended: the same holds after the mean is taken off the maps
        shifted = [m - decoder.bias.detach()[:, None, None] for m in maps]
        centred = lift(model, views, store(tmp_path, views, shifted), solver="cg", iterations=40).field
        expected = centred.features @ decoder.weight.detach()
        assert torch.allclose(few.features[few.seen], expected[few.seen], atol=1e-3)


@pytest.mark.parametrize("solver", ["mean", "cg"])
def test_one_map_at_a_time(tmp_path: Path, solver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a map is read, at most the one before it is still there."""
    model, views = random_model(), circle(tmp_path, 8)
    teacher = store(tmp_path, views, noise(dense(model, views)))
    living: list[weakref.ref[object]] = []
    original = TeacherStore.load

    def load(self: TeacherStore, view: View) -> object:
        assert sum(ref() is not None for ref in living) <= 1
        found = original(self, view)
        living.append(weakref.ref(found))
        return found

    monkeypatch.setattr(TeacherStore, "load", load)
    lift(model, views, teacher, solver=solver, iterations=3, ridge=0.0)
    assert len(living) == 8 * (1 if solver == "mean" else 5)


@pytest.mark.parametrize(("solver", "passes"), [("mean", 1), ("cg", 4)])
def test_every_pass_can_be_watched(tmp_path: Path, solver: Any, passes: int) -> None:
    model, views = random_model(), circle(tmp_path)
    teacher = store(tmp_path, views, noise(dense(model, views)))
    seen: list[str] = []

    def watch(views: Iterable[View]) -> Iterable[View]:
        for view in views:
            seen.append(view.camera.name)
            yield view

    lift(model, views, teacher, solver=solver, iterations=2, ridge=0.0, watch=watch)
    assert seen == passes * [view.camera.name for view in views]


def test_colours_and_shape_stay(tmp_path: Path) -> None:
    model, views = random_model(), circle(tmp_path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    lift(model, views, store(tmp_path, views, noise(dense(model, views))), solver="cg", iterations=2)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters()) and model.features is None


def no_views(model: GaussianModel, views: list[View], teacher: TeacherStore) -> None:
    lift(model, [], teacher)


def neighbours(model: GaussianModel, views: list[View], teacher: TeacherStore) -> None:
    lift(model, views, teacher, decoder=make_decoder("conv3x3", 2, CHANNELS))


def no_map(model: GaussianModel, views: list[View], teacher: TeacherStore) -> None:
    (teacher.folder / "2.safetensors").unlink()
    lift(model, views, teacher)


@pytest.mark.parametrize(
    ("attempt", "message"),
    [(no_views, "at least one view"), (neighbours, "conv3x3"), (no_map, "no teacher map .*2.safetensors")],
)
def test_what_cannot_be_lifted(tmp_path: Path, attempt: Callable[..., None], message: str) -> None:
    model, views = random_model(), circle(tmp_path)
    teacher = store(tmp_path, views, noise(dense(model, views)))
    with pytest.raises(UserError, match=message):
        attempt(model, views, teacher)


def test_more_components_than_channels_are_refused() -> None:
    with pytest.raises(UserError, match="--feature_dim 6: the teacher has only 5 channels"):
        pca_decoder([draw(CHANNELS, 4, 4)], 6, CHANNELS)
