"""`feature-gs demo`: makes a small scene, trains colours and features on it, shows it and asks it."""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image

from feature_gs.cli import segment
from feature_gs.cli.segment_settings import SegmentConfig
from feature_gs.errors import UserError
from feature_gs.evaluation import feature_cosines
from feature_gs.evaluation.label_images import find_label, label_names, read_label_image
from feature_gs.features.field import FeatureField
from feature_gs.features.lifting import lift
from feature_gs.features.teacher import TeacherStore, teacher_folder
from feature_gs.files import atomic_write
from feature_gs.rendering.camera_path import interpolate_path
from feature_gs.rendering.colormap import DepthRange, Picture, depth_colors
from feature_gs.rendering.pictures import save_picture, to_uint8
from feature_gs.rendering.strip import FEATURE_CAPTIONS, picture_strip, view_row
from feature_gs.rendering.video import check_ffmpeg, write_video
from feature_gs.scenes import Scene, load_scene
from feature_gs.scenes.procedural import write_demo_scene
from feature_gs.training import TrainConfig, train
from feature_gs.training.trained import Trained, load_trained, ply_path

# Lists the files of a demo scene with their sizes; written last, so that its presence means: all was written.
_MARK = "demo.json"
_TEACHER = "handcrafted"
_STRIP_VIEWS = 3
_VIDEO_FRAMES = 240
_THING, _VIEW, _POINT = (
    "globe",
    "000.png",
    (0.54, 0.42),
)  # asked for at these shares of the picture


@dataclass(frozen=True)
class DemoOptions:
    """Makes a small scene, trains colours and features on it, shows what came out and points at something."""

    output: Path = Path("output/demo")
    """Folder for the model, the pictures and the video."""
    data: Path = Path("data/demo")
    """Folder of the scene. It is made once and used again."""
    iterations: int = 2000
    """Number of training steps."""


def main(argv: list[str] | None = None) -> int:
    """Runs the demo; the exit code is 0."""
    options = tyro.cli(DemoOptions, args=argv, prog="feature-gs demo")
    check_ffmpeg()
    _check_output(options.output, options.data)
    start = time.perf_counter()
    print(prepare_scene(options.data))
    print(f"The teacher {_TEACHER} describes every photo first; training learns from that, too.", flush=True)
    config = TrainConfig(
        source_path=str(options.data),
        model_path=str(options.output),
        eval=True,
        foundation_model=_TEACHER,
        iterations=options.iterations,
        overwrite=True,
    )
    train(config)
    scene = load_scene(options.data, eval=True)
    trained = load_trained(options.output, options.iterations)
    field = trained.field()
    assert field is not None
    agreement = _compare_with_lifting(trained, field, scene, options.data)
    depths = _save_strip(options.output / "strip.png", trained, field, scene)
    write_video(options.output / "video.mp4", _frames(trained, field, scene, depths))
    answer = _point_at_something(options, scene)
    print(f"{_what_came_out(options)}\n{agreement}\n{answer}")
    print(f"All of it took {time.perf_counter() - start:.0f} s.\n\n{_what_next(options)}")
    return 0


