"""`feature-gs lift`: onto a trained model, onto another tool's PLY, and refusals that touch nothing."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement
from tiny_scenes import NAMES, write_colmap_scene

from feature_gs.cli import lift as cli_lift
from feature_gs.cli.main import main
from feature_gs.features.field import FeatureField
from feature_gs.features.lifting import lift
from feature_gs.features.pca import fit_pca
from feature_gs.features.teacher import TeacherStore, write_map, write_meta
from feature_gs.gaussians import GaussianModel
from feature_gs.scenes import load_scene, write_cameras_json
from feature_gs.training.config import TrainConfig
from feature_gs.training.trained import load_trained

CHANNELS, ROWS, COLUMNS = 6, 3, 4
TEST, TRAIN = NAMES[:1], NAMES[1:]
FEATURES = "point_cloud/iteration_{}/features.safetensors"
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A scene with maps of the teacher codes: of each photo another constant."""
    folder = write_colmap_scene(tmp_path / "scene")
    for index, name in enumerate(NAMES):
        values = torch.arange(CHANNELS)[:, None, None] + 10.0 * index
        maps = values.expand(CHANNELS, ROWS, COLUMNS) + torch.arange(COLUMNS) / 8
        write_map((folder / "features/codes" / name).with_suffix(".safetensors"), maps)
    write_meta(folder / "features/codes", "codes", CHANNELS, made="by hand")
    return folder


@pytest.fixture
def model(tmp_path: Path, scene: Path) -> Path:
    """A model trained on three of the photos, with two iterations."""
    folder = tmp_path / "model"
    loaded = load_scene(scene, eval=True)
    gaussians = GaussianModel.from_points(loaded.points, loaded.point_colors, 1, opacity=0.9)
    for iteration in (10, 20):
        gaussians.save_ply(folder / f"point_cloud/iteration_{iteration}/point_cloud.ply")
    TrainConfig(source_path=str(scene), eval=True, sh_degree=1).save(folder / "config.json")
    cameras = ([view.camera for view in views] for views in (loaded.train, loaded.test))
    write_cameras_json(folder / "cameras.json", *cameras)
    return folder


@pytest.fixture
def foreign(tmp_path: Path, scene: Path) -> Path:
    """The same Gaussians as another tool may write them: other order, doubles, more columns, degree 0."""
    loaded = load_scene(scene)
    gaussians = GaussianModel.from_points(loaded.points, loaded.point_colors, 0, opacity=0.9)
    gaussians.save_ply(tmp_path / "ours.ply")
    ours = PlyData.read(str(tmp_path / "ours.ply"))["vertex"].data
    names = [name for name in reversed(ours.dtype.names) if name not in ("nx", "ny", "nz")]
    types = [(name, "f8" if name in ("x", "opacity") else "f4") for name in names]
    rows = np.zeros(len(ours), dtype=[("filter_3D", "f4"), *types, ("label", "u1")])
    for name in names:
        rows[name] = ours[name]
    path = tmp_path / "foreign.ply"
    PlyData([PlyElement.describe(rows, "vertex")], byte_order=">").write(str(path))
    return path


