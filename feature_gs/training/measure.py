"""Measuring a model while it is being trained."""

from pathlib import Path

from torch import Tensor

from feature_gs.evaluation import evaluate_views, update_results
from feature_gs.gaussians import GaussianModel
from feature_gs.scenes import Scene
from feature_gs.training.config import TrainConfig

_TRAIN_VIEWS = 5


def measure(
    model: GaussianModel,
    scene: Scene,
    config: TrainConfig,
    background: Tensor | None,  # [3]
    *,
    folder: Path,
    iteration: int,
    seconds: float,
) -> dict[str, dict[str, float]]:
    """Measures all test views and up to five training views, and enters the figures in results.json.

    Args:
        model: The Gaussians.
        scene: The views.
        config: How the model is rendered.
        background: Colour behind the Gaussians; black when None. [3]
        folder: The model folder.
        iteration: The steps done.
        seconds: Training time so far.

    Returns:
        Mean "psnr" in dB and "ssim" for "test" and "train", without a split that has no views.
    """
    every = max(1, len(scene.train) // _TRAIN_VIEWS)
    means: dict[str, dict[str, float]] = {}
    for split, views in (("test", scene.test), ("train", scene.train[::every][:_TRAIN_VIEWS])):
        per_view = evaluate_views(
            model, views, background=background, antialiased=config.antialiased, near=config.near
        )
        entry = update_results(folder, iteration, split, per_view, gaussians=len(model), seconds=seconds)
        if views:
            means[split] = {key: float(entry[split][key]) for key in ("psnr", "ssim")}
    return means
