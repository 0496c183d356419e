"""The stages after mapping, and what makes them resumable: laws on synthetic models, no matching needed."""

import os
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image
from tiny_scenes import write_colmap_scene

from feature_gs.errors import UserError
from feature_gs.scenes import load_scene
from feature_gs.scenes.conversion.folders import fresh, install, recover
from feature_gs.scenes.conversion.models import choose_model, model_folders, read_models
from feature_gs.scenes.conversion.photos import Photo, read_photos
from feature_gs.scenes.conversion.pictures import Picture, read_picture, write_picture
from feature_gs.scenes.conversion.record import Record, fingerprint
from feature_gs.scenes.conversion.sizes import shrink, write_smaller
from feature_gs.scenes.conversion.undistortion import turn_points, undistort

SIZE = (240, 180)  # below 256: a pixel's colour can tell its column and row
PARAMS = [200.0, 205.0, 118.0, 92.0, -0.15, 0.04, 0.002, -0.003]
ORIENTATIONS = (1, 6, 3, 8)  # turned clockwise by 0, 1, 2, 3 quarters


def write_synthetic(folder: Path) -> pycolmap.Reconstruction:
    """Photos whose colours are (column, row, 0, column), lying on all sides, and their exact model."""
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions(
        num_rigs=2,
        num_cameras_per_rig=1,
        num_frames_per_rig=4,
        num_points3D=60,
        camera_width=SIZE[0],
        camera_height=SIZE[1],
        camera_model_id=pycolmap.CameraModelId.OPENCV,
        camera_params=PARAMS,
    )
    model = pycolmap.synthesize_dataset(options)
    (folder / "model").mkdir(parents=True)
    x, y = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    pixels = np.stack([x, y, np.zeros_like(x), x], axis=-1).astype(np.uint8)
    for image in model.images.values():
        image.name = Path(image.name).with_suffix(".png").as_posix()
        exif = Image.Exif()
        exif[274] = ORIENTATIONS[image.image_id % 4]
        path = folder / "input" / image.name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, exif=exif)
    model.write_binary(str(folder / "model"))
    return model


def undistorted(folder: Path) -> tuple[dict[str, Photo], pycolmap.Reconstruction]:
    photos = read_photos(folder / "input", quiet=True)
    undistort(read_models(folder / "model")[0], photos, fresh(folder / "out"), quiet=True)
    return {photo.name: photo for photo in photos}, pycolmap.Reconstruction(
        str(folder / "out" / "sparse" / "0")
    )


def test_points_lie_where_the_undistorted_photos_show_them(tmp_path: Path) -> None:
    before = write_synthetic(tmp_path)
    _, model = undistorted(tmp_path)
    assert model.num_images() == 8
    assert {camera.model_name for camera in model.cameras.values()} == {"PINHOLE"}
    for image in model.images.values():
        seen = [point for point in image.points2D if point.has_point3D()]
        assert len(seen) == image.num_points2D() > 20
        for point in seen:
            where = image.project_point(model.points3D[point.point3D_id].xyz)
            assert np.allclose(where, point.xy, atol=1e-5)
    for i, point in before.points3D.items():
        assert np.array_equal(model.points3D[i].xyz, point.xyz)
        assert model.points3D[i].track.length() == point.track.length()
    for i, image in before.images.items():
        assert np.allclose(model.images[i].projection_center(), image.projection_center())
    assert 0 <= model.compute_mean_reprojection_error() < 1e-5


