"""Is a COLMAP model on disk whole? Asked before pycolmap reads it.

pycolmap trusts the counts in binary files: on a truncated one it returns cameras full of leftover memory,
asks for terabytes, or never comes back.
"""

import struct
from pathlib import Path

import pycolmap

from feature_gs.errors import UserError

PARTS = ("cameras", "images", "points3D")


def check_model_files(folder: Path) -> str:
    """Walks through a model's files without building it.

    Args:
        folder: The folder with cameras, images and points3D, all `.bin` or all `.txt`; binary is preferred,
            as pycolmap does.

    Returns:
        The suffix of the files that were checked, ".bin" or ".txt".

    Raises:
        UserError: If a file is missing, ends too early, or names a camera model that does not exist.
    """
    for suffix in (".bin", ".txt"):
        missing = [part + suffix for part in PARTS if not (folder / (part + suffix)).is_file()]
        if not missing:
            break
        if len(missing) < len(PARTS):
            other = ".txt" if suffix == ".bin" else ".bin"
            if not all((folder / (part + other)).is_file() for part in PARTS):
                raise UserError(f"the COLMAP model in {folder} is incomplete: {', '.join(missing)} missing")
    if suffix == ".txt":
        _check_model_names(folder / "cameras.txt")
        return suffix
    walks = {
        "cameras.bin": _walk_cameras,
        "images.bin": _walk_images,
        "points3D.bin": _walk_points,
        "rigs.bin": _walk_rigs,
        "frames.bin": _walk_frames,
    }
    for name, walk in walks.items():
        path = folder / name
        if path.is_file():
            data = path.read_bytes()
            try:
                walk(data, path)
            except (struct.error, EOFError):
                raise UserError(
                    f"{path} is truncated: it has {len(data):,} bytes, fewer than its own counts ask for. "
                    "Copy it again, or estimate the cameras again."
                ) from None
    return suffix


def image_names_of_text(path: Path) -> dict[int, str]:
    """Image names by id from a sound `images.txt`; pycolmap would end them at the first space."""
    names = {}
    lines = iter(path.read_text(encoding="utf-8").split("\n"))
    for line in lines:
        words = line.strip().split(maxsplit=9)
        if words and not words[0].startswith("#"):
            names[int(words[0])] = words[9]
            next(lines, None)  # the image's observations
    return names


def _skip(data: bytes, offset: int) -> int:
    if offset > len(data):
        raise EOFError
    return offset


def _walk_cameras(data: bytes, path: Path) -> None:
    (count,) = struct.unpack_from("<Q", data, 0)
    offset = 8
    for _ in range(count):
        camera_id, model = struct.unpack_from("<Ii", data, offset)
        try:
            camera = pycolmap.Camera.create_from_model_id(camera_id, pycolmap.CameraModelId(model), 1.0, 1, 1)
        except ValueError:
            raise UserError(f"camera {camera_id} in {path} is of an unknown model (number {model})") from None
        offset = _skip(data, offset + 24 + 8 * len(camera.params))


def _walk_images(data: bytes, path: Path) -> None:
    (count,) = struct.unpack_from("<Q", data, 0)
    offset = 8
    for _ in range(count):
        name_end = data.find(b"\0", offset + 64)
        if name_end < 0:
            raise EOFError
        name = data[offset + 64 : name_end]
        try:
            name.decode("utf-8")
        except UnicodeDecodeError:
            raise UserError(f"{path} holds an image name that is not UTF-8: {name!r}; rename it") from None
        (observations,) = struct.unpack_from("<Q", data, name_end + 1)
        offset = _skip(data, name_end + 9 + 24 * observations)


def _walk_points(data: bytes, path: Path) -> None:
    (count,) = struct.unpack_from("<Q", data, 0)
    track_length = struct.Struct("<Q")
    offset = 8
    for _ in range(count):
        offset = _skip(data, offset + 51 + 8 * track_length.unpack_from(data, offset + 43)[0])


def _walk_rigs(data: bytes, path: Path) -> None:
    (count,) = struct.unpack_from("<Q", data, 0)
    offset = 8
    for _ in range(count):
        _, sensors = struct.unpack_from("<II", data, offset)
        offset += 8 + 8 * min(sensors, 1)
        for _ in range(sensors - 1):
            (has_pose,) = struct.unpack_from("<B", data, offset + 8)
            offset = _skip(data, offset + 9 + 56 * min(has_pose, 1))
        _skip(data, offset)


def _walk_frames(data: bytes, path: Path) -> None:
    (count,) = struct.unpack_from("<Q", data, 0)
    offset = 8
    for _ in range(count):
        (sensors,) = struct.unpack_from("<I", data, offset + 64)
        offset = _skip(data, offset + 68 + 16 * sensors)


def _check_model_names(path: Path) -> None:
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split()
        if (
            len(words) >= 2
            and not words[0].startswith("#")
            and words[1] not in pycolmap.CameraModelId.__members__
        ):
            raise UserError(f"camera {words[0]} in {path} is of an unknown model, {words[1]!r}")
