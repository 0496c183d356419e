"""A learned network of the user's own, plugged in by its path, on photos of a real scene."""

from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch
from PIL import Image
from torch import Tensor

from feature_gs.encoders import Encoder, load_encoder

pytestmark = pytest.mark.usefixtures("one_thread")


def features_at(encoder: Encoder, photo: Path, pixels: Tensor) -> Tensor:  # [n, 2] -> [n, C]
    """Features of the cells of the photo at half its size that hold its pixels."""
    image = torch.from_numpy(np.array(Image.open(photo).convert("RGB").reduce(2)))
    features = encoder(image)
    grid = encoder.grid(image.shape[1], image.shape[0])
    cells = (pixels / 2 * torch.tensor([grid.cells_per_pixel_x, grid.cells_per_pixel_y])).long()
    return features[:, cells[:, 1], cells[:, 0]].T


def test_the_same_point_in_two_photos_has_the_nearest_feature(shared_data: Path) -> None:
    """Structure from motion says which pixels show the same point; most of them must find each other."""
    weights, scene = shared_data / "weights" / "alike-n.pth", shared_data / "scenes" / "fox"
    if not weights.is_file() or not scene.is_dir():
        pytest.skip(f"{weights} or {scene} is not there")
    model = pycolmap.Reconstruction(scene / "sparse" / "0")
    first, second = sorted(model.images.values(), key=lambda image: image.name)[:2]
    tracks = [
        {point.point3D_id: point.xy for point in image.points2D if point.has_point3D()}
        for image in (first, second)
    ]
    shared = sorted(set(tracks[0]) & set(tracks[1]))
    assert len(shared) > 100
    encoder = load_encoder("alike:Alike?cell=2", weights=weights)
    one, other = (
        features_at(
            encoder, scene / "images" / image.name, torch.tensor(np.array([track[key] for key in shared]))
        )
        for image, track in zip((first, second), tracks, strict=True)
    )
    similarity = one @ other.T
    matching = similarity.diagonal()
    apart = similarity[~torch.eye(len(shared), dtype=torch.bool)]
    assert matching.mean() > apart.mean() + 3 * apart.std()
    assert (similarity.argmax(1) == torch.arange(len(shared))).float().mean() > 0.5
    assert encoder.describe()["licence"] == "BSD-3-Clause"
