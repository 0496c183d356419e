"""Features in training: colours do not notice them, they learn, and they stay with their Gaussians."""

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from blobs import SIZE, busy_settings, make_kinds, new_trainer, state_of, write_kinds
from taught import CHANNELS, TEACHERS, calm, cosine_of, field_of, settings, start, teacher, write_taught_blobs
from torch import Tensor

from feature_gs.features.decoders import encoder_of
from feature_gs.features.field import field_path
from feature_gs.rasterizer import rasterize
from feature_gs.rendering import render
from feature_gs.scenes import read_cameras_json
from feature_gs.training import TrainConfig, Trainer, train
from feature_gs.training.folder import ply_path

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_taught_blobs(tmp_path_factory.mktemp("blobs"))


@pytest.mark.parametrize("name", TEACHERS)
@pytest.mark.parametrize("strategy", ["default", "mcmc"])
def test_colours_do_not_notice_features(scene: Path, tmp_path: Path, strategy: str, name: str) -> None:
    """Bit-equal pictures at every step and bit-equal Gaussians at the end."""

    def run(trainer: Trainer) -> tuple[list[Tensor], dict[str, Tensor]]:
        views = trainer.scene.train
        pairs = [(views[i % 6], views[i % 6].load()[None].float() / 255) for i in range(26)]
        return [trainer.step(*pair)[1] for pair in pairs], state_of(trainer)

    plain = busy_settings(scene, strategy=strategy)
    images, state = run(new_trainer(plain, tmp_path))
    count = len(state["means"])
    assert count != 60, "Gaussians were added"
    taught = start(scene, tmp_path, name, strategy=strategy)
    taught_images, taught_state = run(taught)
    assert all(torch.equal(*pair) for pair in zip(images, taught_images, strict=True))
    assert taught_state["features"].abs().max() > 0 and len(taught_state["features"]) == count
    for key, tensor in state.items():
        assert torch.equal(tensor, taught_state[key]), key


@pytest.mark.parametrize("name", TEACHERS)
def test_features_that_move_geometry_do(scene: Path, tmp_path: Path, name: str) -> None:
    means = []
    for moves in (False, True):
        trainer = start(scene, tmp_path, name, features_move_geometry=moves)
        for view in trainer.scene.train[:3]:
            trainer.step(view, view.load()[None].float() / 255)
        means.append(trainer.model.means.detach())
    assert not torch.equal(*means)


@pytest.mark.parametrize("name", TEACHERS)
def test_gradient_of_the_geometry(scene: Path, tmp_path: Path, name: str) -> None:
    """Against the same loss in float64, and that against differences."""
    trainer = start(scene, tmp_path, name, features_move_geometry=True, feature_weight=3.0)
    model, distillation = trainer.model, trainer.distillation
    assert distillation is not None and model.features is not None
    model.features.normal_(generator=torch.Generator().manual_seed(1))
    lesson = distillation.lesson(trainer.scene.train[2], 1)
    assert lesson is not None and lesson.grid.shared == (name == "shared")
    camera, target, features = lesson.grid.camera, lesson.target.double(), model.features.double()

    def loss(means: Tensor, quats: Tensor, log_scales: Tensor, logits: Tensor) -> Tensor:
        output = rasterize(
            means,
            quats,
            log_scales.exp(),
            logits.sigmoid(),
            camera.cam_from_world.double()[None],
            camera.K.double()[None],
            camera.width,
            camera.height,
            features=features,
            feature_cell=lesson.grid.cell,
            features_move_geometry=True,
        )
        assert output.features is not None
        cells = output.features[:, : target.shape[1], : target.shape[2]]
        return 3 * (cells - target).abs().mean()

    names = ("means", "quats", "log_scales", "logit_opacities")
    for name in ("quats", "log_scales"):  # no spheres, whose rotation does not matter
        parameter = getattr(model, name)
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
        parameter.data += 0.3 * noise
    exact = [getattr(model, name).detach().double().requires_grad_() for name in names]
    loss(*exact).backward()
    output = render(
        model,
        lesson.view.camera,
        feature_cell=lesson.grid.cell if lesson.grid.shared else None,
        features_move_geometry=True,
    )
    got = distillation.loss(lesson, output)
    assert got.item() == pytest.approx(loss(*exact).item(), rel=1e-5)
    got.backward()
    for parameter, truth in zip((getattr(model, name) for name in names), exact, strict=True):
        assert parameter.grad is not None and truth.grad is not None
        assert (parameter.grad - truth.grad).abs().max() < 2e-3 * truth.grad.abs().max()
    assert exact[0].grad is not None
    step, largest = 1e-5, int(exact[0].grad.abs().argmax())
    ends = []
    for sign in (-1, 1):
        moved = [tensor.detach().clone() for tensor in exact]
        moved[0].view(-1)[largest] += sign * step
        ends.append(loss(*moved).item())
    slope = exact[0].grad.flatten()[largest].item()
    assert (ends[1] - ends[0]) / (2 * step) == pytest.approx(slope, rel=0.02)
    assert model.features.grad is None


