"""Cameras, photo sizes, splits and extent, whatever the format of the scene."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_scenes import NAMES, POINTS, write_colmap_scene, write_photo

from feature_gs.errors import UserError
from feature_gs.scenes import Camera, load_scene, read_cameras_json, write_cameras_json
from feature_gs.scenes.images import load_image
from feature_gs.scenes.scene import target_size


def random_camera(seed: int = 0) -> Camera:
    generator = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = rotation * torch.linalg.det(rotation)
    pose[:3, 3] = torch.randn(3, generator=generator)
    K = torch.tensor([[613.7, 0, 220.1], [0, 598.2, 391.9], [0, 0, 1]])
    return Camera("left/ä 1.jpg", 441, 788, K, pose.float())


def project(camera: Camera, points: torch.Tensor) -> torch.Tensor:  # [P, 3]
    pose = camera.cam_from_world.double()
    local = points.double() @ pose[:3, :3].T + pose[:3, 3]
    pixels = local @ camera.K.double().T
    return pixels[:, :2] / pixels[:, 2:]


def test_the_center_is_where_the_pose_maps_to_zero() -> None:
    camera = random_camera()
    pose = camera.cam_from_world
    assert torch.allclose(pose[:3, :3] @ camera.center + pose[:3, 3], torch.zeros(3), atol=1e-6)


def test_a_resized_camera_sees_each_point_at_the_scaled_pixel() -> None:
    camera = random_camera()
    points = camera.center + camera.cam_from_world[2, :3] * 3 + torch.rand(50, 3)
    resized = camera.resized(220, 394)
    expected = project(camera, points) * torch.tensor([220 / 441, 394 / 788], dtype=torch.float64)
    assert torch.allclose(project(resized, points), expected, atol=1e-3)
    assert (resized.width, resized.height) == (220, 394)
    assert resized.K[0, 0].item() == pytest.approx(613.7 * 220 / 441, rel=1e-6)
    assert resized.K[1, 2].item() == pytest.approx(391.9 * 394 / 788, rel=1e-6)


def test_cameras_json_returns_what_was_written(tmp_path: Path) -> None:
    cameras = [random_camera(0), replace(random_camera(1), name="right.png")]
    write_cameras_json(tmp_path / "new" / "cameras.json", cameras)
    for camera, read in zip(
        cameras, read_cameras_json(tmp_path / "new" / "cameras.json")["train"], strict=True
    ):
        assert (read.name, read.width, read.height) == (camera.name, camera.width, camera.height)
        assert torch.equal(read.K, camera.K)
        assert torch.equal(read.cam_from_world, camera.cam_from_world)


@pytest.mark.parametrize("text", ["", "{}x", '{"name": 1}', "[1]", '[{"name": "a"}]', "null"])
def test_a_damaged_cameras_json_is_a_user_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "cameras.json").write_text(text)
    with pytest.raises(UserError, match="not a list of cameras"):
        read_cameras_json(tmp_path / "cameras.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "no image name"),
        ({"name": "a\0b"}, "no image name"),
        ({"width": -5}, "make no sense"),
        ({"height": 10**6}, "make no sense"),
        ({"K": [[0.0] * 3] * 3}, "make no sense"),
        ({"cam_from_world": [[0.0] * 4] * 4}, "make no sense"),
        ({"cam_from_world": [[math.nan] * 4] * 4}, "make no sense"),
        ({}, "same name"),
    ],
)
def test_cameras_that_make_no_sense_are_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    entry = random_camera().to_json() | {"split": "train"}
    (tmp_path / "cameras.json").write_text(json.dumps([entry, entry | change]))
    with pytest.raises(UserError, match=message):
        read_cameras_json(tmp_path / "cameras.json")


def test_cameras_json_with_a_wrong_shape_or_no_file_is_a_user_error(tmp_path: Path) -> None:
    entry = random_camera().to_json() | {"K": [[1.0]], "split": "train"}
    (tmp_path / "cameras.json").write_text(json.dumps([entry]))
    with pytest.raises(UserError, match=r"got K \[1, 1\]"):
        read_cameras_json(tmp_path / "cameras.json")
    with pytest.raises(UserError, match="does not exist"):
        read_cameras_json(tmp_path / "missing.json")


def test_cameras_json_keeps_the_split_and_refuses_names_outside_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "cameras.json"
    a, b = random_camera(), random_camera()
    write_cameras_json(path, [a], [b])
    read = read_cameras_json(path)
    assert torch.equal(read["train"][0].K, a.K) and torch.equal(read["test"][0].K, b.K)
    path.write_text(json.dumps([a.to_json() | {"split": "train", "name": "../a.png"}]))
    with pytest.raises(UserError, match="leads out"):
        read_cameras_json(path)
    path.write_text(json.dumps([a.to_json() | {"split": "test"}]))
    with pytest.raises(UserError, match="no training camera"):
        read_cameras_json(path)


@pytest.mark.parametrize(
    ("size", "resolution", "expected"),
    [
        ((441, 788), 1, (441, 788)),
        ((441, 788), 2, (220, 394)),
        ((443, 788), 2, (222, 394)),  # halves round to even
        ((441, 788), 4, (110, 197)),
        ((441, 788), 8, (55, 98)),
        ((441, 788), -1, (441, 788)),
        ((1600, 1200), -1, (1600, 1200)),
        ((4946, 3286), -1, (1600, 1063)),
        ((4946, 3286), 1, (4946, 3286)),
        ((441, 788), 100, (100, 178)),
        ((3, 3), 8, (1, 1)),
    ],
)
def test_target_size(size: tuple[int, int], resolution: float, expected: tuple[int, int]) -> None:
    assert target_size(*size, resolution) == expected


@pytest.mark.parametrize("resolution", [-2, -1.5, 0.5, 2.5, float("nan"), float("inf"), 1e9])
def test_a_resolution_without_meaning_is_refused(resolution: float) -> None:
    with pytest.raises(UserError, match="no resolution"):
        target_size(441, 788, resolution)


def test_resolution_zero_asks_for_a_teacher() -> None:
    with pytest.raises(UserError, match="teacher"):
        target_size(441, 788, 0)


def test_photos_wider_than_1600_are_capped_and_that_is_said(tmp_path: Path) -> None:
    write_colmap_scene(tmp_path, photos=False)
    for name in NAMES:
        write_photo(tmp_path / "images" / name, 3200, 2400)
    scene = load_scene(tmp_path)
    assert (scene.train[0].camera.width, scene.train[0].camera.height) == (1600, 1200)
    assert any("-r 1" in message for message in scene.messages)
    assert load_scene(tmp_path, resolution=1).messages == []


def test_every_eighth_by_name_is_held_out(tmp_path: Path) -> None:
    names = [f"{i:02d}.png" for i in np.random.default_rng(0).permutation(20)]
    write_colmap_scene(tmp_path, names=names)
    scene = load_scene(tmp_path, eval=True)
    assert [view.camera.name for view in scene.test] == ["00.png", "08.png", "16.png"]
    assert len(scene.train) == 17
    assert [view.camera.name for view in scene.train] == sorted(view.camera.name for view in scene.train)
    without = load_scene(tmp_path)
    assert (len(without.train), without.test) == (20, [])


def test_a_list_of_test_views_replaces_the_rule(tmp_path: Path) -> None:
    write_colmap_scene(tmp_path, names=["sub dir/ü 1.png", "b.png", "c.png"])
    (tmp_path / "test.txt").write_text("b.png\n\nsub dir/ü 1.png  \n", encoding="utf-8")
    assert [v.camera.name for v in load_scene(tmp_path, eval=True).test] == ["b.png", "sub dir/ü 1.png"]
    assert load_scene(tmp_path).test == []


def test_test_views_that_do_not_exist_or_leave_nothing_to_train_on(tmp_path: Path) -> None:
    write_colmap_scene(tmp_path)
    (tmp_path / "test.txt").write_text("a.png\nz.png\n")
    with pytest.raises(UserError, match=r"lacks: z\.png; it has e\.g\. a\.png"):
        load_scene(tmp_path, eval=True)
    (tmp_path / "test.txt").write_text("\n".join(NAMES))
    with pytest.raises(UserError, match="4 of 4 are test views"):
        load_scene(tmp_path, eval=True)


def test_extent_is_the_cameras_reach_times_1_1(tmp_path: Path) -> None:
    assert load_scene(write_colmap_scene(tmp_path)).extent == pytest.approx(2.2, rel=1e-5)


def test_one_camera_takes_its_extent_from_the_points(tmp_path: Path) -> None:
    scene = load_scene(write_colmap_scene(tmp_path, names=["a.png"]))
    distances = np.linalg.norm(POINTS - scene.train[0].camera.center.numpy(), axis=1)
    assert scene.extent == pytest.approx(1.1 * np.sort(distances)[3], rel=1e-4)


def test_no_points_start_random_in_the_frustums(tmp_path: Path) -> None:
    scene = load_scene(write_colmap_scene(tmp_path, points=np.zeros((0, 3))))
    assert any("10,000 random points" in message for message in scene.messages)
    assert scene.points.shape == (10_000, 3)
    assert scene.points.dtype == torch.float32
    assert (scene.point_colors.shape, scene.point_colors.dtype) == ((10_000, 3), torch.uint8)
    for i, view in enumerate(scene.train):  # point k was drawn for camera k modulo 4
        camera, points = view.camera, scene.points[i::4]
        z = points @ camera.cam_from_world[2, :3] + camera.cam_from_world[2, 3]
        pixels = project(camera, points)
        assert z.min() > 0.79  # 0.4 to 2.5 times the 2 units to what all look at
        assert z.max() < 5.01
        assert (pixels > -1e-3).all()
        assert (pixels < torch.tensor([32.001, 24.001])).all()
    assert torch.equal(load_scene(tmp_path).points, scene.points)


def test_random_points_exist_for_one_camera_too(tmp_path: Path) -> None:
    scene = load_scene(write_colmap_scene(tmp_path, names=["a.png"], points=np.zeros((0, 3))))
    assert torch.isfinite(scene.points).all()
    assert scene.extent > 0


def test_a_view_shrinks_by_area(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = pixels.reshape(12, 2, 16, 2, 3).mean(axis=(1, 3))
    loaded = load_image(tmp_path / "a.png", 16, 12, white_background=False)
    assert (loaded.shape, loaded.dtype) == ((12, 16, 3), torch.uint8)
    assert np.abs(loaded.numpy() - expected).max() <= 0.75
    assert torch.equal(load_image(tmp_path / "a.png", 32, 24, False), torch.from_numpy(pixels))


@pytest.mark.parametrize(
    ("pixel", "mode", "on_black", "on_white"),
    [
        ((200, 100, 50, 128), "RGBA", (100, 50, 25), (227, 177, 152)),
        ((200, 0), "LA", (0, 0, 0), (255, 255, 255)),
        ((77,), "L", (77, 77, 77), (77, 77, 77)),
    ],
)
def test_transparency_and_grey(
    tmp_path: Path, pixel: tuple[int, ...], mode: str, on_black: tuple[int, ...], on_white: tuple[int, ...]
) -> None:
    Image.new(mode, (2, 2), pixel if len(pixel) > 1 else pixel[0]).save(tmp_path / "a.png")
    for white, expected in ((False, on_black), (True, on_white)):
        assert load_image(tmp_path / "a.png", 2, 2, white)[1, 1].tolist() == list(expected)


def test_16_bit_grey_keeps_its_range(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 257 * 100, 65535]], dtype=np.uint16)).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png", 3, 1, False)[0, :, 0].tolist() == [0, 100, 255]


def test_a_rotation_in_exif_is_ignored(tmp_path: Path) -> None:
    image = Image.new("RGB", (32, 24))
    exif = Image.Exif()
    exif[0x0112] = 6
    write_colmap_scene(tmp_path, names=["a.jpg"])
    image.save(tmp_path / "images" / "a.jpg", exif=exif)
    view = load_scene(tmp_path).train[0]
    assert view.load().shape == (24, 32, 3)


def test_a_photo_cut_short_is_a_user_error(tmp_path: Path) -> None:
    scene = load_scene(write_colmap_scene(tmp_path, names=["a.png"]))
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)).save(
        scene.train[0].image_path
    )
    whole = scene.train[0].image_path.read_bytes()
    scene.train[0].image_path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cannot read the image .*a\.png"):
        scene.train[0].load()
    scene.train[0].image_path.write_bytes(b"")
    with pytest.raises(UserError, match=r"cannot read the image .*a\.png"):
        load_scene(tmp_path)


def test_a_folder_that_is_no_scene(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_scene(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is empty"):
        load_scene(tmp_path)
    write_photo(tmp_path / "input" / "a.png")
    with pytest.raises(UserError, match=r"holds no scene.*convert\.py -s"):
        load_scene(tmp_path)
    with pytest.raises(UserError, match="is a file"):
        load_scene(tmp_path / "input" / "a.png")


def test_fox(shared_data: Path) -> None:
    scene = load_scene(shared_data / "scenes" / "fox", resolution=2, eval=True)
    assert (len(scene.train), len(scene.test), scene.points.shape) == (43, 7, (9942, 3))
    view = scene.test[0]
    assert (view.camera.name, view.camera.width, view.camera.height) == ("0001.jpg", 220, 394)
    assert view.camera.K[0, 0].item() == pytest.approx(572.85381 * 220 / 441, rel=1e-6)
    assert view.load().shape == (394, 220, 3)
    assert scene.messages == []


def test_tabletop_in_all_its_forms(shared_data: Path) -> None:
    folder = shared_data / "scenes" / "tabletop"
    frames = json.loads((folder / "cameras.json").read_text())["frames"]
    exact = {frame["name"]: torch.tensor(frame["w2c_opencv"]) for frame in frames}
    colmap = load_scene(folder, eval=True)
    blender = load_scene(folder / "blender", eval=True)
    for scene in (colmap, blender):
        assert (len(scene.train), len(scene.test)) == (52, 8)
        for view in scene.train + scene.test:
            assert torch.allclose(view.camera.cam_from_world, exact[view.camera.name], atol=1e-5)
    assert [v.camera.name for v in colmap.test] == [v.camera.name for v in blender.test]
    assert torch.equal(colmap.test[3].load(), blender.test[3].load())


def test_sceaux_castle_with_distortion_is_refused(shared_data: Path) -> None:
    folder = shared_data / "scenes" / "sceaux_castle"
    assert len(load_scene(folder).train) == 11
    with pytest.raises(UserError, match=r"OPENCV.*convert\.py -s .*sceaux_castle\" --skip_matching"):
        load_scene(folder / "distorted")
