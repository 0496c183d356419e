"""Metrics of images and features, and their reports."""

from feature_gs.evaluation.evaluate import METRICS, Metrics, evaluate_views, mean_metrics
from feature_gs.evaluation.features import feature_cosines
from feature_gs.evaluation.lpips import Lpips, how_to_get_lpips, load_lpips
from feature_gs.evaluation.metrics import psnr, ssim
from feature_gs.evaluation.reports import metrics_table, update_features, update_results

__all__ = [
    "METRICS",
    "Lpips",
    "Metrics",
    "evaluate_views",
    "feature_cosines",
    "how_to_get_lpips",
    "load_lpips",
    "mean_metrics",
    "metrics_table",
    "psnr",
    "ssim",
    "update_features",
    "update_results",
]
