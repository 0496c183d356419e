"""One training run from the command line's settings to the finished folder."""

import sys
from dataclasses import asdict, replace
from pathlib import Path

from feature_gs.errors import UserError
from feature_gs.features.teacher import TeacherStore
from feature_gs.rasterizer.device import compute_device, why_no_cuda
from feature_gs.scenes import Scene, load_scene, write_cameras_json
from feature_gs.training.checkpoint import Checkpoint, load_checkpoint, newest_whole_checkpoint
from feature_gs.training.config import TrainConfig
from feature_gs.training.folder import check_vacant, make_folder, model_folder
from feature_gs.training.loop import run_training
from feature_gs.training.memory import keep_freed_memory
from feature_gs.training.schedule import Schedule, schedule_for
from feature_gs.training.teaching import at_teacher_size, check_feature_flags, open_teacher, with_feature_dim
from feature_gs.training.trainer import Trainer


def train(config: TrainConfig) -> Path:
    """Trains a model and writes its folder.

    Args:
        config: The settings.

    Returns:
        The model folder.

    Raises:
        UserError: A setting, the scene or the checkpoint is not usable; the message says how to mend it.
        TrainingInterrupted: After Ctrl-C or `kill`; the state was saved.
    """
    config.check()
    folder = model_folder(config.model_path, config.source_path)
    if config.data_device == "cuda" and compute_device().type != "cuda":
        reason = why_no_cuda() or "FEATURE_GS_DEVICE keeps the training on the CPU"
        raise UserError(f"--data_device cuda: {reason}. Use --data_device cpu.")
    if not config.source_path:
        raise UserError("which photos? Name the folder of a scene: -s path/to/scene")
    inside = folder.resolve() in Path(config.start_checkpoint).resolve().parents
    goes_on = config.resume or (bool(config.start_checkpoint) and inside)
    if not goes_on and not config.overwrite:
        check_vacant(folder)
    check_feature_flags(config)
    checkpoint = _starting_point(config, folder)
    scene = load_scene(
        Path(config.source_path),
        images=config.images,
        resolution=config.resolution or 1,
        eval=config.eval,
        white_background=config.white_background,
    )
    if checkpoint is not None:
        _check_fits(checkpoint, config, scene)
    teacher = _teacher(config, scene)
    if teacher is not None:
        config = with_feature_dim(config, teacher.channels)
        if config.resolution == 0:
            scene = at_teacher_size(scene, teacher)
    config, schedule = filled_in(config)
    trainer = Trainer(config, schedule, scene, folder, teacher, checkpoint)
    make_folder(folder, clear=config.overwrite)
    config.save(folder / "config.json")
    train, test = ([view.camera for view in views] for views in (scene.train, scene.test))
    write_cameras_json(folder / "cameras.json", train, test)
    if not config.quiet:
        _introduce(scene, trainer)
    keep_freed_memory()
    run_training(trainer)
    return folder


def filled_in(config: TrainConfig) -> tuple[TrainConfig, Schedule]:
    """The settings with every number that follows from others, and the schedule they amount to."""
    usual = schedule_for(config.iterations, config.strategy)
    given = {name: getattr(config, name) for name in asdict(usual)}
    schedule = replace(usual, **{name: value for name, value in given.items() if value is not None})
    source = str(Path(config.source_path).resolve()) if config.source_path else ""
    return replace(config, source_path=source, **asdict(schedule)), schedule


def _starting_point(config: TrainConfig, folder: Path) -> Checkpoint | None:
    if config.start_checkpoint:
        if config.resume:
            raise UserError(
                "--resume takes the newest checkpoint of the model folder: leave out --start_checkpoint."
            )
        return load_checkpoint(Path(config.start_checkpoint))
    if not config.resume:
        return None
    if config.overwrite:
        raise UserError("--resume and --overwrite exclude each other.")
    checkpoint, messages = newest_whole_checkpoint(folder)
    for message in messages:
        print(f"skipped: {message}", file=sys.stderr)
    return checkpoint


def _teacher(config: TrainConfig, scene: Scene) -> TeacherStore | None:
    if not config.foundation_model:
        return None
    return open_teacher(
        config.foundation_model,
        Path(config.source_path),
        [*scene.train, *scene.test] if config.resolution == 0 else scene.train,
        images=config.images,
        white_background=config.white_background,
        weights=config.weights,
        accept=lambda channels: with_feature_dim(config, channels),
        say=_silent if config.quiet else _to_stderr,
        quiet=config.quiet,
    )


def _check_fits(checkpoint: Checkpoint, config: TrainConfig, scene: Scene) -> None:
    for flag, stored, given in (
        ("--strategy", checkpoint.strategy, config.strategy),
        ("--sh_degree", checkpoint.sh_degree, config.sh_degree),
    ):
        if stored != given:
            raise UserError(
                f"the checkpoint was trained with {flag} {stored}, not {given}: give {flag} {stored}."
            )
    if checkpoint.iteration >= config.iterations:
        raise UserError(
            f"the checkpoint is at iteration {checkpoint.iteration} of {config.iterations}, so nothing is "
            "left to train. Go further with a larger --iterations."
        )
    if "features" in checkpoint.model and not config.foundation_model:
        raise UserError(
            "the Gaussians of the checkpoint carry features: name the teacher that taught them with -f."
        )
    names = [view.camera.name for view in scene.train]
    if config.resume and names != checkpoint.views:
        raise UserError(
            f"the checkpoint was trained on other photos ({len(checkpoint.views)}) than the scene has "
            f"({len(names)}). Give the same -s, -i and --eval, or start from it on other photos with "
            "--start_checkpoint and -m."
        )


def _introduce(scene: Scene, trainer: Trainer) -> None:
    camera = scene.train[0].camera
    start = f", from iteration {trainer.iteration}" if trainer.iteration else ""
    print(
        f"{scene.name}: {len(scene.train)} training and {len(scene.test)} test views, "
        f"{camera.width} x {camera.height}; {len(trainer.model):,} Gaussians{start}",
        file=sys.stderr,
    )
    for message in scene.messages:
        print(f"  {message}", file=sys.stderr)


def _to_stderr(message: str) -> None:
    print(message, file=sys.stderr)


def _silent(_: str) -> None:
    pass
