"""Pictures to an mp4 that every player opens (H.264, yuv420p)."""

from collections.abc import Generator, Iterable
from pathlib import Path

import numpy as np

from feature_gs.errors import UserError
from feature_gs.files import atomic_write
from feature_gs.rendering.colormap import Picture


def write_video(path: Path, frames: Iterable[Picture], *, fps: float = 30) -> int:
    """Writes frames as they come; none is kept.

    H.264 in yuv420p needs even sizes: an odd width or height is padded by repeating the last column or row.

    Args:
        path: The file, ending in .mp4; it appears whole or not at all.
        frames: RGB pictures of one size. [H, W, 3] uint8
        fps: Frames per second.

    Returns:
        The number of frames written.

    Raises:
        UserError: No ffmpeg on this machine, or ffmpeg failed.
        ValueError: No frame, or a frame of another size.
    """
    check_ffmpeg()
    import imageio_ffmpeg

    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise ValueError(f"no frames for {path}")
    height, width = first.shape[:2]
    with atomic_write(path) as temporary:
        writer = imageio_ffmpeg.write_frames(
            str(temporary),
            (width + width % 2, height + height % 2),
            fps=fps,
            codec="libx264",
            quality=None,
            macro_block_size=1,
            ffmpeg_log_level="error",
            output_params=["-crf", "18", "-movflags", "+faststart"],
        )
        writer.send(None)
        count = 0
        try:
            for frame in _chain(first, iterator):
                if frame.shape != first.shape:
                    raise ValueError(f"frame {count} is {frame.shape}, the first one {first.shape}")
                _send(writer, _even(frame), path)
                count += 1
        finally:
            writer.close()
    return count


def check_ffmpeg() -> None:
    """Raises a UserError when there is no ffmpeg to write videos with; call it before expensive work."""
    try:
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise UserError(
            "A video needs ffmpeg, and none was found.\n"
            "  Mend it with `pip install imageio[ffmpeg]`, or set IMAGEIO_FFMPEG_EXE to an ffmpeg program."
        ) from error


def _send(writer: Generator[None, Picture | None, None], frame: Picture, path: Path) -> None:
    try:
        writer.send(np.ascontiguousarray(frame))
    except OSError as error:
        raise UserError(f"ffmpeg could not write {path}: {error}") from error


def _chain(first: Picture, rest: Iterable[Picture]) -> Iterable[Picture]:
    yield first
    yield from rest


def _even(frame: Picture) -> Picture:
    bottom, right = frame.shape[0] % 2, frame.shape[1] % 2
    return np.pad(frame, ((0, bottom), (0, right), (0, 0)), mode="edge") if bottom or right else frame
