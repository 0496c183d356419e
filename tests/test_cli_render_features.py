"""`feature-gs render` of a model with features: maps, pictures, video, figures, and refusals."""

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
import torch
from safetensors import safe_open
from tiny_scenes import NAMES, write_colmap_scene

from feature_gs.cli.main import main
from feature_gs.features.decoders import make_decoder
from feature_gs.features.field import FeatureField
from feature_gs.features.rendering import decoded
from feature_gs.features.teacher import TeacherStore, write_map, write_meta
from feature_gs.gaussians import GaussianModel
from feature_gs.scenes import load_scene, write_cameras_json
from feature_gs.training.config import TrainConfig
from feature_gs.training.trained import load_trained

WIDTH, HEIGHT, CELL = 32, 24, 8
CHANNELS = 7
TEST, TRAIN = NAMES[:1], NAMES[1:]


@pytest.fixture
def model_path(tmp_path: Path) -> Path:
    """A model folder with features, and its scene with teacher maps in `scene` beside it."""
    source, folder = tmp_path / "scene", tmp_path / "model"
    write_colmap_scene(source)
    scene = load_scene(source, eval=True)
    points = folder / "point_cloud" / "iteration_30"
    model = GaussianModel.from_points(scene.points, scene.point_colors, 0, opacity=0.9)
    model.save_ply(points / "point_cloud.ply")
    generator = torch.Generator().manual_seed(0)
    FeatureField(
        features=torch.randn(len(model), 5, generator=generator),
        decoder=make_decoder("linear", 5, CHANNELS, generator=generator),
        teacher="codes",
        cell=(CELL, CELL),
        seen=torch.ones(len(model), dtype=torch.bool),
    ).save(points / "features.safetensors")
    TrainConfig(source_path=str(source), eval=True, sh_degree=0).save(folder / "config.json")
    train, test = ([view.camera for view in views] for views in (scene.train, scene.test))
    write_cameras_json(folder / "cameras.json", train, test)
    for name in NAMES:
        maps = torch.randn(CHANNELS, HEIGHT // CELL, WIDTH // CELL, generator=generator)
        write_map((source / "features/codes" / name).with_suffix(".safetensors"), maps)
    write_meta(source / "features/codes", "codes", CHANNELS)
    return folder


def render(model_path: Path, *flags: str) -> int:
    return main(["render", "-m", str(model_path), "--quiet", *flags])


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def stems(names: tuple[str, ...], suffix: str) -> list[str]:
    return [Path(name).with_suffix(suffix).name for name in names]


def png(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path))
    assert picture is not None
    return picture[..., ::-1]


def test_maps_and_pictures_of_every_view(model_path: Path) -> None:
    assert render(model_path) == 0
    for split, names in (("train", TRAIN), ("test", TEST)):
        folder = model_path / split / "iteration_30"
        assert files(folder / "features") == [*stems(names, ".safetensors"), "meta.json"]
        assert files(folder / "feature_pca") == stems(names, ".png")
        assert png(folder / "feature_pca" / stems(names, ".png")[0]).shape == (HEIGHT, WIDTH, 3)
        assert files(folder / "color") == stems(names, ".png"), "the other pictures are still there"
        assert not (folder / "compare_teacher").exists()
    assert not list(model_path.rglob("*.tmp*"))


