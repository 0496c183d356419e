"""Measuring a model while it is being trained."""

from pathlib import Path

from torch import Tensor

from feature_gs.evaluation import evaluate_views, feature_cosines, update_features, update_results
from feature_gs.features.field import FeatureField
from feature_gs.features.teacher import TeacherStore
from feature_gs.gaussians import GaussianModel
from feature_gs.scenes import Scene, View
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
    means: dict[str, dict[str, float]] = {}
    for split, views in _splits(scene).items():
        per_view = evaluate_views(
            model, views, background=background, antialiased=config.antialiased, near=config.near
        )
        entry = update_results(folder, iteration, split, per_view, gaussians=len(model), seconds=seconds)
        if views:
            means[split] = {key: float(entry[split][key]) for key in ("psnr", "ssim")}
    return means


def measure_features(
    model: GaussianModel,
    field: FeatureField,
    scene: Scene,
    teacher: TeacherStore,
    config: TrainConfig,
    *,
    folder: Path,
    iteration: int,
) -> dict[str, float]:
    """Measures the features on the same views, as far as they have teacher maps, and enters the figures.

    Args:
        model: The Gaussians.
        field: Their features.
        scene: The views.
        teacher: The maps.
        config: How the model is rendered.
        folder: The model folder.
        iteration: The steps done.

    Returns:
        The mean cosine for "test" and "train", without a split that has no maps.

    Raises:
        UserError: A map is damaged.
    """
    means = {}
    for split, views in _splits(scene).items():
        cosines = feature_cosines(
            model, field, views, teacher, antialiased=config.antialiased, near=config.near
        )
        if cosines:
            means[split] = sum(cosines.values()) / len(cosines)
    update_features(folder, iteration, field.teacher, field.decoder.channels, means)
    return means


def _splits(scene: Scene) -> dict[str, list[View]]:
    every = max(1, len(scene.train) // _TRAIN_VIEWS)
    return {"test": list(scene.test), "train": list(scene.train[::every][:_TRAIN_VIEWS])}
