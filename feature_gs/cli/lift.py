"""`feature-gs lift`: features onto finished Gaussians, in closed form; colours and shape stay.

    feature-gs lift -m MODEL -f TEACHER                     onto a trained model
    feature-gs lift --ply ANY.ply -s SCENE -f TEACHER -m OUT   onto a PLY of any tool

The first writes MODEL/point_cloud/iteration_N/features.safetensors and learns from the views the model was
trained on. The second writes a model folder that render, evaluate and lift take:

    OUT/config.json, OUT/cameras.json
    OUT/point_cloud/iteration_0/point_cloud.ply         the Gaussians in the standard layout
    OUT/point_cloud/iteration_0/features.safetensors
"""

import shlex
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import Literal, cast

import torch
import tyro
from torch import nn
from tqdm import tqdm

from feature_gs.cli.lift_settings import LiftConfig
from feature_gs.errors import UserError
from feature_gs.features.decoders import Decoder, check_channels, pca_decoder
from feature_gs.features.field import FeatureField, field_path
from feature_gs.features.lifting import Lifted, lift
from feature_gs.features.rendering import fit_field_palette
from feature_gs.features.teacher import TeacherStore
from feature_gs.gaussians import GaussianModel
from feature_gs.rasterizer.device import compute_device
from feature_gs.scenes import View, load_scene, write_cameras_json
from feature_gs.training import TrainConfig
from feature_gs.training.folder import model_written_whole
from feature_gs.training.teaching import at_teacher_size, open_teacher
from feature_gs.training.trained import SPLITS, Trained, load_trained, ply_path

_ITERATIONS = 5