@pytest.mark.parametrize(("flags", "channels"), [([], 5), (["--decode"], CHANNELS)])
def test_maps_hold_what_is_rendered_and_are_teacher_maps(
    model_path: Path, flags: list[str], channels: int
) -> None:
    assert render(model_path, "--skip_train", *flags) == 0
    folder = model_path / "test/iteration_30/features"
    trained = load_trained(model_path)
    field = trained.field()
    assert field is not None
    rendered = trained.render_features(field, trained.cameras["test"][0])
    expected = decoded(field, rendered) if flags else rendered.features
    with safe_open(folder / "a.safetensors", framework="pt") as file:
        stored = file.get_tensor("features")
        assert float(file.metadata()["cells_per_pixel_x"]) == 1 / CELL
    assert stored.dtype == torch.float16 and stored.shape == (channels, HEIGHT // CELL, WIDTH // CELL)
    assert torch.allclose(stored.permute(1, 2, 0).float(), expected, atol=2e-3, rtol=2e-3)

    view = trained.views()["a.png"]
    loaded = TeacherStore.open(folder).load(view)
    assert torch.equal(loaded.features, stored) and loaded.cells_x == WIDTH / CELL


def test_the_palette_is_fitted_once_and_kept(model_path: Path) -> None:
    path = model_path / "point_cloud/iteration_30/features.safetensors"
    assert FeatureField.load(path, 8).palette is None
    assert render(model_path, "--skip_train") == 0
    first = path.read_bytes()
    picture = png(model_path / "test/iteration_30/feature_pca/a.png")
    assert FeatureField.load(path, 8).palette is not None
    assert picture.std() > 5
    write_cameras = (model_path / "cameras.json").read_text().replace('"train"', '"test"', 2)
    (model_path / "cameras.json").write_text(write_cameras)
    assert render(model_path, "--skip_train") == 0
    assert path.read_bytes() == first, "not fitted again, though the views are others"
    assert np.array_equal(png(model_path / "test/iteration_30/feature_pca/a.png"), picture)


def test_video_of_the_features(model_path: Path) -> None:
    arguments = ("--skip_train", "--skip_test")
    assert render(model_path, *arguments, "--novel_view", "--num_views", "6") == 0
    folder = model_path / "novel/iteration_30"
    assert len(files(folder / "features")) == 6 + 1 and not (folder / "feature_video.mp4").exists()
    assert render(model_path, *arguments, "--video", "--num_views", "4") == 0
    assert files(folder / "features") == [*(f"{i:05d}.safetensors" for i in range(4)), "meta.json"]
    assert files(folder / "feature_pca") == [f"{i:05d}.png" for i in range(4)]
    for video in ("video.mp4", "feature_video.mp4"):
        reader = imageio_ffmpeg.read_frames(str(folder / video))
        assert next(reader)["size"] == (WIDTH, HEIGHT)
        assert len(list(reader)) == 4


def test_features_can_be_left_out(model_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", "-m", str(model_path), "--skip_train", "--skip_features"]) == 0
    assert files(model_path / "test/iteration_30/color") == ["a.png"]
    assert not (model_path / "test/iteration_30/features").exists()
    assert not (model_path / "test/iteration_30/feature_pca").exists()
    assert "feature_pca" not in capsys.readouterr().out


def test_figures_of_the_test_views(model_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The teacher's left panels are its own cells: random, so that only the patch's cell is white."""
    assert main(["render", "-m", str(model_path), "--skip_train", "--compare_teacher"]) == 0
    folder = model_path / "test/iteration_30/compare_teacher"
    assert files(folder) == ["a.png"]
    figure = png(folder / "a.png")
    assert figure.shape[1] == 2 * WIDTH + 3 * 6
    printed = capsys.readouterr().out
    assert str(folder) in printed and "codes; patch 16 12 3 of a.png" in printed

    assert (
        render(model_path, "--skip_train", "--skip_test", "--compare_teacher", "--patch", "4", "4", "8") == 0
    )
    other = png(folder / "a.png")
    top = figure.shape[0] // 2 - 6 - HEIGHT
    assert other[top + 12, 6 + 12, 0] < 255 == other[top + 2, 6 + 4, 0]
    assert not np.array_equal(other, figure)


def test_figures_of_the_train_views_where_there_is_no_test_view(model_path: Path) -> None:
    cameras = (model_path / "cameras.json").read_text().replace('"test"', '"train"')
    (model_path / "cameras.json").write_text(cameras)
    assert render(model_path, "--skip_train", "--skip_test", "--compare_teacher") == 0
    assert files(model_path / "train/iteration_30/compare_teacher") == stems(NAMES, ".png")


def test_figures_of_a_scene_that_moved(model_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved = (model_path.parent / "scene").rename(model_path.parent / "moved")
    arguments = ("--skip_train", "--skip_test", "--compare_teacher")
    assert render(model_path, *arguments) == 2
    capsys.readouterr()
    assert render(model_path, *arguments, "-s", str(moved)) == 0


def no_features(folder: Path) -> None:
    (folder / "point_cloud/iteration_30/features.safetensors").unlink()


def no_teacher(folder: Path) -> None:
    (folder.parent / "scene/features/codes").rename(folder.parent / "elsewhere")


def no_map(folder: Path) -> None:
    (folder.parent / "scene/features/codes/a.safetensors").unlink()


def other_teacher(folder: Path) -> None:
    write_meta(folder.parent / "scene/features/codes", "codes", CHANNELS + 1)


def nothing(folder: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("damage", "flags", "message"),
    [
        (no_features, ["--decode"], "--decode: .* has no features at iteration 30.*feature-gs lift"),
        (no_features, ["--compare_teacher"], "has no features"),
        (nothing, ["--decode", "--skip_features"], "--decode and --skip_features exclude"),
        (nothing, ["--patch", "4", "4", "8"], "--compare_teacher"),
        (nothing, ["--compare_teacher", "--patch", "32", "4", "8"], "--patch 32 4 8: .* 32 x 24 pixels"),
        (no_teacher, ["--compare_teacher"], "no maps of the teacher codes.*feature-gs encode"),
        (no_map, ["--compare_teacher"], "lacks the maps of 1 photos, a.png"),
        (other_teacher, ["--compare_teacher"], "have 8 channels, the model was taught 7"),
    ],
)
def test_impossible_requests_stop_before_anything_is_written(
    model_path: Path,
    damage: Callable[[Path], None],
    flags: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(model_path)
    assert render(model_path, *flags) == 2
    error = capsys.readouterr().err
    assert re.search(message, error, re.DOTALL), error
    assert not (model_path / "train").exists() and not (model_path / "test").exists()


def test_a_model_without_features_renders_as_ever(model_path: Path) -> None:
    no_features(model_path)
    assert render(model_path, "--skip_train") == 0
    assert files(model_path / "test/iteration_30/color") == ["a.png"]
    assert not (model_path / "test/iteration_30/features").exists()


def test_features_of_other_gaussians_are_refused(
    model_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    points = model_path / "point_cloud/iteration_30"
    model = GaussianModel.load_ply(points / "point_cloud.ply")
    one = {name: parameter[:1].detach() for name, parameter in model.named_parameters()}
    GaussianModel(**one, sh_degree=0).save_ply(points / "point_cloud.ply")
    assert render(model_path) == 2
    assert "features of 8 Gaussians, the PLY beside it 1" in capsys.readouterr().err
