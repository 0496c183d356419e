"""Laws of camera paths."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from feature_gs.rendering.camera_path import PosePath, between_views, interpolate_path, is_closed
from feature_gs.scenes import Camera

Array = NDArray[np.float64]


def pose(rotation: Rotation, center: tuple[float, float, float]) -> Array:
    """cam_from_world of a camera whose axes are `rotation` (world_from_cam) and whose centre is `center`."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation.as_matrix().T
    matrix[:3, 3] = -matrix[:3, :3] @ np.array(center)
    return matrix


def camera(name: str, cam_from_world: Array, width: int = 40, height: int = 30, focal: float = 50) -> Camera:
    K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    return Camera(name, width, height, K, torch.from_numpy(cam_from_world).float())


def orbit(count: int, degrees: float = 360, radius: float = 2.0) -> list[Camera]:
    """Cameras around the y axis, at `count` angles from 0 up to, but without, `degrees`."""
    cameras = []
    for index in range(count):
        angle = math.radians(degrees * index / count)
        turn = Rotation.from_rotvec([0, angle, 0])
        cameras.append(
            camera(
                f"{index:03d}.jpg", pose(turn, (-radius * math.sin(angle), 0.3, -radius * math.cos(angle)))
            )
        )
    return cameras


def poses(cameras: list[Camera]) -> Array:
    return np.stack([view.cam_from_world.numpy() for view in cameras]).astype(np.float64)


def centers(cameras: list[Camera]) -> Array:
    return np.stack([view.center.numpy() for view in cameras]).astype(np.float64)


