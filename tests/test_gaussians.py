"""GaussianModel: how it starts from points, how its SH grows, what its PLY holds."""

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from feature_gs.errors import UserError
from feature_gs.gaussians import GaussianModel
from feature_gs.gaussians.geometry import rotate
from feature_gs.gaussians.initialise import neighbour_distances
from feature_gs.gaussians.sh import SH_C0, dc_to_rgb, rest_bands

NAMES = ("means", "quats", "log_scales", "logit_opacities", "sh_dc", "sh_rest")


def random_model(count: int, degree: int, active: int | None = None) -> GaussianModel:
    generator = torch.Generator().manual_seed(count + degree)
    bands = rest_bands(degree if active is None else active)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    return GaussianModel(
        draw(count, 3),
        draw(count, 4),
        draw(count, 3),
        draw(count),
        draw(count, 3),
        draw(count, bands, 3),
        sh_degree=degree,
    )


def write_columns(path: Path, columns: dict[str, np.ndarray], text: bool = False) -> None:
    rows = np.empty(len(next(iter(columns.values()))), [(name, a.dtype.str) for name, a in columns.items()])
    for name, values in columns.items():
        rows[name] = values
    PlyData([PlyElement.describe(rows, "vertex")], text=text, byte_order="=" if text else "<").write(
        str(path)
    )


def foreign_columns(count: int, rest: int) -> dict[str, np.ndarray]:
    names = ["x", "y", "z", "opacity", "f_dc_0", "f_dc_1", "f_dc_2", *(f"f_rest_{i}" for i in range(rest))]
    names += ["scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    rng = np.random.default_rng(rest)
    return {name: rng.normal(size=count).astype(np.float32) for name in names}


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 50])
def test_ply_returns_every_bit(tmp_path: Path, degree: int, count: int) -> None:
    model = random_model(count, degree)
    model.save_ply(tmp_path / "a.ply")
    loaded = GaussianModel.load_ply(tmp_path / "a.ply")
    assert loaded.sh_degree == degree and loaded.active_sh_degree == degree
    for name in NAMES:
        assert torch.equal(getattr(loaded, name), getattr(model, name)), name


def test_ply_has_the_standard_columns_in_order_as_little_endian_floats(tmp_path: Path) -> None:
    random_model(2, 3).save_ply(tmp_path / "a.ply")
    header = (tmp_path / "a.ply").read_bytes().split(b"end_header\n")[0].decode().splitlines()
    assert header[:2] == ["ply", "format binary_little_endian 1.0"]
    assert "comment SH degree: 3" in header
    expected = ["x", "y", "z", "nx", "ny", "nz", *(f"f_dc_{i}" for i in range(3))]
    expected += [*(f"f_rest_{i}" for i in range(45)), "opacity", *(f"scale_{i}" for i in range(3))]
    expected += [f"rot_{i}" for i in range(4)]
    assert [line for line in header if line.startswith("property")] == [
        f"property float {n}" for n in expected
    ]
    assert (tmp_path / "a.ply").stat().st_size == len("\n".join(header)) + len("\nend_header\n") + 2 * 62 * 4


def test_ply_lists_all_of_red_then_green_then_blue(tmp_path: Path) -> None:
    model = random_model(3, 1)
    model.save_ply(tmp_path / "a.ply")
    vertices = PlyData.read(str(tmp_path / "a.ply"))["vertex"]
    for channel in range(3):
        for band in range(3):
            column = torch.from_numpy(np.array(vertices[f"f_rest_{3 * channel + band}"]))
            assert torch.equal(column, model.sh_rest[:, band, channel].detach())


def test_ply_pads_bands_that_are_not_active_yet(tmp_path: Path) -> None:
    model = random_model(4, 3, active=1)
    model.save_ply(tmp_path / "a.ply")
    loaded = GaussianModel.load_ply(tmp_path / "a.ply")
    assert loaded.sh_rest.shape == (4, 15, 3)
    assert torch.equal(loaded.sh_rest[:, :3], model.sh_rest)
    assert not loaded.sh_rest[:, 3:].any()


@pytest.mark.parametrize(("rest", "degree"), [(0, 0), (9, 1), (24, 2), (45, 3)])
@pytest.mark.parametrize("text", [False, True])
def test_ply_of_other_tools_loads(tmp_path: Path, rest: int, degree: int, text: bool) -> None:
    columns = foreign_columns(5, rest)  # another column order, no normals
    columns["semantic_0"] = np.ones(5, np.float32)
    columns["x"] = columns["x"].astype(np.float64)
    columns["segment"] = np.arange(5, dtype=np.uint8)
    write_columns(tmp_path / "a.ply", columns, text)
    model = GaussianModel.load_ply(tmp_path / "a.ply")
    assert model.sh_degree == degree
    tolerance = 1e-5 if text else 0.0
    assert np.allclose(model.means[:, 0].detach(), columns["x"], atol=tolerance)
    assert np.allclose(model.quats[:, 3].detach(), columns["rot_3"], atol=tolerance)
    if rest:
        blue_first = model.sh_rest[:, 0, 2].detach()
        assert np.allclose(blue_first, columns[f"f_rest_{2 * rest // 3}"], atol=tolerance)


