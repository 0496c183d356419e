"""A scene in which training has something to do: sixty blobs on eight photos, three kinds to be taught."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import torch
from code_teacher import clean_map
from torch import Tensor

from feature_gs.features.teacher import TeacherStore, write_map, write_meta
from feature_gs.gaussians import GaussianModel
from feature_gs.rendering import render
from feature_gs.scenes import Camera, load_scene
from feature_gs.training import TrainConfig, Trainer
from feature_gs.training.checkpoint import Checkpoint
from feature_gs.training.run import filled_in

SIZE = 32, 24
VIEWS = 8
KINDS = 3  # left, middle and right blobs; what is behind them is of kind KINDS


def write_blobs(folder: Path) -> Path:
    """Writes a Blender folder with two of the photos held out, and the blobs' places as first points."""
    folder.mkdir(parents=True, exist_ok=True)
    model, colors = _truth()
    frames = []
    for camera in cameras():
        with torch.no_grad():
            photo = (render(model, camera).color[0].clamp(0, 1) * 255).round().byte().numpy()
        cv2.imwrite(str(folder / camera.name), photo[..., ::-1])
        world_from_cam = torch.linalg.inv(camera.cam_from_world.double()) @ torch.diag(
            torch.tensor([1.0, -1, -1, 1], dtype=torch.float64)
        )
        frames.append({"file_path": camera.name, "transform_matrix": world_from_cam.tolist()})
    transforms = {"fl_x": 120.0, "w": SIZE[0], "h": SIZE[1]}
    (folder / "transforms_train.json").write_text(json.dumps({**transforms, "frames": frames[2:]}))
    (folder / "transforms_test.json").write_text(json.dumps({**transforms, "frames": frames[:2]}))
    rows = "\n".join(
        " ".join(map(str, [*p.tolist(), *c.tolist()])) for p, c in zip(model.means, colors, strict=True)
    )
    properties = [f"property float {axis}" for axis in "xyz"]
    properties += [f"property uchar {name}" for name in ("red", "green", "blue")]
    header = ["ply", "format ascii 1.0", "element vertex 60", *properties, "end_header"]
    (folder / "points3d.ply").write_text("\n".join([*header, rows, ""]))
    return folder


def orbit_camera(name: str, angle: Tensor) -> Camera:
    cos, sin = torch.cos(angle), torch.sin(angle)
    pose = torch.eye(4)
    pose[0, 0], pose[0, 2], pose[2, 0], pose[2, 2], pose[2, 3] = cos, sin, -sin, cos, 6
    K = torch.tensor([[120.0, 0, 16], [0, 120, 12], [0, 0, 1]])
    return Camera(name, *SIZE, K, pose)


def cameras() -> list[Camera]:
    return [orbit_camera(f"{i}.png", torch.tensor(2.0 * i / VIEWS)) for i in range(VIEWS)]


def make_kinds(channels: int) -> Tensor:
    """Orthonormal codes of the three kinds, and zero for what is behind them. [4, channels]"""
    basis = torch.linalg.qr(torch.randn(channels, KINDS, generator=torch.Generator().manual_seed(3)))[0]
    return torch.cat([basis.T, torch.zeros(1, channels)])


def write_kinds(folder: Path, codes: Tensor, *, cell: int = 4) -> TeacherStore:  # [4, C]
    """Writes what a teacher without noise says of every photo: the mean code of a cell's pixels."""
    model, _ = _truth()
    kind = (model.means[:, 0].detach() * KINDS + KINDS / 2).long().clamp(0, KINDS - 1)
    with torch.no_grad():
        model.sh_dc.copy_(torch.eye(KINDS)[kind] / 0.28209479 - 0.5 / 0.28209479)  # colours 0 and 1
        for camera in cameras():
            output = render(model, camera)
            labels = output.color[0].argmax(dim=2).where(output.alpha[0] > 0.5, KINDS)
            path = (folder / camera.name).with_suffix(".safetensors")
            write_map(path, clean_map(labels, codes, cell), 1 / cell, 1 / cell)
    write_meta(folder, "kinds", codes.shape[1])
    return TeacherStore.open(folder)


def busy_settings(folder: Path, **changes: Any) -> TrainConfig:
    """A run of forty steps in which everything happens: SH growth, densification, a reset."""
    busy: dict[str, Any] = {
        "iterations": 40,
        "eval": True,
        "quiet": True,
        "sh_interval": 9,
        "densify_from_iter": 5,
        "densify_until_iter": 32,
        "densification_interval": 8,
        "opacity_reset_interval": 15,
        "densify_grad_threshold": 1e-5,
    }
    return replace(TrainConfig(), source_path=str(folder), **{**busy, **changes})


def new_trainer(
    config: TrainConfig,
    folder: Path,
    checkpoint: Checkpoint | None = None,
    teacher: TeacherStore | None = None,
) -> Trainer:
    config, schedule = filled_in(config)
    scene = load_scene(Path(config.source_path), eval=True)
    return Trainer(config, schedule, scene, folder, teacher, checkpoint)


def state_of(trainer: Trainer) -> dict[str, Tensor]:
    """A copy of everything that the next steps depend on."""
    state = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    for name, moments in trainer.optimizer.state_dict().items():
        state.update({f"{name}/{key}": value.clone() for key, value in moments.items()})
    state.update({f"strategy/{key}": value.clone() for key, value in trainer.strategy.state_dict().items()})
    if trainer.distillation is not None:
        for key, value in trainer.distillation.state_dict().items():
            state[f"distillation/{key}"] = value.clone()
    return {**state, "generator": trainer.generator.get_state()}


def _truth() -> tuple[GaussianModel, Tensor]:
    """The blobs as they are, and their colours. [60, 3] uint8"""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(60, 3, generator=generator) - 0.5
    colors = torch.randint(0, 256, (60, 3), generator=generator, dtype=torch.uint8)
    return GaussianModel.from_points(points, colors, 0, opacity=0.9, scale=0.6), colors
