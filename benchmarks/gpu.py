"""Speed and memory on a GPU, beside gsplat in the same run.

    pip install gsplat==1.5.3
    python benchmarks/gpu.py --json gpu.json

One million random Gaussians at 1600 x 1200: colour; 128 and 512 feature channels for every pixel; features of
256 channels alone; a training step with 512 channels at a teacher's 64 x 48 cells beside one without; lifting
512 channels over 100 views. Without a GPU it runs too, to see that it does:

    python benchmarks/gpu.py --gaussians 500 --width 96 --height 64 --views 2 --repeats 1
"""

import argparse
import functools
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import feature_gs  # noqa: F401  # isort: skip  before torch, which reads the environment when it loads
import torch
from torch import Tensor

from feature_gs.features.lifting import lift
from feature_gs.features.maps import TeacherMap
from feature_gs.features.teacher import TeacherStore
from feature_gs.rasterizer import RenderOutput, rasterize
from feature_gs.rasterizer.device import compute_device
from feature_gs.scenes import Camera, Scene, View
from feature_gs.training import TrainConfig, Trainer
from feature_gs.training.run import filled_in
from feature_gs.training.teaching import with_feature_dim

GRID = (48, 64)  # rows and columns of the teacher's maps


@dataclass(frozen=True)
class Splats:
    """Random Gaussians and a camera, ready to be rasterized.

    Attributes:
        geometry: means [N, 3], quats [N, 4], scales [N, 3], opacities [N].
        colors: RGB. [N, 3]
        pose: cam_from_world. [1, 4, 4]
        K: Intrinsics. [1, 3, 3]
        width: Pixels.
        height: Pixels.
    """

    geometry: tuple[Tensor, ...]
    colors: Tensor
    pose: Tensor
    K: Tensor
    width: int
    height: int

    def requiring(self) -> list[Tensor]:
        """Copies of geometry and colours that carry gradients."""
        return [t.detach().clone().requires_grad_() for t in (*self.geometry, self.colors)]


class RandomPhoto(View):
    """A view whose photo is noise."""

    def load(self) -> Tensor:
        """A photo, uint8. [H, W, 3]"""  # noqa: D415
        generator = torch.Generator().manual_seed(abs(hash(self.camera.name)) % 2**31)
        size = (self.camera.height, self.camera.width, 3)
        return torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)


class RandomTeacher(TeacherStore):
    """A teacher that says the same noise of every photo."""

    def load(self, view: View) -> TeacherMap:
        """The map. [C, 48, 64] float16"""  # noqa: D415
        return TeacherMap(_noise(self.channels), GRID[1], GRID[0])


@functools.cache
def _noise(channels: int) -> Tensor:
    return torch.randn(channels, *GRID, generator=torch.Generator().manual_seed(0)).half()


def random_splats(count: int, width: int, height: int, device: torch.device) -> Splats:
    """A cloud that fills the image, its Gaussians a few pixels wide as those of a trained scene."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([1.6, 1.2, 0.8])
    means = torch.randn(count, 3, generator=generator) * spread + torch.tensor([0.0, 0.0, 4.0])
    size = 0.005 * math.sqrt(1e6 / count)
    scales = size * (torch.randn(count, 3, generator=generator) * 0.5).exp()
    quats = torch.randn(count, 4, generator=generator)
    opacities = torch.rand(count, generator=generator) * 0.9 + 0.05
    K = torch.tensor([[[0.9 * width, 0, width / 2], [0, 0.9 * width, height / 2], [0, 0, 1]]])
    geometry = tuple(t.to(device) for t in (means, quats, scales, opacities))
    colors = torch.rand(count, 3, generator=generator).to(device)
    return Splats(geometry, colors, torch.eye(4, device=device)[None], K.to(device), width, height)


def draw(
    splats: Splats, leaves: list[Tensor], features: Tensor | None, *, move: bool = False
) -> RenderOutput:
    """One render by feature_gs."""
    means, quats, scales, opacities, colors = leaves
    return rasterize(
        means,
        quats,
        scales,
        opacities,
        splats.pose,
        splats.K,
        splats.width,
        splats.height,
        colors=colors,
        features=features,
        features_move_geometry=move,
    )


def ours(splats: Splats, leaves: list[Tensor], features: Tensor | None, *, move: bool = False) -> Tensor:
    """The sum over colours and, if there are any, features. []"""  # noqa: D415
    output = draw(splats, leaves, features, move=move)
    total = output.color.sum()
    return total if output.features is None else total + output.features.sum()


def gsplats(splats: Splats, leaves: list[Tensor], features: Tensor | None) -> Tensor:
    """The same by gsplat, which draws colours and features together, 32 channels at a time.

    Its features move the geometry, as ours do where asked.
    """
    from gsplat import rasterization

    means, quats, scales, opacities, colors = leaves
    values = colors if features is None else torch.cat([colors, features], dim=1)
    view = (splats.pose, splats.K, splats.width, splats.height)
    images, _, _ = rasterization(means, quats, scales, opacities, values, *view, packed=False)
    return images.sum()


def milliseconds(run: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Median over some runs after a warm-up; the GPU's own work, waited for."""

    def wait() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    for _ in range(3 if repeats > 1 else 1):
        run()
    times = []
    for _ in range(repeats):
        start = wait()
        run()
        times.append(1e3 * (wait() - start))
    return statistics.median(times)


