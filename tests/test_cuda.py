"""On a machine with a GPU: the GPU's results against the CPU's, long runs, several GPUs.

All other tests run there with FEATURE_GS_KERNELS=cuda, see kernels.py; `make test-gpu` does so.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from blobs import busy_settings, new_trainer
from random_scenes import random_scene
from taught import calm, write_taught_blobs

from feature_gs.cli.main import main
from feature_gs.gaussians import GaussianModel
from feature_gs.gaussians.initialise import neighbour_distances
from feature_gs.rasterizer import RenderOutput, rasterize
from feature_gs.rasterizer.device import why_no_cuda
from feature_gs.scenes import load_scene
from feature_gs.training import train
from feature_gs.training.folder import ply_path

pytestmark = pytest.mark.skipif(bool(why_no_cuda()), reason=f"no GPU to test: {why_no_cuda()}")


@pytest.fixture(autouse=True)
def on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("FEATURE_GS_DEVICE", "cuda")
    yield
    torch.cuda.synchronize()


def rendered(device: str, cell: int) -> tuple[RenderOutput, torch.Tensor]:
    """A picture with features, and the gradient of the means."""
    scene = random_scene(200, 70, 50).to(torch.float32)
    tensors = (scene.means, scene.quats, scene.scales, scene.opacities, scene.cam_from_world, scene.K)
    means, quats, scales, opacities, pose, K = (tensor.to(device) for tensor in tensors)
    means.requires_grad_()
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(len(means), 37, generator=generator).to(device)
    output = rasterize(
        means,
        quats,
        scales,
        opacities,
        pose,
        K,
        scene.width,
        scene.height,
        colors=features[:, :3].sigmoid(),
        features=features,
        feature_cell=cell,
        features_move_geometry=True,
    )
    assert output.features is not None
    (output.color.square().sum() + output.features.square().sum()).backward()
    assert means.grad is not None
    return output, means.grad


@pytest.mark.parametrize("cell", [1, 2, 4, 8, 16])
def test_a_picture_is_that_of_the_cpu(cell: int) -> None:
    (ours, gradient), (truth, true_gradient) = rendered("cuda", cell), rendered("cpu", cell)
    for name in ("color", "alpha", "depth", "features"):
        error = (getattr(ours, name).cpu() - getattr(truth, name)).abs()
        assert error.quantile(0.999) < 5e-3 and error.mean() < 5e-4, name
    assert (gradient.cpu() - true_gradient).norm() < 1e-2 * true_gradient.norm()


def test_neighbours_are_those_of_the_cpu() -> None:
    points = torch.rand(5000, 3, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(neighbour_distances(points.cuda()).cpu(), neighbour_distances(points), rtol=1e-4)


def test_a_run_is_as_good_as_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = write_taught_blobs(tmp_path)
    psnr = {}
    for device in ("cuda", "cpu"):
        monkeypatch.setenv("FEATURE_GS_DEVICE", device)
        out = tmp_path / device
        train(calm(scene, out, iterations=300, test_iterations=()))  # densifying draws other numbers there
        figures = json.loads((out / "results.json").read_text())["iteration_300"]
        psnr[device] = figures["test"]["psnr"]
        assert figures["features"]["cosine"]["test"] > 0.5
    assert abs(psnr["cuda"] - psnr["cpu"]) < 1.0


def test_every_verb_runs(tmp_path: Path) -> None:
    scene = write_taught_blobs(tmp_path)
    out = tmp_path / "out"
    train(busy_settings(scene, model_path=str(out)))
    assert main(["lift", "-m", str(out), "-f", str(scene / "features" / "own"), "--quiet"]) == 0
    assert main(["render", "-m", str(out), "--compare_teacher"]) == 0
    assert main(["evaluate", "-m", str(out)]) == 0
    view = load_scene(scene, eval=True).test[0].camera
    place = ["--view", view.name, "--point", str(view.width // 2), str(view.height // 2)]
    assert main(["segment", "-m", str(out), *place, "--name", "thing"]) == 0
    assert main(["decompose", "-m", str(out), "--selection", "thing"]) == 0
    edits = [
        {"recolour": "thing", "to": "red"},
        {"duplicate": "thing", "as": "twin"},
        {"rotate": "twin", "axis": "z", "degrees": 30},
        {"scale": "twin", "factor": 2, "about": [0, 0, 0]},
        {"translate": "twin", "by": [1, 0, 0]},
        {"insert": str(out), "as": "guest"},
        {"delete": "thing"},
    ]
    plan, edited = tmp_path / "edit.yaml", tmp_path / "edited"
    plan.write_text(yaml.safe_dump({"edits": edits}))
    assert main(["edit", "-m", str(out), "--config", str(plan), "-o", str(edited)]) == 0
    assert main(["render", "-m", str(edited)]) == 0


def test_two_thousand_steps_with_densification(tmp_path: Path) -> None:
    """Nothing grows without end, nothing becomes NaN, and a stopped run goes on."""
    scene = write_taught_blobs(tmp_path)
    out = tmp_path / "out"
    changes = {"iterations": 2000, "densify_until_iter": 1500, "densification_interval": 100}
    train(busy_settings(scene, model_path=str(out), checkpoint_iterations=(1000,), **changes))
    assert GaussianModel.load_ply(ply_path(out, 2000)).is_finite()
    results = json.loads((out / "results.json").read_text())["iteration_2000"]
    assert math.isfinite(results["test"]["psnr"])
    train(busy_settings(scene, model_path=str(out), resume=True, **{**changes, "iterations": 2100}))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_the_tensors_decide_the_gpu(tmp_path: Path) -> None:
    with torch.cuda.device(0):
        first, _ = rendered("cuda:0", 8)
        second, _ = rendered("cuda:1", 8)
    assert second.color.device.index == 1
    assert torch.equal(first.color.cpu(), second.color.cpu())


def test_memory_is_given_back(tmp_path: Path) -> None:
    trainer = new_trainer(busy_settings(write_taught_blobs(tmp_path)), tmp_path)
    view = trainer.scene.train[0]
    target = view.load().cuda()[None].float() / 255
    for _ in range(3):
        trainer.step(view, target)
    before = torch.cuda.memory_allocated()
    trainer.step(view, target)
    assert torch.cuda.memory_allocated() == before