def random_poses(count: int, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    rotations = Rotation.random(count, random_state=seed)
    return np.stack([pose(rotations[i], tuple(rng.normal(size=3))) for i in range(count)])


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("count", [2, 3, 7])
def test_passes_through_the_given_poses(count: int, closed: bool) -> None:
    given = random_poses(count)
    path = PosePath(given, closed=closed)
    np.testing.assert_allclose(path.at(path.knots[:count]), given, atol=1e-9)


@pytest.mark.parametrize("closed", [False, True])
def test_every_pose_is_rigid(closed: bool) -> None:
    path = PosePath(random_poses(9), closed=closed)
    sampled = path.at(np.linspace(0, path.knots[-1], 500))
    rotations = sampled[:, :3, :3]
    np.testing.assert_allclose(
        rotations @ rotations.swapaxes(1, 2), np.tile(np.eye(3), (500, 1, 1)), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(rotations), 1, atol=1e-12)
    np.testing.assert_array_equal(sampled[:, 3], np.tile([0, 0, 0, 1], (500, 1)))


@pytest.mark.parametrize("seed", range(4))
def test_closed_path_is_periodic_with_a_smooth_seam(seed: int) -> None:
    path = PosePath(random_poses(6, seed), closed=True)
    period, step = path.knots[-1], 1e-5
    u = np.linspace(0, period, 50)
    np.testing.assert_allclose(path.at(u + period), path.at(u), atol=1e-8)
    before, seam, after = path.at(np.array([period - step, 0, step]))
    np.testing.assert_allclose(seam - before, after - seam, atol=1e-8)


def test_neighbouring_poses_are_near_each_other() -> None:
    """No jump anywhere: neither from a quaternion's sign nor at a given pose."""
    path = PosePath(random_poses(12, seed=3), closed=True)
    sampled = path.at(np.linspace(0, path.knots[-1], 20_000))
    assert np.abs(np.diff(sampled, axis=0)).max() < 0.02


def test_full_orbit_is_closed_and_stays_on_its_circle() -> None:
    cameras = orbit(12)
    assert is_closed(poses(cameras))
    path = interpolate_path(cameras, 90)
    way = centers(path)
    np.testing.assert_allclose(np.hypot(way[:, 0], way[:, 2]), 2.0, atol=0.01)
    np.testing.assert_allclose(way[:, 1], 0.3, atol=1e-5)
    steps = np.linalg.norm(way - np.roll(way, 1, axis=0), axis=1)
    np.testing.assert_allclose(steps, 2 * math.pi * 2.0 / 90, rtol=0.01)


def test_orbit_with_held_out_views_is_still_closed() -> None:
    assert is_closed(poses([view for index, view in enumerate(orbit(40)) if index % 8]))


def test_half_orbit_and_line_are_open() -> None:
    assert not is_closed(poses(orbit(12, degrees=180)))
    assert not is_closed(np.stack([pose(Rotation.identity(), (x, 0, 0)) for x in range(6)]))
    assert not is_closed(np.stack([pose(Rotation.identity(), (x, 0, 0)) for x in range(3)]))


def test_open_path_starts_and_ends_at_its_ends() -> None:
    cameras = orbit(6, degrees=180)
    path = interpolate_path(cameras, 31)
    assert len(path) == 31
    np.testing.assert_allclose(poses(path)[[0, -1]], poses(cameras)[[0, -1]], atol=1e-6)


def test_frames_are_even_though_the_given_views_are_not() -> None:
    along = [0.0, 0.1, 0.2, 5.0, 5.1, 9.0]
    cameras = [camera(f"{index}.jpg", pose(Rotation.identity(), (x, 0, 0))) for index, x in enumerate(along)]
    x = centers(interpolate_path(cameras, 91, closed=False))[:, 0]
    np.testing.assert_allclose(np.abs(np.diff(x)), np.abs(np.diff(x)).mean(), rtol=0.05)


def test_turning_on_the_spot_is_even_too() -> None:
    cameras = [
        camera(f"{index}.jpg", pose(Rotation.from_euler("y", angle, degrees=True), (1, 2, 3)))
        for index, angle in enumerate([0, 10, 60, 90])
    ]
    path = interpolate_path(cameras, 10, closed=False)
    angles = Rotation.from_matrix(poses(path)[:, :3, :3]).as_euler("yxz", degrees=True)[:, 0]
    np.testing.assert_allclose(-angles, np.linspace(0, 90, 10), atol=0.3)
    np.testing.assert_allclose(centers(path), np.tile([1, 2, 3], (10, 1)), atol=1e-5)


def test_views_are_taken_in_the_order_of_their_names() -> None:
    cameras = orbit(8)
    shuffled = [cameras[index] for index in (3, 7, 0, 5, 1, 2, 6, 4)]
    np.testing.assert_array_equal(poses(interpolate_path(shuffled, 20)), poses(interpolate_path(cameras, 20)))


def test_duplicates_change_nothing() -> None:
    cameras = orbit(6, degrees=200)
    doubled = sorted(
        cameras + [camera(f"{view.name}~", poses([view])[0]) for view in cameras], key=lambda c: c.name
    )
    np.testing.assert_allclose(
        poses(interpolate_path(doubled, 15, closed=False)),
        poses(interpolate_path(cameras, 15, closed=False)),
        atol=1e-5,
    )


def test_one_camera_is_repeated() -> None:
    (only,) = orbit(1)
    path = interpolate_path([only, only], 5)
    np.testing.assert_allclose(poses(path), np.tile(poses([only]), (5, 1, 1)), atol=1e-6)
    assert [view.name for view in path] == [f"0000{index}.png" for index in range(5)]


def test_two_cameras_make_a_straight_way() -> None:
    ends = [pose(Rotation.identity(), (0, 0, 0)), pose(Rotation.from_euler("z", 90, degrees=True), (2, 0, 0))]
    path = interpolate_path([camera("a.png", ends[0]), camera("b.png", ends[1])], 3)
    np.testing.assert_allclose(centers(path), [[0, 0, 0], [1, 0, 0], [2, 0, 0]], atol=1e-6)
    middle = Rotation.from_matrix(poses(path)[1, :3, :3].T).as_euler("zyx", degrees=True)
    np.testing.assert_allclose(middle, [45, 0, 0], atol=1e-4)


def test_size_and_intrinsics_are_those_of_the_first_view() -> None:
    first = camera("a.jpg", np.eye(4), width=41, height=30, focal=33)
    second = camera("b.jpg", pose(Rotation.identity(), (1, 0, 0)), width=60, height=80, focal=70)
    for path in (interpolate_path([second, first], 4), between_views([second, first])):
        assert {(view.width, view.height) for view in path} == {(41, 30)}
        assert all(torch.equal(view.K, first.K) for view in path)


def test_between_views_lie_at_thirds() -> None:
    """A turn by 90 degrees about z and a step of 3: thirds are 30 and 60 degrees, 1 and 2."""
    ends = [pose(Rotation.identity(), (0, 0, 0)), pose(Rotation.from_euler("z", 90, degrees=True), (3, 0, 0))]
    thirds = between_views([camera("a.png", ends[0]), camera("b.png", ends[1])])
    np.testing.assert_allclose(centers(thirds), [[1, 0, 0], [2, 0, 0]], atol=1e-6)
    angles = Rotation.from_matrix(poses(thirds)[:, :3, :3].swapaxes(1, 2)).as_euler("zyx", degrees=True)
    np.testing.assert_allclose(angles, [[30, 0, 0], [60, 0, 0]], atol=1e-4)


def test_between_views_counts() -> None:
    assert len(between_views(orbit(7))) == 12
    with pytest.raises(ValueError, match="fewer than two"):
        between_views(orbit(1))


def test_bad_requests() -> None:
    with pytest.raises(ValueError, match="at least one camera"):
        interpolate_path([], 3)
    with pytest.raises(ValueError, match="got 0"):
        interpolate_path(orbit(3), 0)
