"""`feature-gs render` and `feature-gs evaluate` on a tiny model: files, contents, messages."""

import json
import math
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
import torch

from feature_gs.cli.main import main
from feature_gs.evaluation.lpips import default_weights
from feature_gs.gaussians import GaussianModel
from feature_gs.scenes import Camera, write_cameras_json
from feature_gs.training.config import TrainConfig
from feature_gs.training.trained import load_trained

WIDTH, HEIGHT = 33, 26
NAMES = [f"{side}/{index}.jpg" for index in range(4) for side in ("left", "right")]
TEST_NAMES = {"left/0.jpg", "right/3.jpg"}


def orbit_camera(name: str, angle: float) -> Camera:
    """A camera 3 units from the origin, looking at it."""
    c, s = math.cos(angle), math.sin(angle)
    pose = torch.tensor([[c, 0, s, 0], [0, 1, 0, 0], [-s, 0, c, 3], [0, 0, 0, 1]])
    K = torch.tensor([[30, 0, WIDTH / 2], [0, 30, HEIGHT / 2], [0, 0, 1]])
    return Camera(name, WIDTH, HEIGHT, K, pose)


CAMERAS = [orbit_camera(name, 2 * math.pi * index / len(NAMES)) for index, name in enumerate(NAMES)]


def write_cameras(folder: Path, cameras: list[Camera], test_names: set[str]) -> None:
    tested = [camera.name in test_names for camera in cameras]
    train = [camera for camera, test in zip(cameras, tested, strict=True) if not test]
    test = [camera for camera, test in zip(cameras, tested, strict=True) if test]
    write_cameras_json(folder / "cameras.json", train, test)


def write_scene(folder: Path) -> None:
    """A COLMAP text model of the cameras, with random photos."""
    (folder / "sparse" / "0").mkdir(parents=True)
    (folder / "sparse/0/cameras.txt").write_text(
        f"1 PINHOLE {WIDTH} {HEIGHT} 30 30 {WIDTH / 2} {HEIGHT / 2}\n"
    )
    lines = []
    for index, camera in enumerate(CAMERAS):
        angle = 2 * math.pi * index / len(CAMERAS)
        quaternion = f"{math.cos(angle / 2)} 0 {math.sin(angle / 2)} 0"
        lines.append(f"{index + 1} {quaternion} 0 0 3 1 {camera.name}\n\n")
    (folder / "sparse/0/images.txt").write_text("".join(lines))
    (folder / "sparse/0/points3D.txt").write_text("1 0 0 0 200 100 50 0.1\n")
    (folder / "test.txt").write_text("\n".join(sorted(TEST_NAMES)))
    rng = np.random.default_rng(0)
    for name in NAMES:
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / "images" / name), rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))


def tiny_model(size: float = 0.5) -> GaussianModel:
    """One nearly opaque orange ball at the origin and one blue ball beside it."""
    return GaussianModel(
        means=torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.6, 0.0]]),
        quats=torch.tensor([[1.0, 0, 0, 0], [1.0, 0, 0, 0]]),
        log_scales=torch.full((2, 3), math.log(size)),
        logit_opacities=torch.full((2,), 8.0),
        sh_dc=torch.tensor([[1.5, 0.0, -1.5], [-1.0, -1.0, 1.5]]),
        sh_rest=torch.zeros(2, 0, 3),
        sh_degree=0,
    )


@pytest.fixture
def model_path(tmp_path: Path) -> Path:
    """A model folder, saved at iterations 30 and 200, and its scene in `scene` beside it."""
    write_scene(tmp_path / "scene")
    folder = tmp_path / "model"
    for iteration in (30, 200):
        tiny_model().save_ply(folder / "point_cloud" / f"iteration_{iteration}" / "point_cloud.ply")
    (folder / "point_cloud" / "iteration_9000").mkdir()  # killed before its PLY was there
    TrainConfig(source_path=str(tmp_path / "scene"), eval=True, sh_degree=0).save(folder / "config.json")
    write_cameras(folder, CAMERAS, TEST_NAMES)
    return folder


def pictures(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))


def png(path: Path) -> np.ndarray:
    """A picture as stored; colours as RGB."""
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    return picture[..., ::-1] if picture.ndim == 3 else picture


