"""The scene of blobs with teachers, and short runs that learn from them."""

import json
from pathlib import Path
from typing import Any

from blobs import busy_settings, make_kinds, new_trainer, write_blobs, write_kinds

from feature_gs.features.field import FeatureField, field_path
from feature_gs.features.teacher import TeacherStore
from feature_gs.gaussians import GaussianModel
from feature_gs.training import TrainConfig, Trainer
from feature_gs.training.checkpoint import Checkpoint
from feature_gs.training.folder import ply_path

CHANNELS = 8
TEACHERS = {"shared": 4, "own": 5}  # cells of 4 pixels fit the photos' own grid, 5 do not


def write_taught_blobs(folder: Path) -> Path:
    """Writes the scene and the maps of both teachers; returns `folder`."""
    write_blobs(folder)
    for name, cell in TEACHERS.items():
        write_kinds(folder / "features" / name, make_kinds(CHANNELS), cell=cell)
    return folder


def teacher(scene: Path, name: str = "shared") -> TeacherStore:
    """Maps written by `write_taught_blobs`."""
    return TeacherStore.open(scene / "features" / name)


def start(
    scene: Path, folder: Path, name: str = "shared", checkpoint: Checkpoint | None = None, **changes: Any
) -> Trainer:
    """A trainer with a teacher; the settings are those of test_training."""
    config = busy_settings(scene, foundation_model=name, **changes)
    return new_trainer(config, folder, checkpoint, teacher(scene, name))


def settings(scene: Path, out: Path, **changes: Any) -> TrainConfig:
    """A short whole run, from the command line's settings to the folder."""
    usual: dict[str, Any] = {"foundation_model": "shared", "model_path": str(out), "iterations": 12}
    return busy_settings(scene, **{**usual, "densify_until_iter": 8, **changes})


def calm(scene: Path, out: Path, **changes: Any) -> TrainConfig:
    """A run whose Gaussians stay the sixty they are, so that it is quick."""
    usual: dict[str, Any] = {"iterations": 150, "densify_until_iter": 1, "save_iterations": ()}
    return settings(scene, out, **{**usual, "test_iterations": (), **changes})


def field_of(out: Path, iteration: int) -> FeatureField:
    path = ply_path(out, iteration)
    return FeatureField.load(field_path(path), len(GaussianModel.load_ply(path)))


def cosine_of(out: Path, iteration: int, split: str = "train") -> float:
    results = json.loads((out / "results.json").read_text())[f"iteration_{iteration}"]
    return float(results["features"]["cosine"][split])