def main(argv: list[str] | None = None) -> int:
    """Runs the verb; see the module's text for what it writes."""
    config = tyro.cli(
        LiftConfig,
        args=argv,
        prog="feature-gs lift",
        use_underscores=True,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    run(config)
    return 0


def run(config: LiftConfig) -> None:
    """Lifts what `config` asks for and says where it is. Nothing of the model is written before that is done.

    Raises:
        UserError: The Gaussians, the scene, the teacher or the request is at fault.
    """
    config.check()
    say = _silent if config.quiet else print
    lesson = _of_model(config, say) if config.ply is None else _of_ply(config, config.ply, say)
    trained = lesson.trained
    path = ply_path(trained.path, trained.iteration)
    if config.ply is None and field_path(path).is_file():
        say(f"{field_path(path)} will be replaced.")
    decoder = _decoder(config, lesson)
    started = time.perf_counter()
    lifted = lift(
        trained.model,
        lesson.views,
        lesson.teacher,
        decoder=decoder,
        solver=config.solver,
        iterations=config.iterations or _ITERATIONS,
        antialiased=trained.config.antialiased,
        near=trained.config.near,
        watch=_bars(config),
    )
    seconds = time.perf_counter() - started
    if not bool(lifted.field.seen.any()):
        raise UserError(
            f"none of the {len(lesson.views)} views shows any of the {len(trained.model):,} Gaussians: are "
            "they and the scene (-s) in the same coordinates?"
        )
    _write(config, trained, lifted.field)
    _report(lesson, lifted, seconds, say)


@dataclass(frozen=True)
class _Lesson:
    """Who learns from what: the Gaussians and their folder, the views to learn from, and the teacher."""

    trained: Trained
    views: list[View]
    teacher: TeacherStore


def _of_model(config: LiftConfig, say: Callable[[str], None]) -> _Lesson:
    trained = load_trained(config.model_path, config.iteration)
    try:
        photos = trained.views(config.source_path)
    except UserError as error:
        raise UserError(f"{error}\n  If the scene is elsewhere now, name its folder with -s.") from None
    cameras = trained.cameras["train"]
    views = [photos[camera.name] for camera in cameras if camera.name in photos]
    if not views:
        raise UserError(f"none of the {len(cameras)} photos that the model was trained on is there (-s).")
    if len(views) < len(cameras):
        say(f"{len(cameras) - len(views)} training photos are gone; the others teach.")
    source = Path(config.source_path or trained.config.source_path)
    return _Lesson(trained, views, _teacher(config, trained.config, source, views, say))


def _of_ply(config: LiftConfig, ply: Path, say: Callable[[str], None]) -> _Lesson:
    device = compute_device()
    model = GaussianModel.load_ply(ply).to(device)
    source = Path(config.source_path)
    settings = TrainConfig(
        source_path=str(source.resolve()),
        images=config.images,
        resolution=config.resolution,
        eval=config.eval,
        white_background=config.white_background,
        sh_degree=cast(Literal[0, 1, 2, 3], model.sh_degree),
        near=config.near,
        antialiased=config.antialiased,
        foundation_model=config.teacher,
        features="lift",
        decoder=config.decoder,
    )
    scene = load_scene(
        source,
        images=config.images,
        resolution=config.resolution or 1,
        eval=config.eval,
        white_background=config.white_background,
    )
    for message in scene.messages:
        say(message)
    needed = [*scene.train, *scene.test] if config.resolution == 0 else scene.train
    teacher = _teacher(config, settings, source, needed, say)
    if config.resolution == 0:
        scene = at_teacher_size(scene, teacher)
    splits = zip(SPLITS, (scene.train, scene.test), strict=True)
    cameras = {split: [view.camera for view in views] for split, views in splits}
    background = torch.full((3,), 1.0 if config.white_background else 0.0, device=device)
    trained = Trained(config.model_path, 0, settings, cameras, model, background)
    return _Lesson(trained, scene.train, teacher)


def _teacher(
    config: LiftConfig, training: TrainConfig, source: Path, needed: list[View], say: Callable[[str], None]
) -> TeacherStore:
    def accept(channels: int) -> None:
        if config.feature_dim is not None:
            check_channels(config.decoder, config.feature_dim, channels, pca=True)

    return open_teacher(
        config.teacher,
        source,
        needed,
        images=training.images,
        white_background=training.white_background,
        weights=config.weights,
        accept=accept,
        say=say,
        quiet=config.quiet,
    )


def _decoder(config: LiftConfig, lesson: _Lesson) -> Decoder | None:
    if config.decoder == "none":
        return None
    channels = lesson.teacher.channels
    maps = (lesson.teacher.load(view).features for view in lesson.views)
    return pca_decoder(maps, config.feature_dim or max(1, channels // 4), channels)


def _bars(config: LiftConfig) -> Callable[[Iterable[View]], Iterable[View]]:
    """Shows a progress bar for every pass over the views."""
    most = config.iterations or _ITERATIONS
    names = chain(["mean", "residual"], (f"cg {number}/{most}" for number in count(1)))
    return lambda views: tqdm(views, next(names), unit="view", ncols=80, disable=config.quiet)


def _write(config: LiftConfig, trained: Trained, field: FeatureField) -> None:
    model, settings = trained.model, trained.config
    field.palette = fit_field_palette(
        model, field, trained.cameras["train"], antialiased=settings.antialiased, near=settings.near
    )
    columns = config.ply_features or settings.ply_features  # those there would be of other features
    if columns:
        model.features = nn.Parameter(field.features, requires_grad=False)
    if config.ply is None:
        path = ply_path(trained.path, trained.iteration)
        if columns:
            model.save_ply(path, features=columns)
        field.save(field_path(path))
        return
    with model_written_whole(trained.path, config.overwrite) as folder:
        path = ply_path(folder, trained.iteration)
        model.save_ply(path, features=columns)
        field.save(field_path(path))
        write_cameras_json(folder / "cameras.json", *(trained.cameras[split] for split in SPLITS))
        settings = replace(settings, feature_dim=field.decoder.features, ply_features=columns)
        settings.save(folder / "config.json")


def _report(lesson: _Lesson, lifted: Lifted, seconds: float, say: Callable[[str], None]) -> None:
    trained, field = lesson.trained, lifted.field
    seen, carried = int(field.seen.sum()), field.decoder.features
    through = "" if carried == field.decoder.channels else f" as {carried}"
    say(
        f"\nlifted:    {lesson.teacher.name}, {field.decoder.channels} channels{through}, from "
        f"{len(lesson.views)} views in {seconds:.1f} seconds"
    )
    say(f"gaussians: {seen:,} seen, {len(field) - seen:,} not seen")
    if lifted.residual:
        first, *_, last = lifted.residual
        say(f"residual:  {first:.4g} of the mean, {last:.4g} after {len(lifted.residual) - 1} iterations")
    say(f"features:  {field_path(ply_path(trained.path, trained.iteration))}")
    say(f"next:      feature-gs render -m {shlex.quote(str(trained.path))} --video")


def _silent(_: str) -> None:
    pass
