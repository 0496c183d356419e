"""A device that does not exist, for finding on any machine what would fail or wait on a GPU.

Tensors there have shapes and types but no values (torch's FakeTensorMode). Mixing them with the CPU's raises;
reading a value, counting, and copies between devices not asked to be asynchronous are noted: on a GPU
they make the host wait. Registering the device changes torch for the whole process, so the checks run in one
of their own: `python tests/pretend_device.py`.
"""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import feature_gs  # noqa: F401  # isort: skip  before torch, which reads the environment when it loads
import torch
from edited import COUNT, make_cloud
from taught import start, write_taught_blobs
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from feature_gs.editing import Cloud
from feature_gs.editing.operations import recolour, rotate, scale, translate
from feature_gs.gaussians import GaussianModel
from feature_gs.training import Trainer
from feature_gs.training.densification import Strategy
from feature_gs.training.not_finite import FiniteGuard
from feature_gs.training.optimizer import GaussianOptimizer
from feature_gs.training.trainer import _rates

DEVICE = "pretend"
_WAITING = ("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten._unique2")


_setup_privateuseone_for_python_backend(DEVICE)


class Waits(TorchDispatchMode):
    """Notes operations that would make the host wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = str(func).removesuffix(".default")
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        there = any(tensor.device.type == DEVICE for tensor in tensors)
        if there and name in _WAITING:
            self.found.append(name)
        indexes = name.startswith("aten.index") and args[0].device.type == "cpu"
        if indexes and any(rows is not None and rows.device.type == DEVICE for rows in args[1]):
            raise RuntimeError("a tensor of the CPU is indexed on the device")  # fake tensors allow that
        result = func(*args, **kwargs)
        if name.startswith(("aten._to_copy", "aten.copy_")) and isinstance(result, Tensor):
            crosses = len({tensor.device.type for tensor in (*tensors, result)}) > 1
            if crosses and not kwargs.get("non_blocking", False) and args[-1] is not True:
                self.found.append(name)
        return result


@contextmanager
def pretending() -> Iterator[Waits]:
    """The device, for as long as the context lasts."""
    with FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True), Waits() as waits:
        yield waits


def there(tensor: Tensor) -> Tensor:  # [...] -> [...]
    """A tensor of the same shape and type on the device."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=DEVICE)


def moved(model: GaussianModel) -> GaussianModel:
    """The same Gaussians on the device."""
    features = None if model.features is None else there(model.features)
    result = GaussianModel(
        **{name: there(tensor) for name, tensor in model.named_parameters() if name != "features"},
        sh_degree=model.sh_degree,
    )
    result.features = None if features is None else nn.Parameter(features, requires_grad=False)
    return result


def move(trainer: Trainer) -> None:
    """Brings a trainer that is about to begin to the device."""
    trainer.device = torch.device(DEVICE)
    trainer.model = moved(trainer.model)
    trainer.guard = FiniteGuard(trainer.device)
    rates = _rates(trainer.config, trainer.scene.extent)
    trainer.optimizer = GaussianOptimizer(trainer.model, rates, trainer.guard.blocked)
    kind: type[Strategy] = type(trainer.strategy)
    trainer.strategy = kind(
        trainer.config, trainer.schedule, trainer.optimizer, trainer.scene.extent, trainer.generator
    )
    distillation = trainer.distillation
    if distillation is not None:
        distillation.model = trainer.model
        for name, parameter in list(distillation.decoder.named_parameters()):
            setattr(distillation.decoder, name, nn.Parameter(there(parameter)))
        if distillation.adam is not None:
            distillation.adam = torch.optim.Adam(list(distillation.decoder.parameters()), fused=True)


def steps(name: str, **given: Any) -> None:
    """Some steps of training; from the second on no step waits."""
    with tempfile.TemporaryDirectory() as folder:
        scene = write_taught_blobs(Path(folder))
        trainer = start(scene, Path(folder), name, **given)
        distillation = trainer.distillation
        view = trainer.scene.train[0]
        teacher_map = None if distillation is None else distillation.map_of(view)
        randn = torch.randn
        with pretending() as waits:
            move(trainer)
            poses = (torch.empty(3, 3), torch.empty(4, 4))  # without values, as all that goes there
            view = replace(view, camera=replace(view.camera, K=poses[0], cam_from_world=poses[1]))
            # The device has no generator; on a GPU the trainer makes one there.
            torch.randn = lambda *shape, generator=None, **options: randn(*shape, **options)
            target = torch.empty(1, view.camera.height, view.camera.width, 3, device=DEVICE)
            if teacher_map is not None:
                teacher_map = replace(teacher_map, features=there(teacher_map.features))
            for step in range(4):
                if step == 1:
                    waits.found.clear()
                check_devices(trainer.step(view, target, teacher_map))
        if waits.found:
            sys.exit(f"{name} {given}: a step waits for the device: {waits.found}")


def edits() -> None:
    """Every edit of Gaussians on the device; features and what the plan says are on the CPU, as loaded."""
    cloud, guest = make_cloud()[0], make_cloud(1)[0]
    with pretending():
        cloud, guest = (Cloud(moved(each.model), each.field) for each in (cloud, guest))
        some = torch.empty(COUNT // 2, dtype=torch.int64, device=DEVICE)  # rows: a mask's size is its values'
        matrix, point, quat = torch.empty(3, 3), torch.empty(3), torch.empty(4)
        for edited in (
            recolour(cloud, some, matrix, point),
            translate(cloud, some, point),
            rotate(cloud, some, quat, point),
            scale(cloud, some, 2.0, point),
            cloud.take(some),
            cloud.joined(guest),
        ):
            check_devices(tuple(edited.model.parameters()))


def check_devices(tensors: tuple[Tensor, ...]) -> None:
    """Exits unless all are on the device."""
    if any(tensor.device.type != DEVICE for tensor in tensors):
        sys.exit(f"expected results on the device, got {[tensor.device for tensor in tensors]}")


def notices() -> None:
    """What the other checks rely on: mixing devices raises, waiting is noted, asynchronous copies are not."""
    with pretending() as waits:
        here, away = torch.zeros(3), there(torch.zeros(3))
        here.to(DEVICE, non_blocking=True)
        away.sum().item()
        away.cpu()
        away.nonzero()
        try:
            away.add(here)
        except RuntimeError:
            pass
        else:
            sys.exit("mixing devices went unnoticed")
    if len(waits.found) != 3:
        sys.exit(f"expected three waits to be noted, got {waits.found}")


if __name__ == "__main__":
    notices()
    edits()
    steps("shared", densify_from_iter=1000)
    steps("own", strategy="mcmc", densify_from_iter=1000)
    steps("shared", decoder="linear", feature_dim=3, densify_from_iter=1000)