def test_render_writes_every_view_under_its_name(model_path: Path) -> None:
    assert main(["render", "-m", str(model_path), "--quiet"]) == 0
    for split, names in (("test", TEST_NAMES), ("train", set(NAMES) - TEST_NAMES)):
        folder = model_path / split / "iteration_200"
        for kind in ("color", "gt", "depth", "depth_color", "alpha"):
            assert pictures(folder / kind) == sorted(name.replace(".jpg", ".png") for name in names)
    assert not (model_path / "novel").exists()
    assert not list(model_path.rglob("*.tmp*"))


def test_pictures_hold_what_was_rendered(model_path: Path) -> None:
    assert main(["render", "-m", str(model_path), "--skip_train", "--quiet"]) == 0
    assert not (model_path / "train").exists()
    folder = model_path / "test" / "iteration_200"
    output = load_trained(model_path).render(next(view for view in CAMERAS if view.name == "right/3.jpg"))
    color, alpha = output.color[0].clamp(0, 1).numpy(), output.alpha[0].numpy()
    assert np.abs(png(folder / "color/right/3.png") / 255 - color).max() <= 0.5 / 255 + 1e-4
    assert np.abs(png(folder / "alpha/right/3.png") / 255 - alpha).max() <= 0.5 / 255 + 1e-4
    meta = json.loads((folder / "depth/meta.json").read_text())
    depth = png(folder / "depth/right/3.png") * meta["depth_scale"]
    there = alpha > 0.01
    assert np.abs(depth - output.depth[0].numpy())[there].max() <= meta["depth_scale"]
    assert depth[HEIGHT // 2, WIDTH // 2] == pytest.approx(3, abs=0.1)
    assert (depth[alpha < 0.001] == 0).all() and (alpha < 0.001).any()


def test_gt_is_the_photo(model_path: Path) -> None:
    cv2.imwrite(
        str(model_path.parent / "scene/images/left/0.jpg"),
        np.full((HEIGHT, WIDTH, 3), (10, 100, 200), np.uint8),
    )
    main(["render", "-m", str(model_path), "--skip_train", "--quiet"])
    gt = png(model_path / "test/iteration_200/gt/left/0.png")
    assert np.abs(gt.astype(int) - (200, 100, 10)).max() <= 4


def test_novel_views_and_video(model_path: Path) -> None:
    arguments = ["render", "-m", str(model_path), "--skip_train", "--skip_test", "--quiet"]
    assert main([*arguments, "--novel_view", "--num_views", "9"]) == 0
    folder = model_path / "novel" / "iteration_200"
    assert pictures(folder / "color") == [f"{index:05d}.png" for index in range(9)]
    assert not (folder / "video.mp4").exists() and not (folder / "gt").exists()

    assert main([*arguments, "--video", "--num_views", "5", "--fps", "7"]) == 0
    assert pictures(folder / "color") == [f"{index:05d}.png" for index in range(5)], (
        "older frames are mixed in"
    )
    reader = imageio_ffmpeg.read_frames(str(folder / "video.mp4"))
    meta = next(reader)
    assert meta["size"] == (WIDTH + 1, HEIGHT) and meta["fps"] == 7
    assert len(list(reader)) == 5

    assert main([*arguments, "--multi_interpolate"]) == 0
    assert len(pictures(folder / "color")) == 2 * (len(NAMES) - len(TEST_NAMES) - 1)


def test_iteration_is_the_newest_or_the_one_named(
    model_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load_trained(model_path).iteration == 200
    assert load_trained(model_path, 30).iteration == 30
    assert main(["render", "-m", str(model_path), "--iteration", "7000"]) == 2
    assert "no iteration 7000; --iteration can be 30, 200." in capsys.readouterr().err


def test_without_photos_all_but_gt_is_rendered(model_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (model_path.parent / "scene").rename(model_path.parent / "moved")
    assert main(["render", "-m", str(model_path), "--skip_train"]) == 0
    folder = model_path / "test" / "iteration_200"
    assert len(pictures(folder / "color")) == 2 and not (folder / "gt").exists()
    assert "gt is left out" in capsys.readouterr().out
    moved = str(model_path.parent / "moved")
    assert main(["render", "-m", str(model_path), "--skip_train", "--quiet", "-s", moved]) == 0
    assert len(pictures(folder / "gt")) == 2


def test_empty_test_set_is_no_error(model_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_cameras(model_path, CAMERAS, set())
    assert main(["render", "-m", str(model_path)]) == 0
    assert "No test views" in capsys.readouterr().out
    assert len(pictures(model_path / "train/iteration_200/color")) == len(NAMES)
    assert main(["evaluate", "-m", str(model_path)]) == 0
    printed = capsys.readouterr().out
    assert "No test views" in printed and "mean of 8" in printed


def test_images_that_differ_only_in_suffix_keep_both(model_path: Path) -> None:
    write_cameras(
        model_path, [orbit_camera("a.jpg", 0), orbit_camera("a.png", 1), orbit_camera("b.png", 2)], set()
    )
    assert main(["render", "-m", str(model_path), "--quiet"]) == 0
    assert pictures(model_path / "train/iteration_200/color") == ["a.jpg.png", "a.png.png", "b.png"]


def test_what_is_printed_says_where_and_what_next(
    model_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["render", "-m", str(model_path), "--video", "--num_views", "3"]) == 0
    printed = capsys.readouterr().out
    for part in (
        "train/iteration_200",
        "test/iteration_200",
        "video.mp4",
        f"feature-gs evaluate -m {model_path}",
    ):
        assert part in printed
    assert main(["render", "-m", str(model_path), "--skip_train", "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: folder.rename(folder.parent / "other"), "there is no folder"),
        (lambda folder: (folder / "config.json").unlink(), "config.json"),
        (lambda folder: (folder / "cameras.json").unlink(), "cameras.json"),
        (lambda folder: (folder / "point_cloud").rename(folder / "old"), "holds no trained Gaussians"),
        (lambda folder: write_cameras(folder, CAMERAS, set(NAMES)), "no training camera"),
        (lambda folder: write_cameras(folder, [orbit_camera("../up.jpg", 0)], set()), "leads out"),
    ],
)
@pytest.mark.parametrize("verb", ["render", "evaluate"])
def test_damaged_model_folders_are_named(
    model_path: Path, damage: object, message: str, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(damage)
    damage(model_path)
    assert main([verb, "-m", str(model_path)]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and "Traceback" not in printed.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--skip_train", "--skip_test"], "nothing to render"),
        (["--novel_view", "--num_views", "0"], "at least 1"),
        (["--video", "--fps", "0"], "--fps"),
    ],
)
def test_impossible_requests(
    model_path: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["render", "-m", str(model_path), *flags]) == 2
    assert message in capsys.readouterr().err


def test_evaluate_enters_the_figures(model_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The photo of one test view is what the model renders, so that its error is that of 8 bits."""
    trained = load_trained(model_path)
    scene = model_path.parent / "scene"
    camera = next(view for view in CAMERAS if view.name == "left/0.jpg")
    exact = (trained.render(camera).color[0].clamp(0, 1) * 255).round().byte().numpy()
    (scene / "images/left/0.jpg").unlink()
    encoded = cv2.imencode(".png", exact[..., ::-1])[1]
    (scene / "images/left/0.jpg").write_bytes(encoded.tobytes())

    assert main(["evaluate", "-m", str(model_path)]) == 0
    printed = capsys.readouterr().out
    for folder in (model_path, default_weights().parent):
        printed = printed.replace(str(folder), "output/tiny")
    assert max(map(len, printed.splitlines())) <= 80
    results = json.loads((model_path / "results.json").read_text())["iteration_200"]
    views = json.loads((model_path / "per_view.json").read_text())["iteration_200"]
    assert results["gaussians"] == 2
    assert set(views["test"]) == TEST_NAMES and set(views["train"]) == set(NAMES) - TEST_NAMES
    assert views["test"]["left/0.jpg"]["psnr"] > 50
    assert views["test"]["left/0.jpg"]["ssim"] > 0.99
    assert views["test"]["right/3.jpg"]["psnr"] < 15
    mean = (views["test"]["left/0.jpg"]["psnr"] + views["test"]["right/3.jpg"]["psnr"]) / 2
    assert results["test"]["psnr"] == pytest.approx(mean) and results["test"]["views"] == 2
    assert f"{mean:.2f}" in printed
