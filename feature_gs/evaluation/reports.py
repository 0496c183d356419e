"""results.json, per_view.json and the table on the terminal.

results.json: {"iteration_N": {"test": {"psnr", "ssim", "lpips" or null, "views"}, "train": {...},
"gaussians", "seconds", "features": {"teacher", "channels", "cosine": {"test", "train"}}}}; per_view.json:
{"iteration_N": {"test": {IMAGE: {"psnr", "ssim", "lpips"}}}}.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from feature_gs.evaluation.evaluate import METRICS, Metrics, mean_metrics
from feature_gs.files import atomic_write

_HEADINGS = {"psnr": "PSNR dB", "ssim": "SSIM", "lpips": "LPIPS"}
_DIGITS = {"psnr": 2, "ssim": 4, "lpips": 4}
_LONGEST_TABLE = 40


def update_results(
    model_path: Path,
    iteration: int,
    split: str,
    per_view: dict[str, Metrics],
    *,
    gaussians: int | None = None,
    seconds: float | None = None,
) -> dict[str, Any]:
    """Enters the figures of one split of one iteration; everything else that the files hold stays.

    Args:
        model_path: The model's folder.
        iteration: The iteration that was measured.
        split: "test" or "train".
        per_view: Metrics by image name; an empty one only enters gaussians and seconds.
        gaussians: Number of Gaussians; None keeps what is there.
        seconds: Training time so far; None keeps what is there.

    Returns:
        The entry of this iteration as it now stands in results.json.
    """
    key = f"iteration_{iteration}"
    results = _read(model_path / "results.json")
    entry = results.setdefault(key, {})
    if per_view:
        per_view = {name: _finite(values) for name, values in per_view.items()}
        entry[split] = {**mean_metrics(per_view), "views": len(per_view)}
        views = _read(model_path / "per_view.json")
        views.setdefault(key, {})[split] = per_view
        _write(model_path / "per_view.json", views)
    if gaussians is not None:
        entry["gaussians"] = gaussians
    if seconds is not None:
        entry["seconds"] = round(seconds, 3)
    _write(model_path / "results.json", results)
    return dict(entry)


def update_features(
    model_path: Path, iteration: int, teacher: str, channels: int, cosine: Mapping[str, float]
) -> None:
    """Enters in results.json how near one iteration's features are to the teacher; the rest stays.

    Args:
        model_path: The model's folder.
        iteration: The iteration that was measured.
        teacher: Name of the teacher, or the folder of its maps.
        channels: Channels of the teacher.
        cosine: The mean cosine by split, "test" or "train"; a split without one keeps its older figure, if
            the teacher is the same.
    """
    results = _read(model_path / "results.json")
    entry = results.setdefault(f"iteration_{iteration}", {})
    old = entry.get("features", {})
    same = (old.get("teacher"), old.get("channels")) == (teacher, channels)
    kept = old.get("cosine", {}) if same else {}
    entry["features"] = {"teacher": teacher, "channels": channels, "cosine": {**kept, **cosine}}
    _write(model_path / "results.json", results)


def metrics_table(per_view: Mapping[str, Metrics], title: str) -> str:
    """A table of one line per view and the mean, within 80 columns.

    Of more than 40 views only the ten with the lowest PSNR are listed; long names lose their beginning.

    Args:
        per_view: Metrics by image name.
        title: Heading of the first column.

    Returns:
        Lines without a final line break.
    """
    shown = dict(per_view)
    if len(shown) > _LONGEST_TABLE:
        worst = sorted(shown, key=lambda name: shown[name]["psnr"] or 0.0)[:10]
        shown = {name: shown[name] for name in worst}
        title = f"{title}, the 10 worst"
    mean_name = f"mean of {len(per_view)}"
    room = min(max(map(len, [*shown, title, mean_name])), 46)
    rule = "-" * (room + 11 * len(METRICS))
    lines = [
        f"{title[:room]:<{room}}" + "".join(f"{_HEADINGS[metric]:>11}" for metric in METRICS),
        rule,
        *(_line(name, values, room) for name, values in shown.items()),
        rule,
        _line(mean_name, mean_metrics(dict(per_view)), room),
    ]
    return "\n".join(lines)


def _finite(values: Metrics) -> Metrics:
    """NaN and infinity, which JSON cannot hold, become None."""
    return {
        name: value if value is not None and math.isfinite(value) else None for name, value in values.items()
    }


def _line(name: str, values: Metrics, room: int) -> str:
    short = name if len(name) <= room else "..." + name[3 - room :]
    return f"{short:<{room}}" + "".join(f"{_figure(metric, values.get(metric)):>11}" for metric in METRICS)


def _figure(metric: str, value: float | None) -> str:
    return "-" if value is None else f"{value:.{_DIGITS[metric]}f}"


def _read(path: Path) -> dict[str, Any]:
    """What the file holds; one that is no JSON object is put aside, so that no training is lost to it."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text())
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict):
        return content
    path.replace(path.with_name(f"{path.stem}.unreadable{path.suffix}"))
    return {}


def _write(path: Path, content: dict[str, Any]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