@pytest.mark.parametrize("strategy", ["default", "mcmc"])
def test_features_follow_their_gaussians(scene: Path, tmp_path: Path, strategy: str) -> None:
    """Number the Gaussians in colour and feature; clones, children, moved and reordered ones agree."""
    trainer = start(
        scene,
        tmp_path,
        strategy=strategy,
        feature_lr=0.0,
        feature_weight=0.0,
        min_opacity=0.08 if strategy == "mcmc" else 0.005,
    )
    model = trainer.model
    assert model.features is not None
    numbers = torch.arange(60.0)[:, None]
    with torch.no_grad():
        model.sh_dc.copy_(numbers.expand(-1, 3) / 60)
        model.features.copy_(numbers.expand(-1, CHANNELS))
    views = trainer.scene.train
    for i in range(33):
        trainer.step(views[i % 6], views[i % 6].load()[None].float() / 255)
    numbers = (model.sh_dc[:, :1] * 60).round()
    assert torch.equal(model.features.float(), numbers.expand(-1, CHANNELS))
    assert len(model) > 60 and not torch.equal(numbers, numbers.sort(dim=0).values)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"feature_loss": "cosine"},
        {"foundation_model": "own", "feature_loss": "cosine"},
        {"features": "lift"},
        {"features": "lift+joint"},
        {"features_move_geometry": True},
        {"decoder": "linear", "feature_dim": 3},
        {"decoder": "linear", "feature_dim": 3, "decoder_start": "random", "decoder_lr": 0.01},
        {"decoder": "conv3x3", "feature_dim": 3, "decoder_lr": 0.01},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())) or "joint",
)
def test_features_learn(scene: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    train(calm(scene, tmp_path / "out", **{"iterations": 160, **changes}))
    assert cosine_of(tmp_path / "out", 160) > 0.9
    assert cosine_of(tmp_path / "out", 160, "test") > 0.6


def test_empty_cells_do_not_stop_the_cosine(scene: Path, tmp_path: Path) -> None:
    """A teacher that knows the background too: where no Gaussian is, a direction's gradient is endless."""
    codes = make_kinds(CHANNELS)
    codes[3] = torch.ones(CHANNELS) / CHANNELS**0.5
    store = write_kinds(tmp_path / "everywhere", codes)
    trainer = new_trainer(busy_settings(scene, feature_loss="cosine"), tmp_path, None, store)
    distillation, model = trainer.distillation, trainer.model
    assert distillation is not None and model.features is not None
    trainer.optimizer.restructure((model.means[:, 0] < 0).nonzero()[:, 0])
    features = model.features
    features.normal_(generator=torch.Generator().manual_seed(0))
    before = features.clone()
    view = trainer.scene.train[0]
    lesson = distillation.lesson(view, 1)
    assert lesson is not None
    output = render(model, view.camera, feature_cell=lesson.grid.cell)
    distillation.loss(lesson, output).backward()
    distillation.step(lesson, 1)
    assert lesson.cells is not None
    alpha = lesson.cells.blend(torch.ones(len(model), 1))
    assert (alpha == 0).any(), "some cells are empty"
    weight = lesson.cells.totals()
    moved = (features - before).float().norm(dim=1)[weight > 0.5]
    assert (moved > 1e-2).all(), "and the others' features move all the same"


def test_pca_starts_at_the_truth(scene: Path, tmp_path: Path) -> None:
    """A teacher of three directions needs three channels, whatever is learnt later."""
    trainer = start(scene, tmp_path, decoder="linear", feature_dim=3)
    assert trainer.distillation is not None
    decoder = trainer.distillation.decoder
    for view in trainer.scene.train:
        rows = teacher(scene).load(view).features.float().permute(1, 2, 0)
        assert torch.allclose(decoder(encoder_of(decoder)(rows)[None])[0], rows, atol=2e-3)


def test_speedup_means_a_linear_decoder_of_a_quarter(scene: Path, tmp_path: Path) -> None:
    train(settings(scene, tmp_path / "a", speedup=True))
    train(settings(scene, tmp_path / "b", decoder="linear", feature_dim=CHANNELS // 4))
    paths = [field_path(ply_path(tmp_path / name, 12)) for name in "ab"]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    config = TrainConfig.load(tmp_path / "a" / "config.json")
    assert (config.decoder, config.feature_dim, config.speedup) == ("linear", 2, False)


def test_the_teachers_grid_as_the_size_of_the_photos(scene: Path, tmp_path: Path) -> None:
    train(settings(scene, tmp_path / "out", resolution=0))
    cameras = read_cameras_json(tmp_path / "out" / "cameras.json")
    assert {(c.width, c.height) for c in [*cameras["train"], *cameras["test"]]} == {
        (SIZE[0] // 4, SIZE[1] // 4)
    }
    assert field_of(tmp_path / "out", 12).cell == (1.0, 1.0)


def all_tensors() -> list[Tensor]:
    """Those with data; other tests leave stand-ins without, by torch.compile."""
    gc.collect()
    return [thing for thing in gc.get_objects() if type(thing) in (Tensor, torch.nn.Parameter)]


def test_features_have_neither_gradient_nor_moments(scene: Path, tmp_path: Path) -> None:
    """After steps with and without densification the only tensor of N x C numbers is the features."""
    others = {id(tensor): tensor for tensor in all_tensors()}  # held, so that no number is given out again
    trainer = start(scene, tmp_path)
    views = trainer.scene.train
    for i in range(18):
        trainer.step(views[i % 6], views[i % 6].load()[None].float() / 255)
    model = trainer.model
    assert model.features is not None and model.features.grad is None
    size = len(model) * CHANNELS
    tensors = [tensor for tensor in all_tensors() if id(tensor) not in others]
    large = {tensor.data_ptr() for tensor in tensors if tensor.numel() == size}
    assert large == {model.features.data_ptr()}
    assert "features" not in trainer.optimizer.state_dict()
