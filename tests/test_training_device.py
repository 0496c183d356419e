"""Training away from the CPU: nothing is left behind, nothing waits; and what happens when memory is full."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from blobs import busy_settings, new_trainer, write_blobs

from feature_gs.errors import UserError
from feature_gs.gaussians import GaussianModel
from feature_gs.rasterizer.device import network_device
from feature_gs.training.loop import run_training
from feature_gs.training.not_finite import FiniteGuard, NotFiniteError
from feature_gs.training.optimizer import GaussianOptimizer

pytestmark = pytest.mark.usefixtures("one_thread")


def test_on_another_device() -> None:
    """Steps neither mix devices nor wait."""
    program = Path(__file__).with_name("pretend_device.py")
    run = subprocess.run([sys.executable, program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]


def guarded_model() -> tuple[GaussianModel, FiniteGuard, GaussianOptimizer]:
    """A model whose verdicts stay on the device, as on a GPU."""
    points = torch.rand(5, 3, generator=torch.Generator().manual_seed(0))
    model = GaussianModel.from_points(points, torch.zeros(5, 3, dtype=torch.uint8), 0)
    guard = FiniteGuard(torch.device("cpu"))
    guard._every, guard.blocked = 10, guard._fault[0]
    return model, guard, GaussianOptimizer(model, {"means": 0.1, "log_scales": 0.1}, guard.blocked)


@pytest.mark.parametrize("culprit", ["loss", "gradient"])
def test_a_bad_step_blocks_all_later_ones_until_it_is_noticed(culprit: str) -> None:
    model, guard, optimizer = guarded_model()
    kept = None
    for iteration in range(1, 11):
        loss = (model.means.square() + model.log_scales).sum()
        loss.backward()
        bad = iteration == 4
        if bad and culprit == "gradient":
            assert model.means.grad is not None
            model.means.grad[2, 1] = float("nan")
        guard.look(
            model, loss * (float("inf") if bad and culprit == "loss" else 1), iteration, f"{iteration}"
        )
        if iteration < 10:
            guard.check(model, iteration)
        before = model.means.detach().clone()
        optimizer.step()
        assert torch.equal(before, model.means) == (iteration >= 4)
        kept = before if bad else kept
    with pytest.raises(NotFiniteError, match="iteration 4, view 4: .*(inf|not finite)") as caught:
        guard.check(model, 10)
    assert caught.value.iteration == 4 and kept is not None and torch.equal(kept, model.means)


def test_verdicts_are_read_before_opacities_are_reset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_blobs(tmp_path)
    trainer = new_trainer(busy_settings(tmp_path, densify_from_iter=30, densify_until_iter=40), tmp_path)
    view = trainer.scene.train[0]
    target, read = view.load()[None].float() / 255, []
    monkeypatch.setattr(
        trainer.guard, "check", lambda model, iteration, at_once=False: read.append((iteration, at_once))
    )
    for _ in range(16):
        trainer.step(view, target)
    assert trainer.schedule.resets_opacity_at(15) and not trainer.schedule.densifies_at(15)
    assert not trainer.due(15) and dict(read)[15] and not dict(read)[14]


@pytest.mark.parametrize(
    ("wish", "there", "device"), [("", True, "cuda"), ("cpu", True, "cpu"), ("", False, "cpu")]
)
def test_networks_work_where_the_user_wants_them(
    monkeypatch: pytest.MonkeyPatch, wish: str, there: bool, device: str
) -> None:
    monkeypatch.setenv("FEATURE_GS_DEVICE", wish)
    monkeypatch.setattr("torch.cuda.is_available", lambda: there)
    assert network_device().type == device


def test_verdicts_are_read_at_once_where_something_is_saved() -> None:
    model, guard, _ = guarded_model()
    guard.look(model, torch.tensor(float("nan")), 3, "a.png")
    guard.check(model, 3)
    with pytest.raises(NotFiniteError, match="iteration 3, view a.png: the loss is nan"):
        guard.check(model, 3, at_once=True)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError('torch_call_dispatcher( "aten::new_empty", ...) API call failed at ops.h, line 939'),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 2 bytes."),
    ],
)
@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({}, "--densify_grad_threshold 2e-05"),
        ({"strategy": "mcmc"}, "--cap_max 30 "),
        ({"data_device": "cuda"}, "--data_device cpu"),
    ],
)
def test_full_memory_says_what_to_lower(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, str],
    advice: str,
    error: RuntimeError,
) -> None:
    write_blobs(tmp_path)
    trainer = new_trainer(busy_settings(tmp_path, **changes), tmp_path)
    step = trainer.step

    def fill(*given: object) -> tuple[torch.Tensor, torch.Tensor]:
        if trainer.iteration == 2:
            raise error
        return step(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(trainer, "step", fill)
    monkeypatch.setattr("feature_gs.training.loop.torch.device", lambda name: torch.empty(0).device)
    with pytest.raises(UserError, match="iteration 3: the memory does not suffice for 60") as caught:
        run_training(trainer)
    assert advice in str(caught.value) and "--resume" in str(caught.value)