def test_ply_rows_with_nan_are_left_out_and_infinities_with_a_meaning_are_kept(tmp_path: Path) -> None:
    columns = foreign_columns(4, 0)
    columns["y"][1] = np.nan
    columns["opacity"][2] = np.inf
    columns["scale_2"][3] = -np.inf
    for name in ("rot_0", "rot_1", "rot_2", "rot_3"):
        columns[name][0] = 0
    write_columns(tmp_path / "a.ply", columns)
    with pytest.warns(UserWarning, match="left out 1 of 4"):
        model = GaussianModel.load_ply(tmp_path / "a.ply")
    assert len(model) == 3 and model.is_finite()
    assert model.opacities[1] == 1
    assert 0 < model.scales[2, 2] < 1e-15
    assert model.quats[0].tolist() == [1, 0, 0, 0]


def test_damaged_plys_say_what_is_wrong(tmp_path: Path) -> None:
    def message(path: Path) -> str:
        with pytest.raises(UserError) as caught, warnings.catch_warnings():
            warnings.simplefilter("error")
            GaussianModel.load_ply(path)
        return str(caught.value)

    path = tmp_path / "a.ply"
    assert "there is no file" in message(path)
    path.write_bytes(b"")
    assert "not a whole PLY" in message(path)
    path.write_bytes(bytes(range(256)) * 10)
    assert "not a whole PLY" in message(path)
    random_model(9, 1).save_ply(path)
    whole = path.read_bytes()
    for length in (10, 200, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert "not a whole PLY" in message(path)
    path.write_bytes(whole.replace(b"element vertex 9", b"element vertex 999999999999"))
    assert "not a whole PLY" in message(path)
    path.write_bytes(whole.replace(b"element vertex 9", b"element vertex -9"))
    assert "not a whole PLY" in message(path)
    path.write_bytes(whole.replace(b"element vertex", b"element points"))
    assert "no element `vertex`" in message(path)
    write_columns(path, {name: np.zeros(2, np.float32) for name in ("x", "y", "z")})
    assert "plain point cloud" in message(path)
    write_columns(path, foreign_columns(2, 10))
    assert "10 columns f_rest_*" in message(path)
    write_columns(path, {n: a for n, a in foreign_columns(2, 0).items() if n != "scale_2"})
    assert "scale_2" in message(path)
    assert "there is no file" in message(tmp_path)


def test_a_failed_write_leaves_the_previous_ply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.ply"
    random_model(3, 0).save_ply(path)
    before = path.read_bytes()

    def full_disk(self: PlyData, stream: str) -> None:
        Path(stream).write_bytes(b"ply\nhalf")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PlyData, "write", full_disk)
    with pytest.raises(UserError, match="No space left"):
        random_model(4, 0).save_ply(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.ply"]


def test_neighbour_distances_of_a_lattice() -> None:
    axis = torch.arange(4.0) * 0.5
    lattice = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    assert torch.allclose(neighbour_distances(lattice), torch.full((64,), 0.5))
    line = torch.tensor([[0.0, 0, 0], [1, 0, 0], [3, 0, 0], [7, 0, 0], [100, 0, 0]])
    expected = math.sqrt((1 + 9 + 49) / 3), math.sqrt((93**2 + 97**2 + 99**2) / 3)
    distances = neighbour_distances(line)
    assert distances[0].item() == pytest.approx(expected[0])
    assert distances[4].item() == pytest.approx(expected[1])


def test_neighbour_distances_of_few_and_of_equal_points() -> None:
    smallest = math.sqrt(1e-7)
    assert neighbour_distances(torch.zeros(0, 3)).shape == (0,)
    assert neighbour_distances(torch.ones(1, 3)).item() == pytest.approx(smallest)
    assert neighbour_distances(torch.tensor([[0.0, 0, 0], [0, 2, 0]])).tolist() == [2, 2]
    assert torch.allclose(neighbour_distances(torch.ones(6, 3)), torch.tensor(smallest))


def test_from_points() -> None:
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    colors = torch.tensor([[0, 128, 255]] * 4, dtype=torch.uint8)
    model = GaussianModel.from_points(points, colors, 2)
    assert len(model) == 4 and model.active_sh_degree == 0 and model.sh_degree == 2
    assert torch.allclose(dc_to_rgb(model.sh_dc), colors / 255, atol=1e-6)
    assert torch.allclose(model.opacities, torch.tensor(0.1))
    assert torch.allclose(model.scales[0], torch.ones(3))
    assert torch.allclose(model.scales[1], torch.tensor(math.sqrt(5 / 3)))
    assert model.quats.tolist() == [[1, 0, 0, 0]] * 4
    model.means.data += 1
    assert points[0, 0] == 0, "the scene's points are not the model's"
    assert pytest.approx(0.5 / math.sqrt(math.pi)) == SH_C0


def test_sh_grows_band_by_band_and_keeps_its_values() -> None:
    model = random_model(3, 3, active=0)
    shapes = []
    first = None
    while model.raise_sh_degree():
        shapes.append(model.sh_rest.shape[1])
        assert not model.sh_rest[:, -1].any()
        if first is None:
            model.sh_rest.data[:] = first = torch.randn(3, 3, 3)
        assert torch.equal(model.sh_rest[:, :3], first)
    assert shapes == [3, 8, 15] and model.active_sh_degree == 3


@pytest.mark.parametrize(
    ("name", "shape"),
    [("quats", (2, 3)), ("log_scales", (3, 3)), ("sh_rest", (2, 4, 3)), ("sh_rest", (2, 15, 3))],
)
def test_wrong_shapes_are_named(name: str, shape: tuple[int, ...]) -> None:
    tensors = {n: getattr(random_model(2, 1), n).detach() for n in NAMES}
    with pytest.raises(ValueError, match=name):
        GaussianModel(**{**tensors, name: torch.zeros(shape)}, sh_degree=1)


def test_rotate_turns_as_its_matrix_does() -> None:
    half = math.sqrt(0.5)
    about_z = torch.tensor([[2 * half, 0, 0, 2 * half]])  # 90 degrees about z, not of length 1
    assert torch.allclose(
        rotate(about_z, torch.tensor([[1.0, 0, 3]])), torch.tensor([[0.0, 1, 3]]), atol=1e-6
    )
    vectors = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    quats = torch.randn(10, 4, generator=torch.Generator().manual_seed(1))
    turned = rotate(quats, vectors)
    assert torch.allclose(turned.norm(dim=1), vectors.norm(dim=1), atol=1e-5)
    inverse = quats * torch.tensor([1, -1, -1, -1])
    assert torch.allclose(rotate(inverse, turned), vectors, atol=1e-5)


def with_features(count: int, channels: int) -> GaussianModel:
    model = random_model(count, 1)
    model.features = torch.nn.Parameter(
        torch.randn(count, channels, generator=torch.Generator().manual_seed(1))
    )
    return model


def property_names(path: Path) -> list[str]:
    header = path.read_bytes().split(b"end_header\n")[0].decode().splitlines()
    return [line.split()[-1] for line in header if line.startswith("property")]


@pytest.mark.parametrize(("count", "channels"), [(0, 3), (1, 1), (5, 12)])
def test_ply_carries_features_when_asked(tmp_path: Path, count: int, channels: int) -> None:
    model = with_features(count, channels)
    model.save_ply(tmp_path / "plain.ply")
    model.save_ply(tmp_path / "more.ply", features=True)
    random_model(count, 1).save_ply(tmp_path / "none.ply", features=True)
    plain = property_names(tmp_path / "plain.ply")
    assert property_names(tmp_path / "more.ply") == plain + [f"semantic_{i}" for i in range(channels)]
    assert (tmp_path / "none.ply").read_bytes() == (tmp_path / "plain.ply").read_bytes()

    loaded = GaussianModel.load_ply(tmp_path / "more.ply", features=True)
    assert loaded.features is not None and model.features is not None
    assert torch.equal(loaded.features, model.features)
    for name in NAMES:
        assert torch.equal(getattr(loaded, name), getattr(model, name)), name
    assert GaussianModel.load_ply(tmp_path / "more.ply").features is None


def test_ply_features_of_fit3d_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """FiT3D has sem_0.. between f_rest and opacity; here they are also out of order."""
    columns = foreign_columns(4, 9)
    semantic = {f"sem_{i}": np.arange(4, dtype=np.float32) + 10 * i for i in (10, 2, 0, 1, *range(3, 10))}
    write_columns(tmp_path / "a.ply", {**semantic, **columns})
    features = GaussianModel.load_ply(tmp_path / "a.ply", features=True).features
    assert features is not None
    expected = torch.arange(4.0)[:, None] + 10 * torch.arange(11.0)
    assert torch.equal(features, expected)

    columns["y"][1] = np.nan  # a row that is left out takes its features along
    write_columns(tmp_path / "a.ply", {**semantic, **columns})
    with pytest.warns(UserWarning, match="left out 1 of 4"):
        features = GaussianModel.load_ply(tmp_path / "a.ply", features=True).features
    assert features is not None and torch.equal(features, expected[[0, 2, 3]])


def test_ply_features_that_are_missing_or_damaged_are_named(tmp_path: Path) -> None:
    columns = foreign_columns(4, 0)
    good = np.zeros(4, np.float32)
    for more, message in (
        ({}, "holds no features"),
        ({"semantic_0": good, "semantic_2": good}, "expected semantic_0 to semantic_1"),
        ({"sem_0": np.full(4, np.nan, np.float32)}, r"columns sem_\*.*NaN"),
    ):
        write_columns(tmp_path / "a.ply", {**columns, **more})
        assert len(GaussianModel.load_ply(tmp_path / "a.ply")) == 4
        with pytest.raises(UserError, match=message):
            GaussianModel.load_ply(tmp_path / "a.ply", features=True)
