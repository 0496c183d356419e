"""Measuring a model on views with photos."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from feature_gs.evaluation.lpips import Lpips
from feature_gs.evaluation.metrics import psnr, ssim
from feature_gs.gaussians import GaussianModel
from feature_gs.rendering import render
from feature_gs.scenes import View

METRICS = ("psnr", "ssim", "lpips")
Metrics = dict[str, float | None]


@torch.no_grad()
def evaluate_views(
    model: GaussianModel,
    views: Iterable[View],
    *,
    background: Tensor | None = None,  # [3]
    antialiased: bool = False,
    near: float = 0.01,
    lpips: Lpips | None = None,
) -> dict[str, Metrics]:
    """PSNR, SSIM and LPIPS of each view, straight from the model.

    The colours are compared as rendered, clamped to [0, 1]; they do not pass through 8-bit pictures, whose
    rounding would cost up to a few hundredths of a decibel.

    Args:
        model: The Gaussians.
        views: The views with their photos; read one after the other.
        background: Colour behind the Gaussians, the one that the model was trained with. [3]
        antialiased: As the model was trained.
        near: As the model was trained, scene units.
        lpips: The LPIPS metric, or None to leave it out.

    Returns:
        For each image name "psnr" in dB, "ssim" and "lpips" (None when left out).
    """
    results: dict[str, Metrics] = {}
    if lpips is not None:
        lpips = lpips.to(model.means.device)
    for view in views:
        output = render(model, view.camera, background=background, antialiased=antialiased, near=near)
        image = output.color.clamp(0, 1)
        target = view.load().to(image.device)[None].float() / 255
        results[view.camera.name] = {
            "psnr": psnr(image, target).item(),
            "ssim": ssim(image, target).item(),
            "lpips": None if lpips is None else lpips(image, target).item(),
        }
    return results


def mean_metrics(per_view: dict[str, Metrics]) -> Metrics:
    """The mean over the views of each metric; None where a view lacks it or there is no view."""

    def column(metric: str) -> Iterator[float | None]:
        return (values.get(metric) for values in per_view.values())

    means: Metrics = {}
    for metric in METRICS:
        values = [value for value in column(metric) if value is not None]
        means[metric] = sum(values) / len(values) if values and len(values) == len(per_view) else None
    return means
