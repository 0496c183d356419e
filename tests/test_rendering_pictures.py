"""Colour maps, picture files, strips and videos."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
import torch

from feature_gs.errors import UserError
from feature_gs.rasterizer import RenderOutput
from feature_gs.rendering.colormap import DepthRange, Picture, depth_colors, error_colors
from feature_gs.rendering.pictures import depth_scale_for, depth_to_uint16, save_picture, to_uint8
from feature_gs.rendering.strip import FEATURE_CAPTIONS, VIEW_CAPTIONS, picture_strip, view_row
from feature_gs.rendering.video import write_video


def test_depth_range_ignores_outliers_and_what_is_not_there() -> None:
    depth = torch.full((100, 100), 3.0)
    depth[:50] = 2.0
    depth[0, 0], depth[0, 1], depth[99, 99] = 1e6, float("nan"), 1e-3
    depth[10] = 70.0
    alpha = torch.ones(100, 100)
    alpha[10] = 0.2
    assert DepthRange.of([(depth, alpha)]) == DepthRange(2.0, 3.0)


def test_depth_range_of_nothing_and_of_a_plane_is_usable() -> None:
    nothing = DepthRange.of([(torch.zeros(4, 4), torch.zeros(4, 4))])
    plane = DepthRange.of([(torch.full((4, 4), 5.0), torch.ones(4, 4))])
    for depth_range in (nothing, plane, DepthRange.of([])):
        assert 0 < depth_range.near < depth_range.far


def test_depth_colors_are_monotone_warm_to_cold_and_black_where_nothing_is() -> None:
    depth = torch.tensor([[0.5, 1.0, 2.0, 4.0, 9.0, 0.0]])
    alpha = torch.tensor([[1.0, 1.0, 1.0, 1.0, 1.0, 0.0]])
    picture = depth_colors(depth, alpha, DepthRange(1.0, 4.0))
    assert picture.shape == (1, 6, 3) and picture.dtype == np.uint8
    assert picture[0, 5].tolist() == [0, 0, 0]
    assert picture[0, 0].tolist() == picture[0, 1].tolist()  # nearer than near
    assert picture[0, 3].tolist() == picture[0, 4].tolist()  # farther than far
    near, far = picture[0, 1].astype(int), picture[0, 3].astype(int)
    assert near[0] > near[2] and far[2] > far[0] - 30 and near[0] > far[0]


def test_half_transparent_is_half_as_bright() -> None:
    depth, depth_range = torch.full((1, 1), 2.0), DepthRange(1.0, 4.0)
    full = depth_colors(depth, torch.ones(1, 1), depth_range).astype(int)
    half = depth_colors(depth, torch.full((1, 1), 0.5), depth_range).astype(int)
    assert np.abs(full - 2 * half).max() <= 1


def test_error_colors_grow_with_the_error_and_start_black() -> None:
    target = torch.zeros(1, 4, 3)
    image = torch.tensor([0.0, 0.05, 0.2, 0.25])[None, :, None].expand(1, 4, 3)
    brightness = error_colors(image, target).astype(int).sum(-1)[0]
    assert brightness[0] < 10
    assert (np.diff(brightness) > 0).all()
    assert np.array_equal(
        error_colors(torch.ones(1, 1, 3), torch.zeros(1, 1, 3))[0, 0], error_colors(image, target)[0, 3]
    )


def test_bytes_are_rounded_and_clamped() -> None:
    assert to_uint8(torch.tensor([-1.0, 0.0, 0.499 / 255, 0.501 / 255, 1.0, 7.0])).tolist() == [
        0,
        0,
        0,
        1,
        255,
        255,
    ]


def test_depth_in_16_bits() -> None:
    """0 only where nothing is; too far saturates; in between the error is at most half a step."""
    depth = torch.tensor([[0.0, 1e-6, 1.23456, 9.0, 9.0]])
    alpha = torch.tensor([[0.0, 1.0, 0.4, 1.0, 0.001]])
    stored = depth_to_uint16(depth, alpha, 1e-4)
    assert stored.dtype == np.uint16
    assert stored.tolist() == [[0, 1, 12346, 65535, 0]]


@pytest.mark.parametrize("far", [1e-3, 0.9, 6.5535, 6.56, 13.2, 250.0, 8e6])
def test_depth_scale_reaches_far_and_is_readable(far: float) -> None:
    scale = depth_scale_for(far)
    assert far <= 65535 * scale * (1 + 1e-9) <= 2.6 * far
    assert f"{scale:.0e}"[0] in "125" and float(f"{scale:.0e}") == scale


def test_pictures_come_back_from_disk(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    color = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    deep = rng.integers(0, 65536, (5, 7), dtype=np.uint16)
    save_picture(tmp_path / "sub" / "color.png", color)
    save_picture(tmp_path / "deep.png", deep)
    stored = cv2.imread(str(tmp_path / "sub" / "color.png"))
    assert stored is not None and np.array_equal(stored[..., ::-1], color)
    stored = cv2.imread(str(tmp_path / "deep.png"), cv2.IMREAD_UNCHANGED)
    assert stored is not None and np.array_equal(stored, deep)
    assert sorted(file.name for file in tmp_path.rglob("*.*")) == ["color.png", "deep.png"]


def test_strip_keeps_pictures_in_place() -> None:
    red, blue = np.zeros((20, 30, 3), np.uint8), np.zeros((20, 30, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    strip = picture_strip([[red, blue], [blue, red]], ("one", "two"))
    height, width = strip.shape[:2]
    assert width == 2 * 30 + 3 * 6
    columns = (6 + 15, 6 + 30 + 6 + 15)
    assert strip[height - 16, columns[0]].tolist() == [0, 0, 255]
    assert strip[height - 16, columns[1]].tolist() == [255, 0, 0]
    assert strip[height - 16 - 26, columns[0]].tolist() == [255, 0, 0]
    assert (strip[:18] < 200).any(), "no caption"


def test_strip_shrinks_wide_pictures_and_refuses_ragged_rows() -> None:
    wide = np.zeros((100, 1000, 3), np.uint8)
    strip = picture_strip([[wide, wide, wide]], ("a", "b", "c"), width=800)
    assert 780 <= strip.shape[1] <= 800
    with pytest.raises(ValueError, match="3 pictures"):
        picture_strip([[wide, wide]], ("a", "b", "c"))
    with pytest.raises(ValueError, match="2 pictures"):
        picture_strip([], ("a", "b"))


def frames(count: int, height: int, width: int) -> Iterator[Picture]:
    for index in range(count):
        yield np.full((height, width, 3), 20 * index, np.uint8)


def read_back(path: Path) -> tuple[list[int], tuple[int, int]]:
    reader = imageio_ffmpeg.read_frames(str(path))
    width, height = next(reader)["size"]
    return [round(float(np.frombuffer(data, np.uint8).mean())) for data in reader], (width, height)


@pytest.mark.parametrize(("height", "width"), [(48, 64), (33, 65), (32, 51)])
def test_video_has_every_frame_in_order_and_an_even_size(tmp_path: Path, height: int, width: int) -> None:
    path = tmp_path / "video.mp4"
    assert write_video(path, frames(11, height, width), fps=10) == 11
    brightness, size = read_back(path)
    assert size == (width + width % 2, height + height % 2)
    np.testing.assert_allclose(brightness, [20 * index for index in range(11)], atol=3)
    assert [file.name for file in tmp_path.iterdir()] == ["video.mp4"]


def test_failed_video_leaves_the_previous_one(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    write_video(path, frames(3, 16, 16))
    before = path.read_bytes()

    def broken() -> Iterator[Picture]:
        yield from frames(2, 16, 16)
        yield np.zeros((16, 18, 3), np.uint8)

    with pytest.raises(ValueError, match="frame 2"):
        write_video(path, broken())
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["video.mp4"]
    with pytest.raises(ValueError, match="no frames"):
        write_video(path, iter([]))


def test_missing_ffmpeg_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> str:
        raise RuntimeError("No ffmpeg exe could be found")

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", absent)
    with pytest.raises(UserError, match=r"pip install imageio\[ffmpeg\]"):
        write_video(tmp_path / "video.mp4", frames(1, 8, 8))


def test_features_take_the_place_of_the_error_in_a_row() -> None:
    ones = torch.ones(1, 4, 5)
    output = RenderOutput(
        color=torch.zeros(1, 4, 5, 3),
        alpha=ones,
        depth=ones,
        median_depth=ones,
        features=None,
        radii=torch.zeros(1, 0, dtype=torch.int32),
        means2d=torch.zeros(1, 0, 2),
        absgrad=None,
    )
    photo, depths = torch.full((4, 5, 3), 9, dtype=torch.uint8), DepthRange(1.0, 2.0)
    features = np.full((4, 5, 3), 77, np.uint8)
    row = view_row(photo, output, depths, features)
    assert len(row) == len(FEATURE_CAPTIONS) == len(VIEW_CAPTIONS) and row[3] is features
    plain = view_row(photo, output, depths)
    assert all(np.array_equal(a, b) for a, b in zip(row[:3], plain[:3], strict=True))
    assert not np.array_equal(plain[3], features)
