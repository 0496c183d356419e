"""Real photos, from scratch on the CPU: eleven of a castle, with a camera that bends straight lines."""

import shutil
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from feature_gs.scenes import load_scene
from feature_gs.scenes.conversion import ConvertConfig, convert

pytestmark = pytest.mark.slow


def poses_apart(found: Path, given: Path) -> tuple[float, float]:
    """How far two models of the same photos are apart once aligned.

    Returns:
        Largest distance of camera centres, as a share of the distance between the outermost of them; largest
        angle between view directions in degrees.
    """
    mine, other = pycolmap.Reconstruction(str(found)), pycolmap.Reconstruction(str(given))
    images = {image.name: image for image in other.images.values()}
    names = sorted(images)
    centers = np.array([images[name].projection_center() for name in names])
    world = pycolmap.align_reconstruction_to_locations(
        mine, names, centers, 3, pycolmap.RANSACOptions(max_error=1.0)
    )
    assert world is not None
    mine.transform(world)
    size = max(float(np.linalg.norm(a - b)) for a in centers for b in centers)
    shifts, angles = [], []
    for image in mine.images.values():
        twin = images[image.name]
        shifts.append(np.linalg.norm(image.projection_center() - twin.projection_center()) / size)
        turn = image.cam_from_world().rotation.matrix() @ twin.cam_from_world().rotation.matrix().T
        angles.append(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))))
    return float(max(shifts)), float(max(angles))


def test_all_photos_of_the_castle_are_placed(shared_data: Path, tmp_path: Path) -> None:
    castle = shared_data / "scenes" / "sceaux_castle"
    shutil.copytree(castle / "input", tmp_path / "input")
    made = convert(ConvertConfig(tmp_path, quiet=True, no_gpu=True))
    assert (made.photos, made.placed) == (11, 11)
    assert made.points > 2000
    assert made.error < 0.6
    shift, angle = poses_apart(tmp_path / "sparse" / "0", castle / "sparse" / "0")
    assert shift < 0.01
    assert angle < 0.5
    assert len(load_scene(tmp_path).train) == 11


def test_the_castle_from_its_distorted_model(shared_data: Path, tmp_path: Path) -> None:
    castle = shared_data / "scenes" / "sceaux_castle"
    for name in ("input", "distorted"):
        shutil.copytree(castle / name, tmp_path / name)
    made = convert(ConvertConfig(tmp_path, quiet=True, skip_matching=True))
    assert (made.placed, made.points) == (11, 3878)
    for mine, given in zip(load_scene(tmp_path).train, load_scene(castle).train, strict=True):
        assert np.allclose(mine.camera.K, given.camera.K, atol=1e-2)
        assert np.allclose(mine.camera.cam_from_world, given.camera.cam_from_world, atol=1e-5)
        ours, theirs = (view.load().float() for view in (mine, given))
        apart = (ours - theirs).abs().mean()  # theirs is compressed harder
        for shift in (-1, 1):
            assert all(apart < 0.6 * (ours.roll(shift, axis) - theirs).abs().mean() for axis in (0, 1))
