"""The training loop around `Trainer.step`: what is shown, saved and measured, and how it ends."""

import math
import time

import torch
from torch import Tensor

from feature_gs.errors import UserError
from feature_gs.training.interrupt import StopRequest, TrainingInterrupted
from feature_gs.training.measure import measure, measure_features
from feature_gs.training.memory import advice_on_memory, is_out_of_memory
from feature_gs.training.not_finite import NotFiniteError
from feature_gs.training.progress import Curves, Progress
from feature_gs.training.sampling import Maps, PhotoQueue
from feature_gs.training.trainer import Trainer

_SHOW_EVERY = 10
_RECORD_EVERY = 100


def run_training(trainer: Trainer) -> None:
    """Trains up to `config.iterations`; measures and saves on the way.

    Raises:
        TrainingInterrupted: After Ctrl-C or `kill`; a checkpoint and the PLY were saved.
        NotFiniteError: The loss or a gradient is not; the state before that step was saved.
        UserError: A file cannot be written.
    """
    config = trainer.config
    progress = Progress(trainer.iteration, config.iterations, config.quiet)
    curves = Curves(trainer.folder)
    photos = PhotoQueue(
        trainer.scene.train, config.seed, torch.device(config.data_device), trainer.device, _maps(trainer)
    )
    started = time.perf_counter() - trainer.seconds
    try:
        with StopRequest() as stop:
            while trainer.iteration < config.iterations:
                view, target, teacher_map = photos.get(trainer.iteration + 1)
                loss, image = trainer.step(view, target, teacher_map)
                if trainer.iteration % _SHOW_EVERY == 0 or trainer.iteration == config.iterations:
                    value, psnr, count = loss.item(), _psnr(image, target), len(trainer.model)
                    progress.advance((trainer.iteration - 1) % _SHOW_EVERY + 1, value, psnr, count)
                    if trainer.iteration % _RECORD_EVERY == 0:
                        shown = {"train/loss": value, "train/psnr": psnr, "gaussians": float(count)}
                        curves.add(trainer.iteration, shown)
                if stop.signum is not None:
                    trainer.guard.check(trainer.model, trainer.iteration, at_once=True)
                    trainer.seconds = time.perf_counter() - started
                    trainer.save_checkpoint()
                    trainer.save_ply(at_once=True)
                    raise TrainingInterrupted(stop.signum, trainer.iteration)
                if trainer.due(trainer.iteration):
                    trainer.seconds = time.perf_counter() - started
                    _visit(trainer, progress, curves)
                    started = time.perf_counter() - trainer.seconds
    except NotFiniteError as error:
        trainer.seconds, trainer.iteration = time.perf_counter() - started, error.iteration - 1
        message = f"{error}\nThe state before it: {trainer.save_checkpoint()}"
        raise NotFiniteError(message, error.iteration) from error
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        done, count = trainer.iteration, len(trainer.model)
        advice = advice_on_memory(config, trainer.device, done, count, trainer.folder)
        raise UserError(advice) from error
    finally:
        photos.close()
        curves.close()
        progress.close()


def _maps(trainer: Trainer) -> Maps:
    """Reads the maps of coming steps."""
    distillation = trainer.distillation
    if distillation is None:
        return lambda view: None
    return lambda view: distillation.map_of(view) if distillation.joint else None


def _visit(trainer: Trainer, progress: Progress, curves: Curves) -> None:
    """Saves and measures where the settings ask for it at this iteration."""
    config, last = trainer.config, trainer.iteration == trainer.config.iterations
    if last or trainer.iteration in config.save_iterations:
        path = trainer.save_ply()
        progress.say(f"iteration {trainer.iteration}: wrote {path}")
    if trainer.iteration in config.checkpoint_iterations:
        progress.say(f"iteration {trainer.iteration}: wrote {trainer.save_checkpoint()}")
    if last or trainer.iteration in config.test_iterations:
        for split, means in _measure(trainer).items():
            curves.add(trainer.iteration, {f"{split}/{key}": value for key, value in means.items()})
            figures = f"PSNR {means['psnr']:.2f} dB, SSIM {means['ssim']:.4f}"
            progress.say(f"iteration {trainer.iteration}: {split} {figures}")
        try:
            cosines = _measure_features(trainer)
        except UserError as error:  # of a test view, which training does not need
            progress.say(f"iteration {trainer.iteration}: features were not measured: {error}")
            cosines = {}
        for split, cosine in cosines.items():
            curves.add(trainer.iteration, {f"{split}/feature_cosine": cosine})
            progress.say(f"iteration {trainer.iteration}: {split} features: cosine {cosine:.4f}")


def _measure(trainer: Trainer) -> dict[str, dict[str, float]]:
    return measure(
        trainer.model,
        trainer.scene,
        trainer.config,
        trainer.background,
        folder=trainer.folder,
        iteration=trainer.iteration,
        seconds=trainer.seconds,
    )


def _measure_features(trainer: Trainer) -> dict[str, float]:
    """The cosines by split; none before features are taught. Those to be lifted wait for the end."""
    distillation, last = trainer.distillation, trainer.iteration == trainer.config.iterations
    if distillation is None or not (last or distillation.teaches_at(trainer.iteration)):
        return {}
    return measure_features(
        trainer.model,
        distillation.field(),
        trainer.scene,
        distillation.teacher,
        trainer.config,
        folder=trainer.folder,
        iteration=trainer.iteration,
    )


@torch.no_grad()
def _psnr(image: Tensor, target: Tensor) -> float:
    mse = (image.clamp(0, 1) - target.to(image)).square().mean().item()
    return -10 * math.log10(max(mse, 1e-10))
