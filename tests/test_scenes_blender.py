"""Scenes in the form of NeRF-synthetic."""

import json
from pathlib import Path

import numpy as np
import pytest
from plyfile import PlyData, PlyElement
from tiny_scenes import circle_pose, write_blender_scene

from feature_gs.errors import UserError
from feature_gs.scenes import load_scene


def edit(path: Path, **keys: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def test_poses_focal_length_and_split(tmp_path: Path) -> None:
    scene = load_scene(write_blender_scene(tmp_path), eval=True)
    assert [view.camera.name for view in scene.train] == ["train/r_0.png", "train/r_1.png"]
    assert [view.camera.name for view in scene.test] == ["test/r_0.png", "test/r_1.png"]
    for i, view in enumerate(scene.train):
        assert np.allclose(view.camera.cam_from_world, circle_pose(i, 2), atol=1e-6)
        assert np.allclose(view.camera.K, [[32, 0, 16], [0, 32, 12], [0, 0, 1]], atol=1e-4)
    assert len(load_scene(tmp_path).train) == 4
    assert load_scene(tmp_path).test == []


@pytest.mark.parametrize(("white", "empty"), [(False, 0), (True, 255)])
def test_transparency_becomes_the_background(tmp_path: Path, white: bool, empty: int) -> None:
    pixels = load_scene(write_blender_scene(tmp_path), white_background=white).train[0].load()
    assert pixels[0, 0].tolist() == [200, 100, 50]
    assert pixels[0, 31].tolist() == [empty] * 3


def test_intrinsics_in_pixels_scale_with_the_photo(tmp_path: Path) -> None:
    write_blender_scene(tmp_path, w=64, h=48, fl_x=60.0, fl_y=58.0, cx=30.0, cy=25.0)
    K = load_scene(tmp_path).train[0].camera.K
    assert K.tolist() == [[30, 0, 15], [0, 29, 12.5], [0, 0, 1]]


def test_points_come_from_the_file_or_from_chance(tmp_path: Path) -> None:
    scene = load_scene(write_blender_scene(tmp_path))
    assert scene.points.shape == (100_000, 3)
    assert 1.29 < scene.points.abs().max() <= 1.3
    assert any("random points" in message for message in scene.messages)
    fields = [(name, "f4") for name in "xyz"] + [(name, "u1") for name in ("red", "green", "blue")]
    vertices = np.array([(1, 2, 3, 4, 5, 6), (np.nan, 0, 0, 7, 8, 9)], dtype=fields)
    PlyData([PlyElement.describe(vertices, "vertex")]).write(str(tmp_path / "points3d.ply"))
    scene = load_scene(tmp_path)
    assert (scene.points.tolist(), scene.point_colors.tolist()) == ([[1, 2, 3]], [[4, 5, 6]])
    (tmp_path / "points3d.ply").write_bytes(b"ply\nformat")
    with pytest.raises(UserError, match=r"points3d\.ply"):
        load_scene(tmp_path)


def test_without_test_frames_every_eighth_is_held_out(tmp_path: Path) -> None:
    scene = load_scene(write_blender_scene(tmp_path, split=["train"]), eval=True)
    assert [view.camera.name for view in scene.test] == ["train/r_0.png"]


def test_missing_photos_are_told_and_left_out(tmp_path: Path) -> None:
    write_blender_scene(tmp_path)
    (tmp_path / "train" / "r_0.png").unlink()
    scene = load_scene(tmp_path)
    assert len(scene.train) == 3
    assert any("1 frames without a photo" in message for message in scene.messages)
    for photo in tmp_path.rglob("*.png"):
        photo.unlink()
    with pytest.raises(UserError, match=r"no photo .* was found: expected e\.g\. .*r_0"):
        load_scene(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"frames": [{}]}', '{"frames": 3}', '{"frames": [3]}'])
def test_damaged_transforms(tmp_path: Path, text: str) -> None:
    write_blender_scene(tmp_path)
    (tmp_path / "transforms_train.json").write_text(text)
    with pytest.raises(UserError, match="not a transforms file"):
        load_scene(tmp_path)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"k1": 0.1}, "distortion"),
        ({"camera_angle_x": None}, "no usable camera"),
        ({"camera_angle_x": 0.0}, "no usable camera"),
        ({"camera_angle_x": -1.0}, "is not a camera"),
        ({"camera_angle_x": float("nan")}, "is not a camera"),
        ({"w": 64, "h": 20}, "same proportions"),
        ({"w": 0}, "is not a camera"),
        ({"fl_x": "wide"}, "no usable camera"),
    ],
)
def test_cameras_that_cannot_be(tmp_path: Path, keys: dict[str, object], message: str) -> None:
    write_blender_scene(tmp_path)
    edit(tmp_path / "transforms_train.json", **keys)
    with pytest.raises(UserError, match=message):
        load_scene(tmp_path)


@pytest.mark.parametrize(
    ("pose", "message"),
    [
        (np.full((4, 4), np.nan), "NaN or infinite"),
        (np.diag([2.0, 2.0, 2.0, 1.0]), "scales or mirrors"),
        (np.diag([-1.0, 1.0, 1.0, 1.0]), "scales or mirrors"),
        (np.zeros((4, 4)), "no usable camera"),
        (np.eye(2), "no usable camera"),
    ],
)
def test_poses_that_cannot_be(tmp_path: Path, pose: np.ndarray, message: str) -> None:
    write_blender_scene(tmp_path)
    frame = {"file_path": "./train/r_0", "transform_matrix": pose.tolist()}
    edit(tmp_path / "transforms_train.json", frames=[frame])
    with pytest.raises(UserError, match=message):
        load_scene(tmp_path)


def test_no_focal_length_is_said(tmp_path: Path) -> None:
    path = write_blender_scene(tmp_path) / "transforms_train.json"
    transforms = json.loads(path.read_text())
    del transforms["camera_angle_x"]
    path.write_text(json.dumps(transforms))
    with pytest.raises(UserError, match="lacks 'camera_angle_x'"):
        load_scene(tmp_path)
