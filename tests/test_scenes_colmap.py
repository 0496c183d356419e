"""COLMAP models: binary and text alike, and every way they can be damaged."""

import shutil
import struct
import unicodedata
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch
from tiny_scenes import NAMES, POINTS, circle_pose, write_colmap_scene, write_photo

from feature_gs.errors import UserError
from feature_gs.scenes import load_scene

BINARIES = ("cameras.bin", "images.bin", "points3D.bin", "rigs.bin", "frames.bin")


@pytest.mark.parametrize("where", ["sparse/0", "sparse"])
@pytest.mark.parametrize("binary", [True, False])
def test_binary_and_text_give_the_scene_that_was_written(tmp_path: Path, binary: bool, where: str) -> None:
    scene = load_scene(write_colmap_scene(tmp_path, binary=binary, where=where))
    assert [view.camera.name for view in scene.train] == list(NAMES)
    for i, view in enumerate(scene.train):
        assert np.allclose(view.camera.cam_from_world, circle_pose(i, 4), atol=1e-6)
        assert torch.equal(view.camera.K, torch.tensor([[30.0, 0, 15.5], [0, 31.0, 12.5], [0, 0, 1]]))
        assert (view.load() == 10 * i).all()
    order = np.lexsort(scene.points.numpy().T)
    expected = np.lexsort(POINTS.T)
    assert np.allclose(scene.points[order], POINTS[expected], atol=1e-6)
    assert scene.point_colors[order].tolist() == [[i, 2 * i, 255 - i] for i in expected.tolist()]
    assert scene.messages == []
    assert (scene.name, scene.source_path) == (tmp_path.name, tmp_path)


def test_observations_are_walked_over(tmp_path: Path) -> None:
    synthetic = pycolmap.SyntheticDatasetOptions(
        num_rigs=1,
        num_cameras_per_rig=2,
        num_frames_per_rig=4,
        num_points3D=30,
        camera_model_id=pycolmap.CameraModelId.PINHOLE,
        camera_params=[900.0, 900.0, 512.0, 384.0],
    )
    reconstruction = pycolmap.synthesize_dataset(synthetic)
    (tmp_path / "sparse" / "0").mkdir(parents=True)
    reconstruction.write_binary(str(tmp_path / "sparse" / "0"))
    for image in reconstruction.images.values():
        write_photo(tmp_path / "images" / image.name, image.camera.width, image.camera.height)
    scene = load_scene(tmp_path)
    assert len(scene.train) == 8
    poses = {image.name: image.cam_from_world().matrix() for image in reconstruction.images.values()}
    for view in scene.train:
        assert np.allclose(view.camera.cam_from_world[:3], poses[view.camera.name], atol=1e-5)
    assert len(scene.points) == reconstruction.num_points3D()


@pytest.mark.parametrize(
    ("model", "params", "K"),
    [
        ("SIMPLE_PINHOLE", [30, 15, 12], (30, 30, 15, 12)),
        ("SIMPLE_RADIAL", [30, 15, 12, 0], (30, 30, 15, 12)),
        ("OPENCV", [30, 31, 15, 12, 0, 0, 0, 0], (30, 31, 15, 12)),
    ],
)
def test_models_that_are_pinholes(
    tmp_path: Path, model: str, params: list[float], K: tuple[float, ...]
) -> None:
    matrix = load_scene(write_colmap_scene(tmp_path, model=model, params=params)).train[0].camera.K
    assert (matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]) == K


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(
    ("model", "params"),
    [
        ("SIMPLE_RADIAL", [30, 15, 12, 0.01]),
        ("OPENCV", [30, 31, 15, 12, 0, 0, 0, 0.001]),
        ("OPENCV_FISHEYE", [30, 31, 15, 12, 0, 0, 0, 0]),  # bends lines also with all coefficients zero
    ],
)
def test_distorted_models_are_refused_by_name(
    tmp_path: Path, model: str, params: list[float], binary: bool
) -> None:
    write_colmap_scene(tmp_path, model=model, params=params, binary=binary)
    with pytest.raises(UserError, match=rf"model {model},.*python convert\.py -s .* --skip_matching"):
        load_scene(tmp_path)