def test_undistorted_pixels_lie_where_the_new_cameras_say(tmp_path: Path) -> None:
    """Of every pixel: from the new camera to its ray, back into the old camera, to the photo's own pixel."""
    before = write_synthetic(tmp_path)
    photos, model = undistorted(tmp_path)
    seen_turns = set()
    for i, image in model.images.items():
        pixels = np.asarray(Image.open(tmp_path / "out" / "images" / image.name))
        camera, old = image.camera, before.images[i]
        assert pixels.shape == (camera.height, camera.width, 4)
        u, v = np.meshgrid(np.arange(4, camera.width - 4, 7), np.arange(4, camera.height - 4, 7))
        rays = camera.cam_from_img(np.stack([u.ravel() + 0.5, v.ravel() + 0.5], axis=1))
        new_from_old = image.cam_from_world().rotation * old.cam_from_world().rotation.inverse()
        rays = np.c_[rays, np.ones(len(rays))] @ new_from_old.matrix()
        assert old.camera is not None
        expected = old.camera.img_from_cam(rays) - 0.5
        found = pixels[v.ravel(), u.ravel()].astype(float)
        inside = ((expected > 2) & (expected < np.array(SIZE) - 3)).all(axis=1)
        assert inside.mean() > 0.9
        assert np.abs(found[inside][:, :2] - expected[inside]).max() < 1.0
        assert np.array_equal(found[:, 0], found[:, 3])  # alpha goes with the colours
        seen_turns.add(photos[image.name].turns)
    assert seen_turns == {0, 1, 2, 3}


def test_undistorted_photos_are_upright_and_say_nothing_else(tmp_path: Path) -> None:
    write_synthetic(tmp_path)
    photos, _ = undistorted(tmp_path)
    for name, photo in photos.items():
        with Image.open(tmp_path / "out" / "images" / name) as image:
            assert not image.getexif()
            assert (image.width > image.height) == (photo.turns % 2 == 0)


def test_the_house_reads_what_was_undistorted(tmp_path: Path) -> None:
    model = write_synthetic(tmp_path)
    undistorted(tmp_path)
    scene = load_scene(tmp_path / "out")
    assert len(scene.train) == 8
    assert len(scene.points) == 60
    assert scene.messages == []
    centers = {image.name: image.projection_center() for image in model.images.values()}
    for view in scene.train:
        assert np.allclose(view.camera.center, centers[view.camera.name], atol=1e-4)
        assert view.load().shape == (view.camera.height, view.camera.width, 3)


def test_a_photo_of_another_size_is_refused(tmp_path: Path) -> None:
    write_synthetic(tmp_path)
    name = read_photos(tmp_path / "input", quiet=True)[3].name
    Image.new("RGB", (120, 90)).save(tmp_path / "input" / name)
    with pytest.raises(UserError, match=f"{name} has 120x90 pixels, its camera in .* 240x180"):
        undistorted(tmp_path)


@pytest.mark.parametrize("turns", range(4))
def test_points_turn_with_the_picture(turns: int) -> None:
    picture = np.zeros((5, 7), np.uint8)
    picture[1, 4] = 1  # its centre is (4.5, 1.5)
    xy = turn_points(np.array([[4.5, 1.5]]), 7, 5, turns)[0]
    assert np.rot90(picture, -turns)[int(xy[1]), int(xy[0])] == 1


def test_smaller_photos_are_means_of_areas(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 36, 3), dtype=np.uint8)
    write_picture(tmp_path / "images" / "a b" / "ü.png", Picture(pixels, None, None))
    write_smaller(tmp_path / "images", ["a b/ü.png"], 4, tmp_path / "images_4", quiet=True)
    found = read_picture(tmp_path / "images_4" / "a b" / "ü.png").color
    mean = pixels.reshape(6, 4, 9, 4, 3).mean(axis=(1, 3))
    assert found.shape == (6, 9, 3)
    assert np.abs(found - mean).max() <= 0.51


def test_sizes_are_rounded_as_training_rounds_them(tmp_path: Path) -> None:
    for width, height in ((331, 245), (333, 247), (3, 5)):
        write_picture(tmp_path / "i" / "a.png", Picture(np.zeros((height, width, 3), np.uint8), None, None))
        write_smaller(tmp_path / "i", ["a.png"], 8, tmp_path / "i8", quiet=True)
        with Image.open(tmp_path / "i8" / "a.png") as image:
            assert image.size == (max(1, round(width / 8)), max(1, round(height / 8)))


