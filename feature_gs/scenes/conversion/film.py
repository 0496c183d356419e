"""Photos from a film: a few a second, each the sharpest of its moment, and blurred ones dropped."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from feature_gs.errors import UserError

_NEIGHBOURS = 4  # photos before and after that a photo's sharpness is compared with
_BLURRED = 0.5  # of their median
_SIZE = 800  # longer side in pixels at which sharpness is measured
_QUALITY = 95  # of the JPEGs


@dataclass(frozen=True)
class Frames:
    """What was taken from a film.

    Attributes:
        seen: Frames of the film.
        kept: Photos written.
        blurred: Photos dropped, because they were much less sharp than their neighbours.
        seconds: Length of the film.
    """

    seen: int
    kept: int
    blurred: int
    seconds: float


def take_frames(film: Path, fps: float, folder: Path, *, quiet: bool = False) -> Frames:
    """Writes photos of a film to `folder`, as frame_000000.jpg, frame_000001.jpg and so on.

    The film is cut into moments of 1/fps seconds, and of each the sharpest frame is taken. Those that are
    less than half as sharp as the median of the four before and the four after are dropped; their numbers
    stay free. The film's own rotation is applied.

    Args:
        film: Any film that ffmpeg reads.
        fps: Photos per second; where the film has fewer frames, all of them are taken.
        folder: An empty folder.
        quiet: Show no progress bar.

    Raises:
        UserError: The file is no film.
    """
    sharpness: dict[int, float] = {}
    best: tuple[int, np.ndarray] | None = None
    seen, seconds = 0, 0.0
    for seconds, frame in _frames(film, quiet):
        seen += 1
        moment = int(seconds * fps + 1e-6)
        sharp = measure_sharpness(frame)
        if best is not None and best[0] != moment:
            _write(folder, *best)
        if moment not in sharpness or sharp > sharpness[moment]:
            sharpness[moment], best = sharp, (moment, frame)
    if best is None:
        raise UserError(f"--video {film}: no frame of it can be read. Is it a film, and whole?")
    _write(folder, *best)
    blurred = find_blurred(np.array(list(sharpness.values())))
    for moment in np.array(list(sharpness))[blurred]:
        _path(folder, moment).unlink()
    return Frames(seen, len(sharpness) - int(blurred.sum()), int(blurred.sum()), seconds)


def measure_sharpness(frame: np.ndarray) -> float:  # [H, W, 3]
    """Variance of the Laplacian of the grey picture; comparable only between pictures of the same things.

    Args:
        frame: BGR picture. [H, W, 3] uint8
    """
    grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    scale = _SIZE / max(grey.shape)
    if scale < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(grey, cv2.CV_32F).var())


def find_blurred(sharpness: np.ndarray) -> np.ndarray:  # [n] -> [n]
    """Which pictures of a sequence are much less sharp than those before and after them.

    Args:
        sharpness: Of each picture. [n]

    Returns:
        [n] bool
    """
    blurred = np.zeros(len(sharpness), dtype=bool)
    for i in range(len(sharpness)):
        around = np.r_[sharpness[max(0, i - _NEIGHBOURS) : i], sharpness[i + 1 : i + 1 + _NEIGHBOURS]]
        blurred[i] = len(around) > 0 and sharpness[i] < _BLURRED * np.median(around)
    return blurred


def _frames(film: Path, quiet: bool) -> Iterator[tuple[float, np.ndarray]]:
    """Seconds from the beginning, and the frame. [H, W, 3] uint8 BGR"""
    capture = cv2.VideoCapture(str(film), cv2.CAP_FFMPEG)
    try:
        total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        step = 1.0 / (capture.get(cv2.CAP_PROP_FPS) or 30.0)
        seconds = -step
        with tqdm(None, "film", max(total, 0) or None, unit="frame", ncols=80, disable=quiet) as bar:
            while True:
                whole, frame = capture.read()
                if not whole:
                    return
                stamp = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000.0
                seconds = stamp if stamp > seconds else seconds + step  # some films have no stamps
                bar.update()
                yield max(seconds, 0.0), frame
    finally:
        capture.release()


def _path(folder: Path, moment: int) -> Path:
    return folder / f"frame_{moment:06d}.jpg"


def _write(folder: Path, moment: int, frame: np.ndarray) -> None:  # [H, W, 3]
    Image.fromarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)).save(_path(folder, moment), quality=_QUALITY)
