"""Reads a COLMAP model and finds its photos."""

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pycolmap
import torch
from torch import Tensor

from feature_gs.errors import UserError
from feature_gs.scenes.camera import Camera
from feature_gs.scenes.colmap_files import PARTS, check_model_files, image_names_of_text
from feature_gs.scenes.images import index_images
from feature_gs.scenes.source import Source, check_camera, fit_to_photo, some_of

PINHOLE = {"PINHOLE", "SIMPLE_PINHOLE"}
PINHOLE_WHEN_UNDISTORTED = {"SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV"}


def find_colmap_model(source_path: Path) -> Path | None:
    """The folder of the COLMAP model of a scene (`sparse/0`, else `sparse`), or None."""
    for folder in (source_path / "sparse" / "0", source_path / "sparse"):
        if any((folder / (part + suffix)).is_file() for part in PARTS for suffix in (".bin", ".txt")):
            return folder
    return None


def read_colmap(source_path: Path, model: Path, images: str) -> Source:
    """Reads cameras, poses and points from `model`, and matches the photos in `source_path / images`.

    Photos the model does not know are left out, as are images of the model without a photo, both with a
    message; points that are not finite are dropped.

    Raises:
        UserError: If the model is damaged, distorted or empty, or no photo matches.
    """
    reconstruction, names = read_model(model)
    for camera in reconstruction.cameras.values():
        _check_undistorted(camera, source_path, model)
    with _told_as_damaged(model):
        cameras = [_camera(image, names[i]) for i, image in reconstruction.images.items() if image.has_pose]
    if not cameras:
        raise UserError(f"the COLMAP model in {model} has no image with a pose; did the reconstruction fail?")
    cameras.sort(key=lambda camera: camera.name)
    origin = min(model.glob("images.*"))
    for camera in cameras:
        check_camera(camera, origin)
    check_names([camera.name for camera in cameras], origin)

    messages: list[str] = []
    paths = _match_photos([camera.name for camera in cameras], source_path, images, messages)
    cameras = [fit_to_photo(c, paths[c.name]) if c.name in paths else c for c in cameras]
    points, colors = _points(reconstruction, messages)
    if model.name == "0" and (model.parent / "1").is_dir():
        messages.append(f"{model.parent} holds several models; only {model} is used")
    return Source(cameras, paths, points, colors, messages=messages)


def read_model(folder: Path) -> tuple[Any, dict[int, str]]:
    """Reads a COLMAP model as it is.

    Returns:
        pycolmap's Reconstruction, and the names of its images by id in composed Unicode.

    Raises:
        UserError: If the model is incomplete or damaged.
    """
    suffix = check_model_files(folder)
    reconstruction = pycolmap.Reconstruction()
    with _told_as_damaged(folder):
        if suffix == ".bin":
            reconstruction.read_binary(str(folder))
            names = {i: image.name for i, image in reconstruction.images.items()}
        else:
            reconstruction.read_text(str(folder))
            names = image_names_of_text(folder / "images.txt")
    return reconstruction, {i: unicodedata.normalize("NFC", name) for i, name in names.items()}


@contextmanager
def _told_as_damaged(model: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # pycolmap lets through whatever C++ threw
        raise UserError(
            f"the COLMAP model in {model} is damaged: {' '.join(str(error).split())}. "
            "Copy it again, or estimate the cameras again."
        ) from None


def is_pinhole(camera: Any) -> bool:
    """Whether a camera of pycolmap's leaves straight lines straight."""
    if camera.model_name in PINHOLE:
        return True
    distortion = np.asarray(camera.params)[camera.extra_params_idxs()]
    return camera.model_name in PINHOLE_WHEN_UNDISTORTED and not distortion.any()


def _check_undistorted(camera: Any, source_path: Path, model: Path) -> None:
    if is_pinhole(camera):
        return
    scene = source_path.parent if source_path.name == "distorted" else source_path
    raise UserError(
        f"camera {camera.camera_id} in {model} is of model {camera.model_name}, which bends straight lines; "
        "only PINHOLE and SIMPLE_PINHOLE can be rendered. Undistort the photos first: "
        f'python convert.py -s "{scene}" --skip_matching'
    )


def _camera(image: Any, name: str) -> Camera:
    rigid = image.cam_from_world()
    pose = np.eye(4)
    pose[:3] = rigid.matrix()
    if not rigid.rotation.quat.any():  # which pycolmap would take for no rotation at all
        pose[:] = np.nan
    return Camera(
        name,
        image.camera.width,
        image.camera.height,
        torch.tensor(image.camera.calibration_matrix(), dtype=torch.float32),
        torch.tensor(pose, dtype=torch.float32),
    )


def check_names(names: list[str], origin: Path) -> None:
    """Checks that image names are paths below a folder, and still differ without their suffixes.

    Raises:
        UserError: If not; names the image and `origin`, the file the name came from.
    """
    by_stem: dict[str, str] = {}
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.name:
            raise UserError(f"{origin} names the image {name!r}, which is no path below the folder of images")
        stem = path.with_suffix("").as_posix()
        if stem in by_stem:
            raise UserError(
                f"{origin} holds two images that differ by no more than their suffix, {by_stem[stem]!r} and "
                f"{name!r}: what is made of them would overwrite each other; rename one"
            )
        by_stem[stem] = name


def _match_photos(names: list[str], source_path: Path, images: str, messages: list[str]) -> dict[str, Path]:
    folder = source_path / images
    found = index_images(folder) if folder.is_dir() else {}
    missing = sorted(name for name in names if name not in found)
    if len(missing) == len(names):
        what = f"holds {len(found)} other images" if found else "holds no images"
        what = what if folder.is_dir() else "does not exist"
        raise UserError(
            f"none of the {len(names)} images of the COLMAP model was found: {folder} {what}; expected "
            f"{some_of(missing)}. Put the photos there, or name their folder with -i"
        )
    if missing:
        messages.append(
            f"{len(missing)} of {len(names)} images of the model are not in {folder} and are left out: "
            f"{some_of(missing)}"
        )
    extra = sorted(found.keys() - set(names))
    if extra:
        messages.append(f"{len(extra)} images in {folder} have no camera and are not used: {some_of(extra)}")
    return {name: found[name] for name in names if name in found}


def _points(reconstruction: Any, messages: list[str]) -> tuple[Tensor, Tensor]:
    points = list(reconstruction.points3D.values())
    xyz = np.array([point.xyz for point in points], dtype=np.float32).reshape(-1, 3)
    colors = np.array([point.color for point in points], dtype=np.uint8).reshape(-1, 3)
    finite = np.isfinite(xyz).all(axis=1)
    if not finite.all():
        messages.append(f"{(~finite).sum()} points of the model are not finite and are left out")
    return torch.from_numpy(xyz[finite]), torch.from_numpy(colors[finite])