def prepare_scene(folder: Path, **size: Any) -> str:
    """Makes the demo scene unless it is there and whole.

    Args:
        folder: Where the scene belongs.
        size: `views`, `width`, `height` and `seed` of `write_demo_scene`, where its defaults are not wanted.

    Returns:
        A sentence saying what was done.

    Raises:
        UserError: The folder holds something that the demo did not make.
    """
    if _is_whole(folder):
        return f"The scene in {folder} is used again."
    if folder.exists() and not (folder / _MARK).is_file() and any(folder.iterdir()):
        raise UserError(
            f"{folder} holds something that the demo did not make.\n"
            "  Name another folder (--data FOLDER), or remove this one."
        )
    start = time.perf_counter()
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    write_demo_scene(unfinished, **size)
    with atomic_write(unfinished / _MARK) as temporary:
        temporary.write_text(json.dumps(_sizes(unfinished), indent=1) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(unfinished, folder)
    photos = sum(path.is_file() for path in (folder / "images").rglob("*"))
    return f"Made a scene of {photos} photos in {folder} ({time.perf_counter() - start:.0f} s)."


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file, the mark left out."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.match(f"*{_MARK}"))
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _is_whole(folder: Path) -> bool:
    try:
        expected: Any = json.loads((folder / _MARK).read_text())
        return bool(expected) and all(
            (folder / name).stat().st_size == size for name, size in expected.items()
        )
    except (OSError, ValueError, AttributeError):
        return False


def _check_output(output: Path, data: Path) -> None:
    """The demo trains anew each time; it must not do so over the model of another scene."""
    config = output / "config.json"
    if config.is_file() and Path(TrainConfig.load(config).source_path).resolve() != data.resolve():
        raise UserError(
            f"{output} holds a model of another scene, {TrainConfig.load(config).source_path}.\n"
            "  Name another folder: --output FOLDER."
        )


def _compare_with_lifting(trained: Trained, field: FeatureField, scene: Scene, data: Path) -> str:
    """Lifts the same teacher onto the finished Gaussians; says how near both come to it on the test views."""
    teacher = TeacherStore.open(teacher_folder(data, _TEACHER))
    start = time.perf_counter()
    lifted = lift(trained.model, scene.train, teacher).field
    seconds = time.perf_counter() - start
    means = []
    for features in (field, lifted):
        cosines = feature_cosines(trained.model, features, scene.test, teacher)
        means.append(sum(cosines.values()) / len(cosines))
    trained_one, lifted_one = means
    return (
        f"Features agree with the teacher there: cosine {trained_one:.3f} trained, {lifted_one:.3f} lifted\n"
        f"onto the finished Gaussians in {seconds:.1f} s."
    )


def _save_strip(path: Path, trained: Trained, field: FeatureField, scene: Scene) -> DepthRange:
    """Writes the picture of some test views; returns the depths of its colour scale."""
    chosen = np.linspace(0, len(scene.test) - 1, min(_STRIP_VIEWS, len(scene.test))).round().astype(int)
    views = [scene.test[index] for index in chosen]
    outputs = [trained.render(view.camera) for view in views]
    depths = DepthRange.of((output.depth, output.alpha) for output in outputs)
    rows = [
        view_row(view.load(), output, depths, trained.render_palette(field, view.camera))
        for view, output in zip(views, outputs, strict=True)
    ]
    save_picture(path, picture_strip(rows, FEATURE_CAPTIONS))
    return depths


def _frames(trained: Trained, field: FeatureField, scene: Scene, depths: DepthRange) -> Iterator[Picture]:
    """Colour, depth and features side by side, along a smooth path through the training cameras."""
    for camera in interpolate_path([view.camera for view in scene.train], _VIDEO_FRAMES):
        output = trained.render(camera)
        depth = depth_colors(output.depth[0], output.alpha[0], depths)
        features = trained.render_palette(field, camera)
        yield np.concatenate([to_uint8(output.color[0]), depth, features], axis=1)


def _point_at_something(options: DemoOptions, scene: Scene) -> str:
    """Asks for a thing by a point in one test view; says how well the masks of all test views show it."""
    camera = next(view.camera for view in scene.test if view.camera.name == _VIEW)
    point = (round(_POINT[0] * camera.width), round(_POINT[1] * camera.height))
    segment.run(
        SegmentConfig(
            model_path=options.output, name=_THING, view=_VIEW, point=(point,), views="test", quiet=True
        )
    )
    folder = options.output / "queries" / _THING
    label = find_label(_THING, label_names(options.data))
    shared = together = 0
    for view in scene.test:
        mask = read_label_image(folder / "masks" / view.camera.name) > 0
        true = read_label_image(options.data / "labels" / view.camera.name) == label
        shared, together = shared + int((mask & true).sum()), together + int((mask | true).sum())
    names = [view.camera.name for view in scene.test][:_STRIP_VIEWS]
    overlays = [np.asarray(Image.open(folder / "overlay" / name).convert("RGB")) for name in names]
    captions = [f"one point in {name}" if name == _VIEW else f"its answer in {name}" for name in names]
    save_picture(options.output / "prompt.png", picture_strip([overlays], captions))
    return (
        f"A point on the {_THING} in one of them, answered in all: the masks share "
        f"{100 * shared / max(1, together):.0f} %\nwith the true ones (intersection over union)."
    )


def _what_came_out(options: DemoOptions) -> str:
    entry = json.loads((options.output / "results.json").read_text())[f"iteration_{options.iterations}"]
    test = entry["test"]
    return (
        f"{entry['gaussians']:,} Gaussians after {entry['seconds']:.0f} s; on {test['views']} views never "
        f"trained on:\nPSNR {test['psnr']:.2f} dB, SSIM {test['ssim']:.3f}."
    )


def _what_next(options: DemoOptions) -> str:
    activate = "source .venv/bin/activate\n  " if Path(sys.prefix) == Path.cwd() / ".venv" else ""
    return (
        f"Pictures  {options.output / 'strip.png'}   {' | '.join(FEATURE_CAPTIONS)}\n"
        f"Asked     {options.output / 'prompt.png'}   one point, answered in other views\n"
        f"Video     {options.output / 'video.mp4'}   render | depth | feature PCA\n"
        f"Figures   {options.output / 'results.json'}\n"
        f"Model     {ply_path(options.output, options.iterations)}\n"
        "          opens in every viewer of Gaussian splats\n\n"
        "Next, with your own folder that holds images/ and a COLMAP model in sparse/0:\n"
        f"  {activate}python train.py -s FOLDER -m output/NAME -f handcrafted --eval\n"
        "  python render.py -m output/NAME --video"
    )
