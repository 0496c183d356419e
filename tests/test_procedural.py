"""The demo scene: its pictures, depths, labels, poses and points describe one and the same world."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image

from feature_gs.scenes import Camera, Scene, load_scene, procedural, read_cameras_json
from feature_gs.scenes.procedural import DEPTH_SCALE, write_demo_scene
from feature_gs.scenes.raytracer import BakedSolid, Lamp, Solid, bake
from feature_gs.scenes.solids import Box, Cylinder, Shape, Sphere

VIEWS = 10

SHAPES = [
    Sphere(np.array([0.1, -0.2, 0.3]), 0.4),
    Box(np.array([0.1, -0.2, 0.3]), np.array([0.2, 0.3, 0.4]), yaw=0.7),
    Cylinder(np.array([0.1, -0.2, 0.3]), 0.3, 0.25),
]


@pytest.fixture(scope="module")
def baked_once() -> Iterator[None]:
    """The light depends on nothing and takes seconds: computed once for all scenes of this file."""
    with pytest.MonkeyPatch.context() as patch:
        baked = bake(procedural._solids(), procedural.LAMPS)

        def of_those(solids: list[Solid], lamps: list[Lamp]) -> list[BakedSolid]:
            kept = {solid.label for solid in solids}
            return [thing for thing in baked if thing.solid.label in kept]

        patch.setattr(procedural, "bake", of_those)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, baked_once: None) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    write_demo_scene(folder, views=VIEWS, width=96, height=72)
    return folder


@pytest.fixture(scope="module")
def scene(folder: Path) -> Scene:
    return load_scene(folder)


def read(folder: Path, kind: str, camera: Camera) -> np.ndarray:
    return np.asarray(Image.open(folder / kind / camera.name))


def to_world(camera: Camera, depth: np.ndarray) -> np.ndarray:  # [H, W] -> [H, W, 3]
    K, pose = camera.K.double().numpy(), camera.cam_from_world.double().numpy()
    x, y = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    local = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones_like(x)], axis=-1)
    return (local * depth[..., None] - pose[:3, 3]) @ pose[:3, :3]


def project(camera: Camera, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Column, row and depth of points [P, 3], and whether they are in the picture."""
    K, pose = camera.K.double().numpy(), camera.cam_from_world.double().numpy()
    local = points @ pose[:3, :3].T + pose[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y = (local[:, :2] / local[:, 2:] * K[[0, 1], [0, 1]] + K[:2, 2]).T
    inside = (local[:, 2] > 0.01) & (x >= 0) & (y >= 0) & (x < camera.width) & (y < camera.height)
    column, row = np.where(inside, x, 0).astype(int), np.where(inside, y, 0).astype(int)
    return column, row, local[:, 2], inside


def test_it_loads_like_any_colmap_scene(folder: Path, scene: Scene) -> None:
    assert [view.camera.name for view in scene.train] == [f"{i:03d}.png" for i in range(VIEWS)]
    assert scene.messages == []
    assert scene.points.shape == (3000, 3)
    for view, camera in zip(scene.train, read_cameras_json(folder / "cameras.json")["train"], strict=True):
        assert np.allclose(view.camera.cam_from_world, camera.cam_from_world, atol=1e-6)
        assert np.allclose(view.camera.K, camera.K)
        assert view.load().shape == (72, 96, 3)
    held_out = load_scene(folder, eval=True).test
    assert [view.camera.name for view in held_out] == ["000.png", "008.png"]


def test_points_land_where_the_depth_maps_say_in_every_view_that_saw_them(folder: Path, scene: Scene) -> None:
    model = pycolmap.Reconstruction(str(folder / "sparse" / "0"))
    for image in model.images.values():
        camera = scene.train[image.image_id - 1].camera
        observed = [(p.xy, model.points3D[p.point3D_id].xyz) for p in image.points2D if p.has_point3D()]
        assert len(observed) > 500
        pixels, points = (np.array(part) for part in zip(*observed, strict=True))
        column, row, z, inside = project(camera, points)
        assert inside.all()
        assert (np.floor(pixels) == np.stack([column, row], axis=-1)).mean() > 0.999
        depth = read(folder, "depth", camera)[row, column] * DEPTH_SCALE
        assert (np.abs(depth - z) / z).max() < 0.011


def test_points_carry_the_colour_and_the_exact_depth_of_a_pixel(folder: Path, scene: Scene) -> None:
    points, colors = scene.points.double().numpy(), scene.point_colors.numpy()
    matched = np.zeros(len(points), dtype=bool)
    for view in scene.train:
        column, row, z, inside = project(view.camera, points)
        same_color = (view.load().numpy()[row, column] == colors).all(axis=-1)
        exact = np.abs(read(folder, "depth", view.camera)[row, column] * DEPTH_SCALE - z) < 1.5 * DEPTH_SCALE
        matched |= inside & same_color & exact
    assert matched.all()


def test_depth_puts_the_floor_at_height_zero(folder: Path, scene: Scene) -> None:
    names = json.loads((folder / "labels.json").read_text())["labels"]
    floor = next(int(i) for i, name in names.items() if name == "floor")
    heights = []
    for view in scene.train:
        depth = read(folder, "depth", view.camera) * DEPTH_SCALE
        assert depth.min() > 0.2
        heights.append(to_world(view.camera, depth)[read(folder, "labels", view.camera) == floor][:, 2])
    assert len(np.concatenate(heights)) > 1000
    assert np.abs(np.concatenate(heights)).max() < DEPTH_SCALE


def test_labels_and_colours_agree_between_views(folder: Path, scene: Scene) -> None:
    labels_agree, colors_differ = [], []
    for here, there in zip(scene.train, scene.train[3:] + scene.train[:3], strict=True):
        points = to_world(here.camera, read(folder, "depth", here.camera) * DEPTH_SCALE).reshape(-1, 3)
        column, row, z, inside = project(there.camera, points)
        seen = inside & (
            np.abs(read(folder, "depth", there.camera)[row, column] * DEPTH_SCALE - z) < 0.01 * z
        )
        assert seen.sum() > 500
        label_here = read(folder, "labels", here.camera).reshape(-1)[seen]
        label_there = read(folder, "labels", there.camera)[row[seen], column[seen]]
        labels_agree.append(label_here == label_there)
        color_here = here.load().numpy().reshape(-1, 3)[seen].astype(float)
        color_there = there.load().numpy()[row[seen], column[seen]].astype(float)
        colors_differ.append(np.abs(color_here - color_there).mean(axis=-1))
    assert np.concatenate(labels_agree).mean() > 0.985
    assert np.median(np.concatenate(colors_differ)) < 12


def test_every_label_has_a_name_and_is_seen(folder: Path, scene: Scene) -> None:
    names = json.loads((folder / "labels.json").read_text())["labels"]
    seen = np.unique(np.stack([read(folder, "labels", view.camera) for view in scene.train]))
    assert sorted(int(i) for i in names) == seen.tolist()
    assert len(seen) >= 10


@pytest.mark.parametrize("shape", SHAPES)
def test_chart_and_surface_undo_each_other(shape: Shape) -> None:
    u, v = np.random.default_rng(0).uniform(0.2, 0.8, (2, 50))  # of a cap: inside the disc
    for face in range(len(shape.face_sizes)):
        points, normals = shape.surface(face, u, v)
        faces, u_again, v_again = shape.chart(points)
        assert (faces == face).all()
        assert np.allclose(u_again, u)
        assert np.allclose(v_again, v)
        assert np.allclose(np.linalg.norm(normals, axis=1), 1)
        center, radius = shape.bounds
        assert (np.linalg.norm(points - center, axis=1) <= radius + 1e-12).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_rays_hit_the_nearest_surface_or_miss(shape: Shape) -> None:
    random = np.random.default_rng(1)
    u, v = random.uniform(0.2, 0.8, (2, 50))
    for face in range(len(shape.face_sizes)):
        points, normals = shape.surface(face, u, v)
        starts = points + 0.3 * normals + random.uniform(-0.05, 0.05, points.shape)
        hits = shape.intersect(starts, 2 * (points - starts))
        assert np.allclose(hits, 0.5)  # in lengths of the direction
        assert np.isinf(shape.intersect(starts, starts - points)).all()
    center, radius = shape.bounds
    beside = center + np.array([[radius + 0.01, 5.0, 0.0]])
    assert np.isinf(shape.intersect(beside, np.array([[0.0, -1.0, 0.0]]))).all()


def test_a_room_is_hit_from_inside() -> None:
    room = Box(np.zeros(3), np.array([1.0, 2.0, 3.0]), inward=True)
    directions = np.array([[1.0, 0, 0], [0, -1.0, 0], [0, 0, 2.0]])
    assert np.allclose(room.intersect(np.zeros((3, 3)), directions), [1, 2, 1.5])
    assert np.allclose(room.surface(1, np.array([0.5]), np.array([0.5]))[1], [[-1, 0, 0]])


def test_a_lamp_lights_what_faces_it_and_things_cast_shadows() -> None:
    def white(face: int, u: np.ndarray, v: np.ndarray, points: np.ndarray) -> np.ndarray:
        return np.ones((len(u), 3))

    table = Solid("table", Box(np.array([0, 0, -0.5]), np.array([1, 1, 0.5])), white, 0.1, 0.1)
    ball = Solid("ball", Sphere(np.array([0, 0, 0.5]), 0.2), white, 0.1, 0.1)
    lamp = Lamp(np.array([0, 0, 2.0]), np.zeros((2, 3)), np.full(3, 4.0))
    empty, shaded = (bake(solids, [lamp])[0].faces[5] for solids in ([table], [table, ball]))
    middle, corner = shaded[10, 10, 0], shaded[0, 0, 0]
    assert empty[10, 10, 0] == pytest.approx(4.0 / 2**2 + 0.2, rel=0.01)  # power / distance^2, and ambient
    assert middle < 0.25  # the lamp is hidden, and some of the light from around
    assert corner == pytest.approx(empty[0, 0, 0], rel=0.05)


def test_the_seed_moves_the_cameras_and_repeats(tmp_path: Path, folder: Path) -> None:
    write_demo_scene(tmp_path, views=VIEWS, width=96, height=72)
    for path in sorted(folder.rglob("*.*")):
        if path.suffix in (".png", ".json"):
            assert path.read_bytes() == (tmp_path / path.relative_to(folder)).read_bytes()
    assert np.array_equal(load_scene(tmp_path).points, load_scene(folder).points)
    write_demo_scene(tmp_path, views=VIEWS, width=96, height=72, seed=1)
    moved = load_scene(tmp_path).train[0].camera
    assert not np.allclose(moved.cam_from_world, load_scene(folder).train[0].camera.cam_from_world)


def test_a_thing_can_be_left_out(tmp_path: Path, folder: Path, scene: Scene) -> None:
    write_demo_scene(tmp_path, views=VIEWS, width=96, height=72, without=("cube",))
    assert (tmp_path / "labels.json").read_text() == (folder / "labels.json").read_text()
    names = json.loads((folder / "labels.json").read_text())["labels"]
    cube = next(int(i) for i, name in names.items() if name == "cube")
    revealed = 0
    for view in scene.train:
        here, there = (read(root, "labels", view.camera) for root in (folder, tmp_path))
        assert not (there == cube).any()
        assert (here[here != cube] == there[here != cube]).all()
        nearer, farther = (read(root, "depth", view.camera).astype(int) for root in (folder, tmp_path))
        assert (nearer[here == cube] < farther[here == cube]).all()
        assert (nearer[here != cube] == farther[here != cube]).all()
        revealed += int((here == cube).sum())
    assert revealed > 100
    with pytest.raises(ValueError, match="piano"):
        write_demo_scene(tmp_path, without=("piano",))
