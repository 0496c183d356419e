"""Scene and View, and the one function that loads them from a folder of any known format."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from feature_gs.errors import UserError
from feature_gs.scenes.blender import read_blender
from feature_gs.scenes.camera import Camera
from feature_gs.scenes.colmap import find_colmap_model, read_colmap
from feature_gs.scenes.images import load_image
from feature_gs.scenes.points import random_points_in_frustums
from feature_gs.scenes.source import Source, some_of

MAX_DEFAULT_WIDTH = 1600


@dataclass(frozen=True, eq=False)
class View:
    """A photo and the camera that took it.

    Attributes:
        camera: The camera, at the size to train and render at.
        image_path: The photo's file, of any size with the camera's proportions.
        white_background: Blend transparency onto white instead of black.
    """

    camera: Camera
    image_path: Path
    white_background: bool = False

    def load(self) -> Tensor:
        """Reads the photo from disk at the camera's size: uint8 tensor [H, W, 3].

        Raises:
            UserError: If the file cannot be read.
        """
        return load_image(self.image_path, self.camera.width, self.camera.height, self.white_background)


@dataclass
class Scene:
    """All that training starts from.

    Attributes:
        name: Name of the source folder.
        source_path: The source folder.
        train: Views to train on, sorted by name.
        test: Held-out views, sorted by name; may be empty.
        points: Points to start from, float32, never empty.
        point_colors: Their colours, uint8.
        extent: 1.1 x the largest distance of a training camera to the mean of all of them.
        messages: What the user should be told.
    """

    name: str
    source_path: Path
    train: list[View]
    test: list[View]
    points: Tensor  # [P, 3]
    point_colors: Tensor  # [P, 3]
    extent: float
    messages: list[str] = field(default_factory=list)


def load_scene(
    source_path: Path,
    *,
    images: str = "images",
    resolution: float = -1,
    eval: bool = False,
    white_background: bool = False,
    test_every: int = 8,
) -> Scene:
    """Loads a COLMAP folder (`sparse/0` and photos) or a Blender folder (`transforms_train.json`).

    Photos are not decoded here, only their sizes are read.

    Args:
        source_path: The scene's folder.
        images: Folder of the photos inside it (COLMAP only).
        resolution: 1, 2, 4 or 8 divide the photos' size; -1 keeps it up to 1600 pixels of width; any other
            positive number is the width in pixels.
        eval: Hold out test views: those of `transforms_test.json` (Blender), else those listed in `test.txt`
            if the folder has one, else every `test_every`-th by name.
        white_background: Blend transparent photos onto white instead of black.
        test_every: Distance between test views in the order of names.

    Raises:
        UserError: If the folder cannot be loaded; says why and what mends it.
    """
    source_path = Path(source_path)
    source = _read(source_path, images)
    messages = source.messages
    cameras = sorted(source.cameras, key=lambda camera: camera.name)
    test_names = _test_names(source_path, source, cameras, test_every) if eval else set()

    views = []
    for camera in cameras:
        if camera.name in source.paths:
            size = target_size(camera.width, camera.height, resolution)
            views.append(View(camera.resized(*size), source.paths[camera.name], white_background))
    train = [view for view in views if view.camera.name not in test_names]
    test = [view for view in views if view.camera.name in test_names]
    if not train:
        raise UserError(
            f"no view of {source_path} is left to train on: {len(test)} of {len(views)} are test views. "
            "Leave out --eval, or list fewer names in test.txt."
        )
    if resolution == -1 and any(camera.width > MAX_DEFAULT_WIDTH for camera in cameras):
        messages.append(
            f"photos are scaled down to a width of {MAX_DEFAULT_WIDTH} pixels; -r 1 keeps their size"
        )

    points, colors = source.points, source.point_colors
    if len(points) == 0:
        points, colors = random_points_in_frustums([view.camera for view in train])
        messages.append(f"no points: started from {len(points):,} random points in the cameras' frustums")
    extent = _extent([view.camera for view in train], points)
    return Scene(source_path.resolve().name, source_path, train, test, points, colors, extent, messages)


def target_size(width: int, height: int, resolution: float) -> tuple[int, int]:
    """Width and height to train at, for a photo of `width` x `height` pixels and the flag `-r`.

    Raises:
        UserError: If the flag's value has no meaning.
    """
    if resolution == 0:
        raise UserError(
            "-r 0 means the grid of the teacher's maps and needs a teacher (-f); give -r 1, 2, 4 or 8"
        )
    if resolution in (1, 2, 4, 8):
        return max(1, round(width / resolution)), max(1, round(height / resolution))
    if resolution == -1:
        resolution = min(width, MAX_DEFAULT_WIDTH)
    target = int(resolution) if 1 <= resolution <= 65536 else 0
    if target != resolution:
        raise UserError(
            f"-r {resolution:g} is no resolution: expected 1, 2, 4 or 8 (divide the size), -1 (at most "
            f"{MAX_DEFAULT_WIDTH} pixels wide) or a width in whole pixels"
        )
    return target, max(1, height * target // width)


def _read(source_path: Path, images: str) -> Source:
    if not source_path.is_dir():
        kind = "is a file" if source_path.exists() else "does not exist"
        raise UserError(f"{source_path} {kind}; -s takes the folder of a scene")
    model = find_colmap_model(source_path)
    if model is not None:
        return read_colmap(source_path, model, images)
    if (source_path / "transforms_train.json").is_file():
        return read_blender(source_path)
    what = "is empty" if not any(source_path.iterdir()) else "holds no scene that can be read"
    raise UserError(
        f"{source_path} {what}: expected a COLMAP model (sparse/0/cameras.bin or .txt, images, points3D) or "
        f"transforms_train.json. From photos in {source_path / 'input'} a model is made by: "
        f'python convert.py -s "{source_path}"'
    )


def _test_names(source_path: Path, source: Source, cameras: list[Camera], test_every: int) -> set[str]:
    if source.test_names is not None:
        return source.test_names
    names = [camera.name for camera in cameras]
    listing = source_path / "test.txt"
    if not listing.is_file():
        return set(names[::test_every])
    listed = {line.strip() for line in listing.read_text(encoding="utf-8-sig").splitlines()} - {""}
    unknown = sorted(listed - set(names))
    if unknown:
        raise UserError(
            f"{listing} names images that the scene lacks: {some_of(unknown)}; it has e.g. {names[0]}"
        )
    return listed


def _extent(cameras: list[Camera], points: Tensor) -> float:  # points [P, 3]
    centers = torch.stack([camera.center for camera in cameras])
    radius = (centers - centers.mean(dim=0)).norm(dim=1).max().item()
    if radius < 1e-6:  # one camera, or all in one place: what they look at gives the scale
        radius = (points - centers[0]).norm(dim=1).median().item()
    return 1.1 * radius