def run(*flags: object) -> int:
    return main(["lift", *map(str, flags)])


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_onto_a_trained_model(model: Path, scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The newest iteration, from the training views only; nothing else is touched."""
    before = files(model)
    assert run("-m", model, "-f", "codes") == 0
    after = files(model)
    assert after.keys() - before.keys() == {FEATURES.format(20)}
    assert {name: after[name] for name in before} == before

    trained = load_trained(model)
    field = FeatureField.load(model / FEATURES.format(20), len(trained.model))
    views = [view for name, view in trained.views().items() if name in TRAIN]
    expected = lift(trained.model, views, TeacherStore.open(scene / "features/codes")).field
    assert torch.allclose(field.features, expected.features, rtol=1e-3)
    assert field.seen.all() and field.palette is not None
    assert (field.teacher, field.cell, field.decoder.kind) == ("codes", (8, 8), "none")
    assert field.meta["made"] == "by hand"
    assert field.features[:, 0].min() > 9, "the test view, which says 0, has no say"

    printed = capsys.readouterr().out
    assert "lifted:    codes, 6 channels, from 3 views in " in printed
    assert "gaussians: 8 seen, 0 not seen" in printed and "residual" not in printed
    assert f"next:      feature-gs render -m {model} --video" in printed
    assert main(["render", "-m", str(model), "--skip_train", "--quiet", "--compare_teacher"]) == 0


def test_an_older_iteration_and_a_scene_that_moved(model: Path, scene: Path) -> None:
    moved = scene.rename(scene.parent / "moved")
    assert run("-m", model, "-f", "codes", "--iteration", 10, "-s", moved, "--quiet") == 0
    assert (model / FEATURES.format(10)).is_file() and not (model / FEATURES.format(20)).exists()


def test_conjugate_gradients(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-m", model, "-f", "codes", "--solver", "cg", "--iterations", 2) == 0
    shown = capsys.readouterr()
    found = re.search(r"residual:  (\S+) of the mean, (\S+) after 2 iterations", shown.out)
    assert found is not None and float(found[2]) < float(found[1])
    for bar in ("mean:", "residual:", "cg 1/2:", "cg 2/2:"):
        assert f"\r{bar} 100%" in shown.err
    mean = FeatureField.load(model / FEATURES.format(20), 8).features
    assert run("-m", model, "-f", "codes", "--quiet") == 0
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err == ""
    assert not torch.equal(FeatureField.load(model / FEATURES.format(20), 8).features, mean)


@pytest.mark.parametrize(("flags", "carried"), [((), 1), (("--feature_dim", 3), 3)])
def test_through_a_linear_decoder(
    model: Path, scene: Path, flags: tuple[object, ...], carried: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The decoder is the PCA of the training views' maps."""
    assert run("-m", model, "-f", "codes", "--decoder", "linear", *flags) == 0
    field = FeatureField.load(model / FEATURES.format(20), 8)
    assert (field.decoder.kind, field.features.shape) == ("linear", (8, carried))
    assert f"6 channels as {carried}" in capsys.readouterr().out
    views = load_scene(scene, eval=True).train
    teacher = TeacherStore.open(scene / "features/codes")
    pca = fit_pca((teacher.load(view).features for view in views), carried)
    weight = field.decoder.state_dict()["weight"]
    assert torch.allclose(weight.abs()[:, 0], pca.components.abs()[:, 0], atol=1e-3)
    full = lift(load_trained(model).model, views, teacher).field.features
    assert torch.allclose(field.decoder.decode_gaussians(field.features), full, atol=0.05)


def test_onto_another_tools_ply(tmp_path: Path, scene: Path, foreign: Path) -> None:
    """A model folder that all other verbs take; the Gaussians are those of the PLY."""
    out = tmp_path / "out"
    flags = ("--near", 0.2, "--antialiased", "-r", 2, "-w")
    assert run("--ply", foreign, "-s", scene, "-f", "codes", "-m", out, "--eval", *flags, "--quiet") == 0
    assert files(out).keys() == {
        "config.json",
        "cameras.json",
        "point_cloud/iteration_0/point_cloud.ply",
        FEATURES.format(0),
    }
    trained = load_trained(out)
    for name, value in GaussianModel.load_ply(foreign).state_dict().items():
        assert torch.equal(trained.model.state_dict()[name], value)
    names = PlyData.read(str(out / "point_cloud/iteration_0/point_cloud.ply"))["vertex"].data.dtype.names
    assert names[:3] == ("x", "y", "z") and len(names) == 17, "the standard layout"
    assert [camera.name for camera in trained.cameras["test"]] == list(TEST)
    assert {(camera.width, camera.height) for camera in trained.cameras["train"]} == {(16, 12)}
    settings = trained.config
    assert (settings.near, settings.antialiased, settings.sh_degree) == (0.2, True, 0)
    assert settings.white_background and settings.eval and settings.source_path == str(scene)

    field = trained.field()
    assert field is not None and max(field.cell) == min(field.cell) == 4
    views = [view for name, view in trained.views().items() if name in TRAIN]
    teacher = TeacherStore.open(scene / "features/codes")
    expected = lift(trained.model, views, teacher, antialiased=True, near=0.2).field.features
    assert torch.allclose(field.features, expected, rtol=1e-3)

    assert main(["render", "-m", str(out), "--quiet", "--decode"]) == 0
    assert (out / "test/iteration_0/feature_pca/a.png").is_file()
    assert main(["evaluate", "-m", str(out), "--quiet"]) == 0
    assert "iteration_0" in json.loads((out / "results.json").read_text())
    assert run("-m", out, "-f", "codes", "--solver", "cg", "--quiet") == 0


def test_at_the_teachers_grid(tmp_path: Path, scene: Path, foreign: Path) -> None:
    out = tmp_path / "out"
    assert run("--ply", foreign, "-s", scene, "-f", "codes", "-m", out, "-r", 0, "--quiet") == 0
    trained = load_trained(out)
    camera = trained.cameras["train"][0]
    assert (camera.width, camera.height) == (COLUMNS, ROWS)
    assert trained.views()[camera.name].load().shape == (ROWS, COLUMNS, 3), "photos are still found"
    field = trained.field()
    assert field is not None and max(field.cell) == min(field.cell) == 1


def test_features_in_the_ply(model: Path) -> None:
    path = model / "point_cloud/iteration_20/point_cloud.ply"
    assert run("-m", model, "-f", "codes", "--ply_features", "--quiet") == 0
    written = GaussianModel.load_ply(path, features=True)
    field = FeatureField.load(model / FEATURES.format(20), 8)
    assert written.features is not None
    assert torch.allclose(written.features, field.features, rtol=1e-3)


def test_columns_of_older_features_do_not_stay(tmp_path: Path, scene: Path, foreign: Path) -> None:
    out = tmp_path / "out"
    place = ("-f", "codes", "-m", out, "--quiet")
    assert run("--ply", foreign, "-s", scene, *place, "--ply_features") == 0
    assert run(*place, "--decoder", "linear", "--feature_dim", 2) == 0
    written = GaussianModel.load_ply(out / "point_cloud/iteration_0/point_cloud.ply", features=True)
    assert written.features is not None and written.features.shape == (8, 2)


def test_maps_that_are_missing_are_made(model: Path, scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-m", model, "-f", "handcrafted?cell=4") == 0
    assert "handcrafted: 4 photos, 8 x 6 cells" in capsys.readouterr().out
    assert len(list((scene / "features").glob("handcrafted*/*.safetensors"))) == len(NAMES)
    assert FeatureField.load(model / FEATURES.format(20), 8).cell == (4, 4)


def test_only_maps_of_the_views_that_teach_are_needed(model: Path, scene: Path) -> None:
    (scene / "features/codes/a.safetensors").unlink()
    assert run("-m", model, "-f", scene / "features/codes", "--quiet") == 0


def test_photos_that_are_gone_do_not_teach(
    model: Path, scene: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (scene / "images/d.png").unlink()
    assert run("-m", model, "-f", "codes") == 0
    printed = capsys.readouterr().out
    assert "1 training photos are gone" in printed and "from 2 views" in printed


def test_overwriting_removes_the_old_model(tmp_path: Path, scene: Path, foreign: Path) -> None:
    out = tmp_path / "out"
    flags = ("--ply", foreign, "-s", scene, "-f", "codes", "-m", out, "--quiet")
    assert run(*flags) == 0
    (out / "point_cloud/iteration_0").rename(out / "point_cloud/iteration_7")
    (out / "notes.txt").write_text("mine")
    assert run(*flags) == 2
    assert run(*flags, "--overwrite") == 0
    assert not (out / "point_cloud/iteration_7").exists() and (out / "notes.txt").is_file()


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_lifting_leaves_everything_as_it_was(
    tmp_path: Path,
    model: Path,
    scene: Path,
    foreign: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
) -> None:
    assert run("-m", model, "-f", "codes", "--quiet") == 0
    before = files(model)
    load, calls = TeacherStore.load, iter(range(100))

    def breaking(self: TeacherStore, view: object) -> object:
        if next(calls) == 1:
            raise error
        return load(self, view)  # type: ignore[arg-type]

    monkeypatch.setattr(TeacherStore, "load", breaking)

    def interrupted(*flags: object) -> None:
        nonlocal calls
        calls = iter(range(100))
        if error is KeyboardInterrupt:
            assert run(*flags, "--quiet") == 130
        else:
            with pytest.raises(error):
                run(*flags, "--quiet")

    interrupted("-m", model, "-f", "codes")
    interrupted("--ply", foreign, "-s", scene, "-f", "codes", "-m", tmp_path / "out")
    interrupted("--ply", foreign, "-s", scene, "-f", "codes", "-m", model, "--overwrite")
    assert files(model) == before
    assert not (tmp_path / "out").exists()


WRONG: list[tuple[list[str], str]] = [
    (["-m", "nowhere", "-f", "codes"], "there is no folder nowhere"),
    (["-m", "scene", "-f", "codes"], "config.json.*Is this a model folder"),
    (["-m", "model", "-f", "codes", "--iteration", "5"], "no iteration 5; --iteration can be 10, 20"),
    (["-m", "model", "-f", "codes", "--eval"], "--eval goes with --ply"),
    (["-m", "model", "-f", "codes", "-r", "2"], "--resolution goes with --ply"),
    (["-m", "model", "-f", "codes", "--overwrite"], "--overwrite goes with --ply"),
    (["-m", "model", "-f", "codes", "-s", "nowhere"], "nowhere does not exist.*name its folder with -s"),
    (["-m", "model", "-f", "nobody"], "nobody is neither a teacher nor a folder of maps"),
    (["-m", "model", "-f", "codes", "--iterations", "5"], "goes with --solver cg"),
    (["-m", "model", "-f", "codes", "--solver", "cg", "--iterations", "0"], "takes 1 or more"),
    (["-m", "model", "-f", "codes", "--feature_dim", "3"], "--feature_dim goes with --decoder linear"),
    (["-m", "model", "-f", "codes", "--decoder", "linear", "--feature_dim", "0"], "--feature_dim must lie"),
    (["-m", "model", "-f", "codes", "--decoder", "linear", "--feature_dim", "7"], "only 6 channels"),
    (["-m", "model", "-f", "handcrafted", "--decoder", "linear", "--feature_dim", "29"], "only 28 channels"),
    (["-m", "out", "-f", "codes", "--ply", "foreign.ply"], "name the folder of their scene with -s"),
    (["-m", "out", "-f", "codes", "--ply", "foreign.ply", "-s", "nowhere"], "nowhere does not exist"),
    (["-m", "out", "-f", "codes", "--ply", "nowhere.ply", "-s", "scene"], "there is no file nowhere.ply"),
    (["-m", "out", "-f", "codes", "--ply", "foreign.ply", "-s", "scene", "--near", "0"], "--near must lie"),
    (["-m", "out", "-f", "codes", "--ply", "foreign.ply", "-s", "scene", "--iteration", "3"], "--iteration"),
    (["-m", "model", "-f", "codes", "--ply", "foreign.ply", "-s", "scene"], "already holds a model"),
    (
        [
            *("-m", "model", "-f", "codes", "-s", "scene", "--overwrite"),
            *("--ply", "model/point_cloud/iteration_20/point_cloud.ply"),
        ],
        "lies in the folder to be made",
    ),
    (["-m", "foreign.ply", "-f", "codes", "--ply", "ours.ply", "-s", "scene"], "foreign.ply is a file"),
]


@pytest.mark.parametrize(("flags", "message"), WRONG, ids=lambda value: value if type(value) is str else "")
def test_wrong_requests_stop_before_any_work(
    tmp_path: Path,
    model: Path,
    foreign: Path,
    flags: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli_lift, "lift", lambda *_, **__: pytest.fail("it lifted"))
    before = files(tmp_path)
    assert run(*flags) == 2
    error = capsys.readouterr().err
    assert re.search(message, error, re.DOTALL), error
    assert files(tmp_path) == before


def far_away(path: Path) -> None:
    model = GaussianModel.load_ply(path)
    model.means.data[:, 2] += 100
    model.save_ply(path)


def nobody(path: Path) -> None:
    model = GaussianModel.load_ply(path)
    none = {name: parameter[:0].detach() for name, parameter in model.named_parameters()}
    GaussianModel(**none, sh_degree=0).save_ply(path)


@pytest.mark.parametrize(("change", "count"), [(far_away, 8), (nobody, 0)])
def test_gaussians_of_another_place(
    tmp_path: Path,
    scene: Path,
    foreign: Path,
    change: Callable[[Path], None],
    count: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change(foreign)
    assert run("--ply", foreign, "-s", scene, "-f", "codes", "-m", tmp_path / "out", "--quiet") == 2
    assert f"none of the 4 views shows any of the {count} Gaussians" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
