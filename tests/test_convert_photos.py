"""What can be told from the photos alone is told before anything expensive."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_scenes import write_colmap_scene

from feature_gs.errors import UserError
from feature_gs.scenes.conversion import ConvertConfig, convert
from feature_gs.scenes.conversion.photos import (
    Photo,
    check_input_folder,
    check_readable,
    choose_photos,
    read_photos,
    same_camera,
)


def write(
    path: Path, seed: int = 0, size: tuple[int, int] = (32, 24), alpha: bool = False, **tags: object
) -> None:
    """A photo of noise; `tags` are EXIF tags by name."""
    pixels = np.random.default_rng(seed).integers(
        0, 256, (size[1], size[0], 4 if alpha else 3), dtype=np.uint8
    )
    exif = Image.Exif()
    numbers = {"orientation": 274, "make": 271, "model": 272}
    for name, value in tags.items():
        if name == "focal":
            exif.get_ifd(0x8769)[37386] = value
        else:
            exif[numbers[name]] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, exif=exif)


def chosen(folder: Path) -> tuple[list[Photo], list[str]]:
    return choose_photos(read_photos(folder, quiet=True), folder)


def test_photos_of_sub_folders_are_sorted_and_measured(tmp_path: Path) -> None:
    write(tmp_path / "b c" / "Ä.png", 1, (40, 30))
    write(tmp_path / "a.jpg", 2)
    write(tmp_path / "d.JPG", 3)
    (tmp_path / "notes.txt").write_text("not a photo")
    photos, messages = chosen(tmp_path)
    assert [(p.name, p.width, p.height) for p in photos] == [
        ("a.jpg", 32, 24),
        ("b c/Ä.png", 40, 30),
        ("d.JPG", 32, 24),
    ]
    assert [photo.path for photo in photos] == [tmp_path / photo.name for photo in photos]
    assert messages == ["photos of 2 cameras, each calibrated by itself: 32x24, 40x30"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "Put the photos there"),
        ({"a.jpg": 0, "b.jpg": 1}, "2 photos lie in .* itself: move them into a folder named input"),
        ({"images/a.jpg": 0}, "if it holds the photos as taken, rename it to input"),
    ],
)
def test_no_input_folder(tmp_path: Path, files: dict[str, int], message: str) -> None:
    for name, seed in files.items():
        write(tmp_path / name, seed)
    with pytest.raises(UserError, match=f"there is no folder .*input. .*{message}"):
        check_input_folder(tmp_path, tmp_path / "input")


def test_a_film_in_place_of_photos(tmp_path: Path) -> None:
    (tmp_path / "walk.MP4").touch()
    with pytest.raises(UserError, match=r"--video .*walk\.MP4"):
        check_input_folder(tmp_path, tmp_path / "input")
    with pytest.raises(UserError, match="a film and no photos"):
        read_photos(tmp_path, quiet=True)


def test_no_scene_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, what in (("nowhere", "does not exist"), ("file", "is a file")):
        with pytest.raises(UserError, match=f"{name} {what}; -s takes"):
            check_input_folder(tmp_path / name, tmp_path / name / "input")


def test_no_photos(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match="holds no photos"):
        read_photos(tmp_path, quiet=True)


def test_formats_that_colmap_does_not_read(tmp_path: Path) -> None:
    for i in range(2):
        (tmp_path / f"IMG_{i}.HEIC").touch()
    with pytest.raises(UserError, match=r"2 files, all of formats .* IMG_0\.HEIC, IMG_1\.HEIC.*JPEG or PNG"):
        read_photos(tmp_path, quiet=True)
    for i in range(3):
        write(tmp_path / f"{i}.png", i)
    assert chosen(tmp_path)[1] == ["left out, COLMAP does not read them: IMG_0.HEIC, IMG_1.HEIC"]


@pytest.mark.parametrize("count", [1, 2])
def test_too_few(tmp_path: Path, count: int) -> None:
    for i in range(count):
        write(tmp_path / f"{i}.png", i)
    with pytest.raises(UserError, match=f"too few photos in .*: {count}. At least 3"):
        chosen(tmp_path)


def test_all_the_same_picture(tmp_path: Path) -> None:
    for i in range(4):
        write(tmp_path / f"{i}.png")
    with pytest.raises(UserError, match="the 4 photos .* are all the same picture"):
        chosen(tmp_path)


def test_copies_are_left_out_and_named(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / f"{i}.png", i)
    (tmp_path / "1 (copy).png").write_bytes((tmp_path / "1.png").read_bytes())
    photos, messages = chosen(tmp_path)
    assert [photo.name for photo in photos] == ["0.png", "1 (copy).png", "2.png"]
    assert messages == ["1 of 4 photos left out as copies of others: 1.png (= 1 (copy).png)"]
    (tmp_path / "2.png").write_bytes((tmp_path / "1.png").read_bytes())
    with pytest.raises(UserError, match="too few different photos .*: 2"):
        chosen(tmp_path)


def test_names_that_differ_in_their_suffix(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/1.jpg", "b.png"):
        write(tmp_path / name, len(name))
    with pytest.raises(UserError, match=r"'a/1\.jpg' and 'a/1\.png' .* suffix"):
        chosen(tmp_path)


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg", 1)
    (tmp_path / "b.jpg").write_bytes(b"")
    (tmp_path / "c.jpg").write_text("<html>")
    with pytest.raises(UserError, match=r"2 of 3 photos .* damaged or only partly copied: b\.jpg, c\.jpg"):
        read_photos(tmp_path, quiet=True)


def test_a_cut_off_photo_is_named(tmp_path: Path) -> None:
    """Its header is whole, and COLMAP would take it."""
    for i in range(3):
        write(tmp_path / f"{i}.jpg", i, (200, 150))
    check_readable(read_photos(tmp_path, quiet=True), tmp_path, quiet=True)
    whole = (tmp_path / "1.jpg").read_bytes()
    (tmp_path / "1.jpg").write_bytes(whole[: len(whole) // 2])
    photos = read_photos(tmp_path, quiet=True)
    with pytest.raises(UserError, match=r"1 of 3 photos .* damaged or only partly copied: 1\.jpg"):
        check_readable(photos, tmp_path, quiet=True)


@pytest.mark.parametrize(
    ("orientation", "turns", "mirrored"),
    [(1, 0, False), (3, 2, False), (6, 1, False), (8, 3, False)] + [(o, 0, True) for o in (2, 4, 5, 7)],
)
def test_orientation(tmp_path: Path, orientation: int, turns: int, mirrored: bool) -> None:
    for i in range(3):
        write(tmp_path / f"{i}.jpg", i, orientation=orientation if i == 1 else 1)
    photos, messages = chosen(tmp_path)
    assert (photos[1].turns, photos[1].mirrored) == (turns, mirrored)
    assert (photos[1].width, photos[1].height) == (32, 24)
    assert photos[0].turns == photos[2].turns == 0
    if orientation == 1:
        assert messages == []
    else:
        assert len(messages) == 1
        assert messages[0].startswith(
            f"1 of 3 photos {'marked as mirrored' if mirrored else 'stored sideways'}"
        )
        assert messages[0].endswith(": 1.jpg")


def test_alpha_is_told(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / f"{i}.png", i, alpha=i == 2)
    photos, messages = chosen(tmp_path)
    assert [photo.alpha for photo in photos] == [False, False, True]
    assert [message[:35] for message in messages] == ["1 of 3 photos with an alpha channel"]


def test_one_calibration_per_camera_and_focal_length(tmp_path: Path) -> None:
    """EXIF orientation does not make another camera: the sensor is the same."""
    write(tmp_path / "a.jpg", 1, make="X", model="1", focal=4.2)
    write(tmp_path / "b.jpg", 2, make="X", model="1", focal=4.2, orientation=6)
    write(tmp_path / "c.jpg", 3, make="X", model="1", focal=1.5)
    write(tmp_path / "d.jpg", 4, make="X", model="1", focal=4.2, size=(24, 32))
    write(tmp_path / "e.jpg", 5, make="Y", model="1", focal=4.2)
    photos, _ = chosen(tmp_path)
    groups = [[photo.name[0] for photo in group] for group in same_camera(photos)]
    assert groups == [["a", "b"], ["c"], ["d"], ["e"]]


def test_damaged_exif_is_no_exif(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / f"{i}.jpg", i, orientation=6)
    damaged = (tmp_path / "0.jpg").read_bytes().replace(b"Exif\0\0MM\0*", b"Exif\0\0MM\xff\xff")
    (tmp_path / "0.jpg").write_bytes(damaged)
    photos, _ = chosen(tmp_path)
    assert [photo.turns for photo in photos] == [0, 1, 1]


def test_only_the_named_photos_are_read(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg", 1)
    write(tmp_path / "b.jpg", 1)
    (tmp_path / "c.jpg").write_text("not needed, not looked at")
    assert [photo.name for photo in read_photos(tmp_path, ["b.jpg"], quiet=True)] == ["b.jpg"]
    with pytest.raises(UserError, match=r"1 of 2 photos of the model are not in .*: z\.jpg"):
        read_photos(tmp_path, ["b.jpg", "z.jpg"], quiet=True)


def test_photos_without_anything_in_common(tmp_path: Path) -> None:
    for i in range(3):
        blobs = np.random.default_rng(i).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        (tmp_path / "input").mkdir(exist_ok=True)
        Image.fromarray(blobs).resize((240, 160)).save(tmp_path / "input" / f"{i}.png")
    with pytest.raises(UserError, match=r"no two photos show enough of the same things: \d+ features"):
        convert(ConvertConfig(tmp_path, quiet=True), lambda _: None)


def test_pngs_can_be_written_beside_colmap(tmp_path: Path) -> None:
    """COLMAP's library brings a zlib of its own; loaded first, it made Pillow corrupt memory."""
    code = (
        "import feature_gs, pycolmap\n"
        "from PIL import Image\n"
        f"Image.effect_noise((400, 300), 90).save({str(tmp_path / 'a.png')!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, stderr=subprocess.DEVNULL)
    with Image.open(tmp_path / "a.png") as image:
        image.load()


def test_a_scene_without_distortion_is_left_alone(tmp_path: Path) -> None:
    write_colmap_scene(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    for flag, message in (
        (True, "no distortion: .*"),
        (False, "holds images and sparse already.*--overwrite"),
    ):
        with pytest.raises(UserError, match=message):
            convert(ConvertConfig(tmp_path, skip_matching=flag, quiet=True), lambda _: None)
    assert {path: path.stat().st_mtime_ns for path in before} == before