def both_passes(
    draw: Callable[[Splats, list[Tensor], Tensor | None], Tensor], splats: Splats, channels: int
) -> Callable[[], None]:
    """Forward and backward with so many feature channels."""
    leaves = splats.requiring()
    features = None
    if channels:
        features = torch.randn(len(leaves[0]), channels, device=leaves[0].device).requires_grad_()

    def run() -> None:
        for tensor in (*leaves, *([] if features is None else [features])):
            tensor.grad = None
        draw(splats, leaves, features).backward()

    return run


def beside_gsplat(splats: Splats, repeats: int, device: torch.device) -> dict[str, float]:
    """Milliseconds forward and backward for colour, 128 and 512 channels, and the ratios."""
    figures: dict[str, float] = {}
    for channels in (0, 128, 512):
        name = f"{channels} channels" if channels else "colour"
        figures[f"{name}: ms"] = mine = milliseconds(both_passes(ours, splats, channels), repeats, device)
        if channels:
            moving = functools.partial(ours, move=True)
            figures[f"{name}, moving geometry: ms"] = moved = milliseconds(
                both_passes(moving, splats, channels), repeats, device
            )
        if device.type != "cuda":
            continue
        try:
            theirs = milliseconds(both_passes(gsplats, splats, channels), repeats, device)
        except Exception as error:  # not installed, or its kernels do not compile on this machine
            print(f"without gsplat, {type(error).__name__}: {error}. Try: pip install gsplat==1.5.3")
            continue
        figures[f"{name}: gsplat's ms"] = theirs
        figures[f"{name}: gsplat / feature_gs"] = theirs / mine
        if channels:
            figures[f"{name}, moving geometry: gsplat / feature_gs"] = theirs / moved
    return figures


def features_alone(
    splats: Splats, repeats: int, device: torch.device, channels: int = 256
) -> dict[str, float]:
    """What features of every pixel take, forward, and their gradient, on top of colour."""
    leaves = [t.detach() for t in splats.requiring()]
    features = torch.randn(len(leaves[0]), channels, device=device)
    figures = {}
    with torch.no_grad():
        plain = milliseconds(lambda: draw(splats, leaves, None), repeats, device)
        full = milliseconds(lambda: draw(splats, leaves, features), repeats, device)
    figures[f"{channels} channels forward: ms"] = full
    figures[f"{channels} channels forward, without colour: ms"] = full - plain
    image = draw(splats, leaves, features.requires_grad_()).features
    assert image is not None
    upstream = torch.randn_like(image)
    figures[f"{channels} channels, gradient of the features: ms"] = milliseconds(
        lambda: torch.autograd.grad(image, features, upstream, retain_graph=True), repeats, device
    )
    return figures


