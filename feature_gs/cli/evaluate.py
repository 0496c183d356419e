"""`feature-gs evaluate`: how near a trained model is to photos and teacher, to the terminal and to JSON."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tqdm import tqdm

from feature_gs.errors import UserError
from feature_gs.evaluation import (
    Lpips,
    evaluate_views,
    feature_cosines,
    how_to_get_lpips,
    load_lpips,
    metrics_table,
    update_features,
    update_results,
)
from feature_gs.features.teacher import TeacherStore, find_teacher
from feature_gs.scenes import View
from feature_gs.training.trained import SPLITS, Trained, load_trained


@dataclass(frozen=True)
class EvaluateConfig:
    """Measure a trained model on its test and training views.

    Pictures are compared as rendered, not as saved in 8 bits. LPIPS is the VGG
    kind, on colours in [-1, 1]. Features are compared with the teacher's maps,
    where these are.
    """

    model_path: Annotated[Path, tyro.conf.arg(aliases=["-m"])]
    """Folder of the trained model."""
    source_path: Annotated[str, tyro.conf.arg(aliases=["-s"])] = ""
    """Folder of the scene, when it is no longer where it was at training."""
    iteration: int = -1
    """Iteration to measure; -1: the newest."""
    skip_train: bool = False
    """Leave out the training views."""
    skip_test: bool = False
    """Leave out the test views."""
    lpips_weights: Path | None = None
    """VGG-16 weights for LPIPS. None: those in torch's cache, if any."""
    quiet: bool = False
    """Print only errors; the figures are in results.json and per_view.json."""


def main(argv: list[str] | None = None) -> int:
    """Measures, prints a table, and enters the figures in results.json and per_view.json."""
    config = tyro.cli(
        EvaluateConfig,
        args=argv,
        prog="feature-gs evaluate",
        use_underscores=True,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    run(config)
    return 0


def run(config: EvaluateConfig) -> None:
    """Measures what `config` asks for.

    Raises:
        UserError: The model folder, the photos or the request is at fault.
    """
    skipped = {"train": config.skip_train, "test": config.skip_test}
    if all(skipped.values()):
        raise UserError("nothing to measure: --skip_train and --skip_test.")
    lpips = load_lpips(config.lpips_weights)
    trained = load_trained(config.model_path, config.iteration)
    photos = trained.views(config.source_path)
    tables = []
    measured: dict[str, list[View]] = {}
    for split in SPLITS:
        cameras = trained.cameras[split]
        views = [photos[camera.name] for camera in cameras if camera.name in photos]
        if skipped[split]:
            continue
        if not views:
            tables.append(_no_views(split, len(cameras)))
            continue
        measured[split] = views
        tables.append(_measure(config, trained, split, views, lpips))
        if len(views) < len(cameras):
            tables.append(f"{len(cameras) - len(views)} {split} views have no photo any more: not measured.")
    try:
        features = _compare_features(config, trained, measured)
    except UserError as error:
        features = f"Features were not compared: {error}"
    if features:
        tables.append(features)
    if config.quiet:
        return
    for table in tables:
        print(f"\n{table}")
    if lpips is None:
        print(f"\nLPIPS was left out. {how_to_get_lpips()}")
    print(f"\nIn JSON: {config.model_path / 'results.json'} and per_view.json beside it.")


def _measure(
    config: EvaluateConfig, trained: Trained, split: str, views: list[View], lpips: Lpips | None
) -> str:
    per_view = evaluate_views(
        trained.model,
        tqdm(views, split, unit="view", ncols=80, disable=config.quiet),
        background=trained.background,
        antialiased=trained.config.antialiased,
        near=trained.config.near,
        lpips=lpips,
    )
    update_results(trained.path, trained.iteration, split, per_view, gaussians=len(trained.model))
    return metrics_table(per_view, f"{split} view")


def _compare_features(config: EvaluateConfig, trained: Trained, measured: dict[str, list[View]]) -> str:
    """Measures features on the views that were measured; says what came out, nothing without features."""
    field = trained.field()
    if field is None:
        return ""
    source = config.source_path or trained.config.source_path
    folder = find_teacher(Path(source), field.teacher)
    if folder is None:
        return f"Features were not compared: {source} has no maps of {field.teacher} (feature-gs encode)."
    teacher = TeacherStore.open(folder)
    if teacher.channels != field.decoder.channels:
        return (
            f"Features were not compared: the maps in {folder} have {teacher.channels} channels, the "
            f"model was taught {field.decoder.channels}."
        )
    means, lines = {}, []
    for split, views in measured.items():
        cosines = feature_cosines(
            trained.model,
            field,
            tqdm(views, f"{split} features", unit="view", ncols=80, disable=config.quiet),
            teacher,
            antialiased=trained.config.antialiased,
            near=trained.config.near,
        )
        if cosines:
            means[split] = sum(cosines.values()) / len(cosines)
            lines.append(f"{split} features: cosine {means[split]:.4f} with {teacher.name}")
        if len(cosines) < len(views):
            lines.append(f"{len(views) - len(cosines)} {split} views have no map: features not compared.")
    update_features(trained.path, trained.iteration, field.teacher, field.decoder.channels, means)
    return "\n".join(lines)


def _no_views(split: str, cameras: int) -> str:
    if cameras:
        return f"None of the {cameras} {split} views has a photo any more."
    return f"No {split} views: the model was trained without --eval."