def test_unknown_camera_models_are_named(tmp_path: Path) -> None:
    write_colmap_scene(tmp_path / "text", binary=False)
    cameras = tmp_path / "text" / "sparse" / "0" / "cameras.txt"
    cameras.write_text(cameras.read_text().replace("PINHOLE", "PERISCOPE"))
    with pytest.raises(UserError, match="unknown model, 'PERISCOPE'"):
        load_scene(tmp_path / "text")
    write_colmap_scene(tmp_path / "binary")
    cameras = tmp_path / "binary" / "sparse" / "0" / "cameras.bin"
    data = bytearray(cameras.read_bytes())
    data[12:16] = struct.pack("<i", 77)
    cameras.write_bytes(data)
    with pytest.raises(UserError, match="unknown model \\(number 77\\)"):
        load_scene(tmp_path / "binary")


@pytest.mark.parametrize("name", BINARIES)
def test_a_binary_cut_anywhere_is_truncated(tmp_path: Path, name: str) -> None:
    path = write_colmap_scene(tmp_path) / "sparse" / "0" / name
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=rf"{name} is truncated"):
            load_scene(tmp_path)


@pytest.mark.parametrize("name", BINARIES)
def test_a_count_far_too_high_is_truncated(tmp_path: Path, name: str) -> None:
    path = write_colmap_scene(tmp_path) / "sparse" / "0" / name
    path.write_bytes(b"\xff" * 8 + path.read_bytes()[8:])
    with pytest.raises(UserError):
        load_scene(tmp_path)


@pytest.mark.parametrize("name", ["cameras.txt", "images.txt", "points3D.txt"])
def test_text_that_makes_no_sense_is_a_user_error(tmp_path: Path, name: str) -> None:
    path = write_colmap_scene(tmp_path, binary=False) / "sparse" / "0" / name
    path.write_text("1 PINHOLE 32\n")
    with pytest.raises(UserError, match="COLMAP model in .* is damaged"):
        load_scene(tmp_path)


def test_contradictions_between_files_are_a_user_error(tmp_path: Path) -> None:
    write_colmap_scene(tmp_path / "one")
    write_colmap_scene(tmp_path / "two", names=NAMES[:2])
    for name in ("images.bin", "frames.bin"):
        shutil.copy(tmp_path / "one" / "sparse" / "0" / name, tmp_path / "two" / "sparse" / "0" / name)
    (tmp_path / "two" / "sparse" / "0" / "rigs.bin").write_bytes(struct.pack("<Q", 0))
    with pytest.raises(UserError, match="damaged"):
        load_scene(tmp_path / "two")


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin"])
def test_a_missing_file_of_the_model_is_named(tmp_path: Path, name: str) -> None:
    (write_colmap_scene(tmp_path) / "sparse" / "0" / name).unlink()
    with pytest.raises(UserError, match=rf"incomplete: {name} missing"):
        load_scene(tmp_path)


def test_a_model_without_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no image with a pose"):
        load_scene(write_colmap_scene(tmp_path, names=[]))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_pose_that_is_not_finite_names_its_image(tmp_path: Path, value: float) -> None:
    folder = write_colmap_scene(tmp_path) / "sparse" / "0"
    for name in ("rigs.bin", "frames.bin"):
        (folder / name).unlink()
    data = bytearray((folder / "images.bin").read_bytes())
    data[8 + 4 + 32 : 8 + 4 + 40] = struct.pack("<d", value)  # x of the first translation
    (folder / "images.bin").write_bytes(data)
    with pytest.raises(UserError, match=r"image 'a\.png' .* NaN or infinite"):
        load_scene(tmp_path)


def test_a_quaternion_of_zeros_is_no_pose(tmp_path: Path) -> None:
    folder = write_colmap_scene(tmp_path) / "sparse" / "0"
    for name in ("rigs.bin", "frames.bin"):
        (folder / name).unlink()
    data = bytearray((folder / "images.bin").read_bytes())
    data[8 + 4 : 8 + 4 + 32] = bytes(32)
    (folder / "images.bin").write_bytes(data)
    with pytest.raises(UserError, match=r"image 'a\.png' .* NaN"):
        load_scene(tmp_path)


@pytest.mark.parametrize("params", [(0.0, 31.0, 15.5, 12.5), (float("nan"), 31.0, 15.5, 12.5)])
def test_a_focal_length_that_is_none(tmp_path: Path, params: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="is not a camera"):
        load_scene(write_colmap_scene(tmp_path, params=params))


def test_points_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    points = POINTS.copy()
    points[3] = np.nan
    scene = load_scene(write_colmap_scene(tmp_path, points=points))
    assert len(scene.points) == 7
    assert scene.messages == ["1 points of the model are not finite and are left out"]