def random_scene(splats: Splats, views: int) -> Scene:
    """Cameras that move a little, with photos of noise."""
    lists: list[View] = []
    for k in range(views):
        pose = splats.pose[0].cpu().clone()
        pose[0, 3] = 0.02 * k
        camera = Camera(f"{k:03}.png", splats.width, splats.height, splats.K[0].cpu(), pose)
        lists.append(RandomPhoto(camera, Path(camera.name)))
    points = splats.geometry[0].cpu()
    colors = (splats.colors.cpu() * 255).to(torch.uint8)
    return Scene("random", Path(), lists, [], points, colors, extent=1.0)


def trainer_of(scene: Scene, splats: Splats, teacher: TeacherStore | None, folder: Path) -> Trainer:
    """A run in its middle: as many Gaussians as there are, no densification."""
    config = TrainConfig(source_path=".", iterations=1_000_000)
    if teacher is not None:
        config = with_feature_dim(replace(config, foundation_model="random"), teacher.channels)
    config, schedule = filled_in(config)
    trainer = Trainer(config, replace(schedule, densify_until_iter=0), scene, folder, teacher)
    trainer.model.log_scales.data = splats.geometry[2].log().to(trainer.device)
    return trainer


def training(splats: Splats, repeats: int, device: torch.device, channels: int = 512) -> dict[str, float]:
    """A step with a teacher beside one without, and what the features add to peak memory."""
    scene = random_scene(splats, 1)
    view = scene.train[0]
    target = view.load().to(device)[None].float() / 255
    figures, peaks = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, teacher in (
            ("colour", None),
            ("joint", RandomTeacher(Path(folder), "random", channels)),
        ):
            trainer = trainer_of(scene, splats, teacher, Path(folder))
            teacher_map = None if teacher is None else teacher.load(view)
            if teacher_map is not None:
                teacher_map = replace(teacher_map, features=teacher_map.features.to(device))
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            figures[f"{name} step: ms"] = milliseconds(
                lambda run=trainer, m=teacher_map: run.step(view, target, m),  # type: ignore[misc]
                repeats,
                device,
            )
            if device.type == "cuda":
                peaks[name] = torch.cuda.max_memory_allocated() / 2**20
            del trainer
    figures["joint / colour"] = figures["joint step: ms"] / figures["colour step: ms"]
    if peaks:
        figures["features' memory: MiB"] = peaks["joint"] - peaks["colour"]
        figures["features, gradient and state in float32, + 25 %: MiB"] = (
            1.25 * 4 * channels * len(splats.colors) * 4 / 2**20
        )
    return figures


def lifting(splats: Splats, views: int, device: torch.device, channels: int = 512) -> dict[str, float]:
    """Seconds to lift features over all views."""
    scene = random_scene(splats, views)
    teacher = RandomTeacher(Path(), "random", channels)
    trainer = trainer_of(scene, splats, None, Path())
    run = milliseconds(lambda: lift(trainer.model, scene.train, teacher), 1, device)
    return {f"lifting {channels} channels over {views} views: s": run / 1e3}


def show(figures: dict[str, float]) -> dict[str, float]:
    """Prints figures and hands them on."""
    for what, value in figures.items():
        print(f"  {what:<58}{value:10.3f}", flush=True)
    return figures


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Runs everything and prints a table; returns the figures."""
    parser = argparse.ArgumentParser(description="Speed and memory on a GPU, beside gsplat.")
    parser.add_argument("--gaussians", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=1600)
    parser.add_argument("--height", type=int, default=1200)
    parser.add_argument("--views", type=int, default=100, help="for lifting")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args(argv)
    device = compute_device()
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(
        f"{name}, torch {torch.__version__}: {options.gaussians:,} Gaussians, "
        f"{options.width} x {options.height}"
    )
    splats = random_splats(options.gaussians, options.width, options.height, device)
    figures: dict[str, float] = {}
    parts = (
        *(functools.partial(part, splats, options.repeats, device) for part in (features_alone, training)),
        functools.partial(lifting, splats, options.views, device),
        # Last, since gsplat's kernels take long to compile.
        functools.partial(beside_gsplat, splats, options.repeats, device),
    )
    for part in parts:
        figures.update(show(part()))
        if options.json is not None:  # after each, so that a failure leaves what came before
            options.json.write_text(json.dumps({"device": name, **figures}, indent=1))
    return figures


if __name__ == "__main__":
    main()
