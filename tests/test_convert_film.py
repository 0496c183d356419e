"""Photos from a film: how many, which frame of each moment, and which are dropped as blurred."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from feature_gs.errors import UserError
from feature_gs.rendering.video import write_video
from feature_gs.scenes.conversion.film import find_blurred, measure_sharpness, take_frames

RATE = 20  # frames per second of the films


def write_film(path: Path, sharpness: list[float]) -> None:
    """One frame per entry: noise, blurred by so many pixels. A patch of grey tells its number."""
    frames = []
    for i, sigma in enumerate(sharpness):
        coarse = np.random.default_rng(i).integers(0, 256, (24, 32), dtype=np.uint8)
        grey = cv2.resize(coarse, (160, 120), interpolation=cv2.INTER_NEAREST)
        grey = cv2.GaussianBlur(grey, (0, 0), sigma) if sigma else grey
        grey[:24, :32] = 4 * i + 20
        frames.append(np.repeat(grey[..., None], 3, axis=2).astype(np.uint8))
    write_video(path, iter(frames), fps=RATE)


def number(path: Path) -> int:
    return round((float(np.asarray(Image.open(path))[4:20, 4:28].mean()) - 20) / 4)


def test_of_each_moment_the_sharpest_frame(tmp_path: Path) -> None:
    sharpness = [1.0] * 30  # 1.5 s
    for i in (3, 17, 20):
        sharpness[i] = 0.0
    write_film(tmp_path / "film.mp4", sharpness)
    (tmp_path / "out").mkdir()
    frames = take_frames(tmp_path / "film.mp4", 2, tmp_path / "out", quiet=True)
    assert (frames.seen, frames.kept, frames.blurred) == (30, 3, 0)
    files = sorted((tmp_path / "out").iterdir())
    assert [file.name for file in files] == ["frame_000000.jpg", "frame_000001.jpg", "frame_000002.jpg"]
    assert [number(file) for file in files] == [3, 17, 20]


def test_blurred_moments_are_dropped_and_their_numbers_stay_free(tmp_path: Path) -> None:
    sharpness = [0.5 if 20 <= i < 25 else 0.0 for i in range(50)]
    sharpness[20:25] = [4.0] * 5  # the fifth moment of ten
    write_film(tmp_path / "film.mp4", sharpness)
    (tmp_path / "out").mkdir()
    frames = take_frames(tmp_path / "film.mp4", 4, tmp_path / "out", quiet=True)
    assert (frames.seen, frames.kept, frames.blurred) == (50, 9, 1)
    assert not (tmp_path / "out" / "frame_000004.jpg").exists()
    assert len(list((tmp_path / "out").iterdir())) == 9


def test_more_photos_than_frames_takes_every_frame(tmp_path: Path) -> None:
    write_film(tmp_path / "film.mp4", [0.0] * 6)
    (tmp_path / "out").mkdir()
    assert take_frames(tmp_path / "film.mp4", 1000, tmp_path / "out", quiet=True).kept == 6


def test_what_is_no_film(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_text("nothing to see")
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match=r"film\.mp4: no frame of it can be read"):
        take_frames(tmp_path / "film.mp4", 2, tmp_path / "out", quiet=True)


def test_sharpness_falls_with_blur() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    values = [measure_sharpness(cv2.GaussianBlur(frame, (0, 0), s) if s else frame) for s in (0, 0.7, 1.5, 3)]
    assert values == sorted(values, reverse=True)
    assert measure_sharpness(np.full_like(frame, 80)) == 0


def test_blurred_is_relative_to_the_neighbours() -> None:
    """A dim stretch of a film is not blurred, one bad picture in it is."""
    sharpness = np.r_[np.full(10, 100.0), np.full(10, 20.0)]
    assert not find_blurred(sharpness[:10]).any()
    sharpness[3], sharpness[15] = 40.0, 8.0
    blurred = find_blurred(sharpness)
    assert blurred[[3, 15]].all()
    assert not blurred[np.r_[0:3, 4:8, 14, 16:20]].any()
    assert find_blurred(np.array([5.0])).tolist() == [False]