def test_hidden_pixels_do_not_colour_smaller_ones() -> None:
    color = np.zeros((2, 4, 3), np.uint8)
    color[:, :1] = [200, 100, 40]
    color[:, 1:] = [0, 255, 0]
    alpha = np.array([[255, 0, 0, 0]] * 2, np.uint8)
    small = shrink(Picture(color, alpha, None), 2, 1)
    assert small.alpha is not None
    assert small.alpha.tolist() == [[128, 0]]
    assert small.color[0].tolist() == [[200, 100, 40], [0, 0, 0]]


def test_the_largest_model_is_chosen(tmp_path: Path) -> None:
    for number, names in (
        ("0", ("a.png", "b.png", "c.png")),
        ("1", ("d.png", "e.png", "f.png", "g.png")),
        ("10", ("h.png",)),
    ):
        write_colmap_scene(tmp_path, names=names, where=f"sparse/{number}", photos=False)
    models = read_models(tmp_path / "sparse")
    photos = [f"{letter}.png" for letter in "abcdefghij"]
    model, messages = choose_model(models, photos, tmp_path)
    assert model.folder.name == "1"
    assert (
        "3 models that could not be joined (photos each: 1: 4, 0: 3, 10: 1); model 1 is used" in messages[0]
    )
    assert messages[1:] == ["6 of 10 photos could not be placed: a.png, b.png, c.png and 3 more"]


def test_no_model(tmp_path: Path) -> None:
    assert model_folders(tmp_path / "nowhere") == []
    with pytest.raises(UserError, match="holds no model with photos"):
        choose_model(read_models(tmp_path), ["a.png"], tmp_path)


def test_a_model_cannot_write_outside_its_folder(tmp_path: Path) -> None:
    write_colmap_scene(tmp_path, names=("../../a.png", "b.png"), photos=False)
    with pytest.raises(UserError, match="no path below the folder"):
        read_models(tmp_path / "sparse")


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "images"
    for text in ("old", "new"):
        (fresh(tmp_path / ".made") / text).touch()
        install(tmp_path / ".made", target)
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


@pytest.mark.parametrize("renamed", [False, True])
def test_killed_while_replacing_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renamed: bool
) -> None:
    """Before the new one is in its place the old one comes back, afterwards it goes."""
    target, made = tmp_path / "images", tmp_path / ".made"
    (fresh(target) / "old").touch()
    (fresh(made) / "new").touch()
    rename, calls = os.rename, []

    def killed(source: Path, destination: Path) -> None:
        calls.append(source)
        if len(calls) == 2 and not renamed:
            raise KeyboardInterrupt
        rename(source, destination)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        install(made, target)
    recover(target)
    assert [path.name for path in target.iterdir()] == ["new" if renamed else "old"]
    assert sorted(path.name for path in tmp_path.iterdir()) == (
        ["images"] if renamed else [".made", "images"]
    )


def test_the_record_remembers(tmp_path: Path) -> None:
    record = Record(tmp_path / "distorted" / "convert.json")
    record.start("features", "a")
    record.finish("matches", "b")
    record = Record(record.path)
    assert record.started("features") and record.started("features", "a") and not record.done("features")
    assert record.done("matches") and record.done("matches", "b") and not record.done("matches", "a")
    record.forget("matches", "never begun")
    assert not Record(record.path).started("matches")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"stages": 3}',
        '{"stages": {"features": {"done": true}}}',
        '{"stages": {"features": 1}}',
    ],
)
def test_a_damaged_record_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "convert.json").write_text(text)
    record = Record(tmp_path / "convert.json")
    assert not record.started("features")
    record.start("features", "a")
    assert Record(record.path).started("features", "a")


def test_fingerprints_tell_apart() -> None:
    assert fingerprint("a", ["b"]) == fingerprint("a", ["b"])
    assert (
        len({fingerprint("a", "b"), fingerprint("ab"), fingerprint("b", "a"), fingerprint(["a", "b"])}) == 4
    )
