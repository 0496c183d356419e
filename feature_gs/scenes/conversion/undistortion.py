"""Photos and model without lens distortion, and upright.

A pinhole camera turned by a quarter is a pinhole camera again: its axes change places. So photos that lie on
their side, as EXIF says, are set upright here, after COLMAP has seen them as the sensor did, with one
calibration for all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from feature_gs.errors import UserError
from feature_gs.scenes.conversion.models import Model
from feature_gs.scenes.conversion.photos import Photo
from feature_gs.scenes.conversion.pictures import Picture, read_picture, write_picture
from feature_gs.scenes.conversion.progress import for_each

_OPTIONS = pycolmap.UndistortCameraOptions()


@dataclass(frozen=True)
class _Pinhole:
    """A camera without distortion, upright.

    Attributes:
        distorted: The camera it was before.
        flat: Without distortion, still as the sensor lay.
        turns: Clockwise quarter turns from there to upright.
        camera: The result.
    """

    distorted: Any
    flat: Any
    turns: int
    camera: Any

    def points(self, image: Any, kept: Sequence[int]) -> np.ndarray:  # [m] -> [m, 2]
        """The observations `kept` of an image, in pixels of the result."""
        xy = np.array([image.points2D[i].xy for i in kept]).reshape(-1, 2)
        rays = np.c_[self.distorted.cam_from_img(xy), np.ones(len(xy))]
        return turn_points(self.flat.img_from_cam(rays), self.flat.width, self.flat.height, self.turns)


def undistort(model: Model, photos: Sequence[Photo], output: Path, *, quiet: bool = False) -> None:
    """Writes a model's photos and the model as pinhole cameras see them: `output`/images, `output`/sparse/0.

    The world stays where it is: points and centres of cameras do not move. Observations without a point are
    left out.

    Args:
        model: The model; images without a pose are left out.
        photos: The photos of its registered images.
        output: An empty folder.
        quiet: Show no progress bar.

    Raises:
        UserError: A photo cannot be read, or has not the size that the model says.
    """
    by_name = {photo.name: photo for photo in photos}
    images = {i: image for i, image in model.reconstruction.images.items() if image.has_pose}
    check_sizes(model, by_name)
    pinholes: dict[tuple[int, int], _Pinhole] = {}
    for i, image in images.items():
        key = (image.camera_id, by_name[model.names[i]].turns)
        if key not in pinholes:
            pinholes[key] = _pinhole(image.camera, key[1], len(pinholes) + 1)
    of_image = {i: pinholes[image.camera_id, by_name[model.names[i]].turns] for i, image in images.items()}

    def write(i: int) -> None:
        photo = by_name[model.names[i]]
        picture = flatten(read_picture(photo.path), of_image[i].distorted)
        write_picture(output / "images" / photo.name, _turned(picture, photo.turns))

    for_each(write, list(images), "undistorting", quiet)
    (output / "sparse" / "0").mkdir(parents=True)
    _model(model, images, of_image).write_binary(str(output / "sparse" / "0"))


def check_sizes(model: Model, photos: dict[str, Photo]) -> None:
    """Checks that photos and cameras of a model are of one size, as EXIF-blind eyes see them.

    Raises:
        UserError: One is not.
    """
    for i, image in model.reconstruction.images.items():
        if not image.has_pose:
            continue
        photo, camera = photos[model.names[i]], image.camera
        if (photo.width, photo.height) != (camera.width, camera.height):
            raise UserError(
                f"the photo {photo.path} has {photo.width}x{photo.height} pixels, its camera in "
                f"{model.folder} {camera.width}x{camera.height}. Put the photos there that the model "
                "was made from."
            )


def flatten(picture: Picture, camera: Any) -> Picture:
    """A photo as a pinhole camera would have taken it."""
    color, _ = pycolmap.undistort_image(_OPTIONS, pycolmap.Bitmap.from_array(picture.color), camera)
    alpha = None
    if picture.alpha is not None:
        bitmap, _ = pycolmap.undistort_image(_OPTIONS, pycolmap.Bitmap.from_array(picture.alpha), camera)
        alpha = bitmap.to_array().reshape(bitmap.height, bitmap.width)
    return Picture(color.to_array(), alpha, picture.profile)


def turn_points(xy: np.ndarray, width: int, height: int, turns: int) -> np.ndarray:  # [m, 2] -> [m, 2]
    """Where points of a picture are once it has been turned clockwise by quarters.

    Args:
        xy: Pixels, (0, 0) at the upper left corner. [m, 2]
        width: Width of the picture before.
        height: Height of the picture before.
        turns: Quarter turns, 0 to 3.
    """
    x, y = xy[:, 0], xy[:, 1]
    turned = [(x, y), (height - y, x), (width - x, height - y), (y, width - x)]
    return np.stack(turned[turns], axis=1)


def _pinhole(distorted: Any, turns: int, camera_id: int) -> _Pinhole:
    flat = pycolmap.undistort_camera(_OPTIONS, distorted)
    if not flat.width or not flat.height or not np.isfinite(flat.params).all():
        raise UserError(
            f"camera {distorted.camera_id} ({distorted.model_name}) has no undistorted form; did the "
            "reconstruction fail? Try another --camera."
        )
    focal = [flat.focal_length_x, flat.focal_length_y]
    size = [flat.width, flat.height]
    if turns % 2:
        focal.reverse()
        size.reverse()
    center = np.array([[flat.principal_point_x, flat.principal_point_y]])
    center = turn_points(center, flat.width, flat.height, turns)[0]
    params = [*focal, *center]
    camera = pycolmap.Camera(
        camera_id=camera_id, model="PINHOLE", width=size[0], height=size[1], params=params
    )
    return _Pinhole(distorted, flat, turns, camera)


def _turned(picture: Picture, turns: int) -> Picture:
    color = np.ascontiguousarray(np.rot90(picture.color, -turns))
    alpha = None if picture.alpha is None else np.ascontiguousarray(np.rot90(picture.alpha, -turns))
    return Picture(color, alpha, picture.profile)


def _model(model: Model, images: dict[int, Any], of_image: dict[int, _Pinhole]) -> Any:
    """The model with the new cameras."""
    made = pycolmap.Reconstruction()
    for pinhole in {p.camera.camera_id: p for p in of_image.values()}.values():
        made.add_camera_with_trivial_rig(pinhole.camera)
    places: dict[int, dict[int, int]] = {}  # by image and observation before, the observation afterwards
    for i, image in images.items():
        kept = list(image.get_observation_point2D_idxs())
        places[i] = {index: place for place, index in enumerate(kept)}
        pinhole = of_image[i]
        flat = pycolmap.Image(
            name=model.names[i],
            keypoints=pinhole.points(image, kept),
            camera_id=pinhole.camera.camera_id,
            image_id=i,
        )
        turn = pycolmap.Rigid3d(np.c_[_turn_matrix(pinhole.turns), np.zeros(3)])
        made.add_image_with_trivial_frame(flat, turn * image.cam_from_world())
    for point_id, point in model.reconstruction.points3D.items():
        track = pycolmap.Track()
        for element in point.track.elements:
            if element.image_id in places:
                track.add_element(element.image_id, places[element.image_id][element.point2D_idx])
        copy = pycolmap.Point3D(xyz=point.xyz, color=point.color, track=track)
        made.add_point3D_with_id(point_id, copy)
    made.update_point_3d_errors()
    return made


def _turn_matrix(turns: int) -> np.ndarray:
    """Rotation of the camera's axes when its picture is turned clockwise by quarters. [3, 3]"""
    quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    return np.linalg.matrix_power(quarter, turns)
