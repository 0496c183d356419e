"""A model's folder, read: what `render` and `evaluate` start from."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from feature_gs.errors import UserError
from feature_gs.features.field import FeatureField, field_path
from feature_gs.features.rendering import FeatureMap, fit_field_palette, render_features, render_palette
from feature_gs.gaussians import GaussianModel
from feature_gs.rasterizer import RenderOutput
from feature_gs.rasterizer.device import compute_device
from feature_gs.rendering import render
from feature_gs.rendering.colormap import Picture
from feature_gs.scenes import Camera, Scene, View, load_scene, read_cameras_json
from feature_gs.training.config import TrainConfig

SPLITS = ("train", "test")


@dataclass(frozen=True)
class Trained:
    """A trained model with all that is needed to render it again.

    Attributes:
        path: The model's folder.
        iteration: The iteration that was loaded.
        config: The settings it was trained with.
        cameras: The cameras of "train" and of "test" (may be empty), sorted by name.
        model: The Gaussians.
        background: The colour behind them. [3]
    """

    path: Path
    iteration: int
    config: TrainConfig
    cameras: dict[str, list[Camera]]
    model: GaussianModel
    background: Tensor

    @torch.no_grad()
    def render(self, camera: Camera) -> RenderOutput:
        """Renders one view as the model was trained: same background, near plane and antialiasing."""
        return render(
            self.model,
            camera,
            background=self.background,
            antialiased=self.config.antialiased,
            near=self.config.near,
        )

    def field(self) -> FeatureField | None:
        """The Gaussians' features with their palette, or None for a model without features.

        A palette that is missing is fitted, and kept in the file.

        Raises:
            UserError: The file is damaged or belongs to other Gaussians.
        """
        path = field_path(ply_path(self.path, self.iteration))
        if not path.is_file():
            return None
        field = FeatureField.load(path, len(self.model))
        if field.palette is None:
            config = self.config
            field.palette = fit_field_palette(
                self.model, field, self.cameras["train"], antialiased=config.antialiased, near=config.near
            )
            field.save(path)
        return field

    def render_features(
        self, field: FeatureField, camera: Camera, cell: tuple[float, float] | None = None
    ) -> FeatureMap:
        """A map of features of one view, at the teacher's cell or another one, not decoded."""
        return render_features(
            self.model,
            field,
            camera,
            cell=cell,
            antialiased=self.config.antialiased,
            near=self.config.near,
        )

    def render_palette(self, field: FeatureField, camera: Camera) -> Picture:
        """The features of one view as colours of the field's palette. [H, W, 3] uint8"""
        return render_palette(
            self.model, field, camera, antialiased=self.config.antialiased, near=self.config.near
        )

    def views(self, source_path: str = "") -> dict[str, View]:
        """The photos of the cameras, by image name; cameras whose photo is gone have no entry.

        Args:
            source_path: Where the scene's folder is now; empty: where it was at training.

        Raises:
            UserError: The scene's folder cannot be read.
        """
        scene = _scene(self.config, source_path)
        found = {view.camera.name: view for view in [*scene.train, *scene.test]}
        cameras = [camera for split in SPLITS for camera in self.cameras[split] if camera.name in found]
        return {camera.name: replace(found[camera.name], camera=camera) for camera in cameras}


def load_trained(model_path: Path, iteration: int = -1) -> Trained:
    """Reads config.json, cameras.json and the Gaussians of one iteration; no photo is needed.

    Args:
        model_path: The model's folder.
        iteration: The iteration to load; -1: the newest.

    Raises:
        UserError: The folder is no model's folder, or there is no such iteration.
    """
    if not model_path.is_dir():
        raise UserError(f"there is no folder {model_path}; -m takes the folder of a trained model.")
    config = TrainConfig.load(model_path / "config.json")
    cameras = read_cameras_json(model_path / "cameras.json")
    iteration = find_iteration(model_path, iteration)
    device = compute_device()
    return Trained(
        path=model_path,
        iteration=iteration,
        config=config,
        cameras=cameras,
        model=GaussianModel.load_ply(ply_path(model_path, iteration)).to(device),
        background=torch.full((3,), 1.0 if config.white_background else 0.0, device=device),
    )


def ply_path(model_path: Path, iteration: int) -> Path:
    """Where the Gaussians of an iteration are."""
    return model_path / "point_cloud" / f"iteration_{iteration}" / "point_cloud.ply"


def find_iteration(model_path: Path, iteration: int) -> int:
    """The iteration asked for, or the newest for -1.

    Raises:
        UserError: It is not there; the message lists those that are.
    """
    folders = (model_path / "point_cloud").glob("iteration_*")
    numbers = (re.fullmatch(r"iteration_(\d+)", folder.name) for folder in folders)
    there = sorted(int(number[1]) for number in numbers if number)
    there = [number for number in there if ply_path(model_path, number).is_file()]
    if not there:
        raise UserError(
            f"{model_path} holds no trained Gaussians (point_cloud/iteration_N/point_cloud.ply).\n"
            f"  Train first: python train.py -s SCENE -m {model_path}"
        )
    if iteration == -1:
        return there[-1]
    if iteration not in there:
        listed = ", ".join(map(str, there))
        raise UserError(f"{model_path} has no iteration {iteration}; --iteration can be {listed}.")
    return iteration


def _scene(config: TrainConfig, source_path: str = "") -> Scene:
    return load_scene(
        Path(source_path or config.source_path),
        images=config.images,
        resolution=config.resolution or 1,  # 0, the teacher's grid: the cameras know their size
        eval=config.eval,
        white_background=config.white_background,
    )