def test_missing_and_extra_photos_are_told_and_left_out(tmp_path: Path) -> None:
    write_colmap_scene(tmp_path)
    (tmp_path / "images" / "b.png").rename(tmp_path / "images" / "x.png")
    scene = load_scene(tmp_path)
    assert [view.camera.name for view in scene.train] == ["a.png", "c.png", "d.png"]
    missing, extra = scene.messages
    assert "1 of 4 images of the model are not in" in missing
    assert missing.endswith("b.png")
    assert "1 images in" in extra
    assert extra.endswith("x.png")


def test_the_split_does_not_move_when_a_photo_is_missing(tmp_path: Path) -> None:
    write_colmap_scene(tmp_path, names=[f"{i:02d}.png" for i in range(17)])
    (tmp_path / "images" / "03.png").unlink()
    assert [v.camera.name for v in load_scene(tmp_path, eval=True).test] == ["00.png", "08.png", "16.png"]


def test_no_photo_at_all_says_where_they_were_looked_for(tmp_path: Path) -> None:
    write_colmap_scene(tmp_path, photos=False)
    with pytest.raises(
        UserError, match="none of the 4 images .* does not exist; expected a.png, b.png, c.png and 1"
    ):
        load_scene(tmp_path)
    write_photo(tmp_path / "images" / "other.png")
    with pytest.raises(UserError, match="holds 1 other images"):
        load_scene(tmp_path)


def test_one_name_in_two_sub_folders_stays_two_images(tmp_path: Path) -> None:
    scene = load_scene(write_colmap_scene(tmp_path, names=["left/1.png", "right/1.png", "right/2.png"]))
    assert [view.camera.name for view in scene.train] == ["left/1.png", "right/1.png", "right/2.png"]
    assert [int(view.load()[0, 0, 0]) for view in scene.train] == [0, 10, 20]


def test_names_that_differ_by_suffix_only_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'a\.jpg' and 'a\.png'"):
        load_scene(write_colmap_scene(tmp_path, names=["a.jpg", "a.png"]))


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "sub/../../a.png"])
def test_names_that_leave_the_folder_of_images_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="no path below the folder of images"):
        load_scene(write_colmap_scene(tmp_path, names=[name], photos=False))


@pytest.mark.parametrize("binary", [True, False])
def test_spaces_and_umlauts_in_paths(tmp_path: Path, binary: bool) -> None:
    names = ["vor dem Schloß/Bild 1.png", "vor dem Schloß/Bild ü.png", "日本.png"]
    scene = load_scene(write_colmap_scene(tmp_path / "Süd Flügel", names=names, binary=binary))
    assert [view.camera.name for view in scene.train] == sorted(names)
    assert [view.load().shape for view in scene.train] == [(24, 32, 3)] * 3


def test_umlauts_that_the_disk_stores_as_two_characters(tmp_path: Path) -> None:
    write_colmap_scene(tmp_path, names=["ü.png"])
    decomposed = unicodedata.normalize("NFD", "ü.png")
    (tmp_path / "images" / "ü.png").rename(tmp_path / "images" / decomposed)
    assert load_scene(tmp_path).train[0].load().shape == (24, 32, 3)


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = write_colmap_scene(tmp_path) / "sparse" / "0" / "images.bin"
    path.write_bytes(path.read_bytes().replace(b"b.png", b"\xfc.png"))
    with pytest.raises(UserError, match="not UTF-8"):
        load_scene(tmp_path)


def test_photos_of_another_scale_scale_the_camera(tmp_path: Path) -> None:
    write_colmap_scene(tmp_path)
    for name in NAMES:
        write_photo(tmp_path / "images_2" / name, 16, 12)
    camera = load_scene(tmp_path, images="images_2").train[0].camera
    assert (camera.width, camera.height) == (16, 12)
    assert torch.equal(camera.K, torch.tensor([[15.0, 0, 7.75], [0, 15.5, 6.25], [0, 0, 1]]))


def test_photos_of_other_proportions_are_refused(tmp_path: Path) -> None:
    write_colmap_scene(tmp_path)
    write_photo(tmp_path / "images" / "b.png", 32, 20)
    with pytest.raises(UserError, match=r"b\.png has 32x20 pixels, its camera 32x24"):
        load_scene(tmp_path)
    write_photo(tmp_path / "images" / "b.png", 24, 32)
    with pytest.raises(UserError, match="rotated by 90 degrees"):
        load_scene(tmp_path)


def test_several_models_are_told(tmp_path: Path) -> None:
    write_colmap_scene(tmp_path)
    write_colmap_scene(tmp_path, where="sparse/1")
    assert any("several models" in message for message in load_scene(tmp_path).messages)
