"""A small scene with view-dependent colours and features, to be edited."""

from dataclasses import replace

import torch
from random_scenes import random_scene
from torch import Tensor

from feature_gs.editing import Cloud
from feature_gs.features.decoders import make_decoder
from feature_gs.features.field import FeatureField
from feature_gs.gaussians import GaussianModel
from feature_gs.rendering import render
from feature_gs.scenes import Camera

COUNT = 300
SIZE = 64, 48


def make_cloud(seed: int = 0, *, bands: int = 16, channels: int | None = 5) -> tuple[Cloud, Camera]:
    """Random Gaussians of any shape with SH up to degree 3, and a camera that sees them."""
    scene = random_scene(COUNT, *SIZE, sh_bands=bands, scale=0.08, kinds=False, seed=seed).to(torch.float32)
    rest = scene.sh_rest if scene.sh_rest is not None else scene.means.new_zeros(len(scene.means), 0, 3)
    model = GaussianModel(
        means=scene.means,
        quats=scene.quats,
        log_scales=scene.scales.log(),
        logit_opacities=scene.opacities.clamp(0.02, 0.98).logit(),
        sh_dc=scene.sh_dc,
        sh_rest=rest,
        sh_degree={1: 0, 4: 1, 9: 2, 16: 3}[bands],
    )
    field = None if channels is None else make_field(len(model), channels, seed)
    return Cloud(model, field), Camera("0.png", *SIZE, scene.K[0], scene.cam_from_world[0])


def make_field(count: int, channels: int, seed: int = 0, decoder: str = "none") -> FeatureField:
    generator = torch.Generator().manual_seed(seed)
    carried = channels if decoder == "none" else channels - 2
    return FeatureField(
        features=torch.randn(count, carried, generator=generator),
        decoder=make_decoder(decoder, carried, channels, generator=generator),
        teacher="codes",
        cell=(8.0, 8.0),
        seen=torch.rand(count, generator=generator) > 0.1,
        meta={"seed": seed},
    )


def some_of(cloud: Cloud, seed: int = 0) -> Tensor:
    """A random third. [N] bool"""
    return torch.rand(len(cloud), generator=torch.Generator().manual_seed(seed)) < 0.33


def picture(cloud: Cloud, camera: Camera) -> Tensor:
    """Colours over black, not clamped. [H, W, 3]"""
    with torch.no_grad():
        return render(cloud.model, camera).color[0]


def turned(camera: Camera, rotation: Tensor, shift: Tensor) -> Camera:
    """The camera after the world moved by `x -> R x + t`, seeing the same."""
    world = torch.eye(4, dtype=torch.float64)
    world[:3, :3], world[:3, 3] = rotation, shift
    pose = camera.cam_from_world.double() @ torch.linalg.inv(world)
    return replace(camera, cam_from_world=pose.float())
