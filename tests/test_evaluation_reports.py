"""results.json, per_view.json and the table."""

import json
from pathlib import Path

import pytest

from feature_gs.evaluation.evaluate import Metrics, mean_metrics
from feature_gs.evaluation.reports import metrics_table, update_results

TEST: dict[str, Metrics] = {
    "a.jpg": {"psnr": 20.0, "ssim": 0.5, "lpips": None},
    "left/b.jpg": {"psnr": 30.0, "ssim": 0.9, "lpips": None},
}
TRAIN: dict[str, Metrics] = {"c.jpg": {"psnr": 31.0, "ssim": 0.95, "lpips": 0.1}}


def read(path: Path) -> dict[str, object]:
    content = json.loads(path.read_text())
    assert isinstance(content, dict)
    return content


def test_results_hold_means_and_views_hold_each(tmp_path: Path) -> None:
    entry = update_results(tmp_path, 7000, "test", TEST, gaussians=123, seconds=4.56789)
    expected = {
        "test": {"psnr": 25.0, "ssim": pytest.approx(0.7), "lpips": None, "views": 2},
        "gaussians": 123,
        "seconds": 4.568,
    }
    assert entry == expected
    assert read(tmp_path / "results.json") == {"iteration_7000": expected}
    assert read(tmp_path / "per_view.json") == {"iteration_7000": {"test": TEST}}


def test_new_figures_are_merged_with_old_ones(tmp_path: Path) -> None:
    update_results(tmp_path, 7000, "test", TEST, gaussians=123, seconds=4.0)
    update_results(tmp_path, 30000, "test", TEST, gaussians=456)
    update_results(tmp_path, 7000, "train", TRAIN)
    entry = update_results(tmp_path, 7000, "test", TRAIN)
    assert entry["test"] == entry["train"] == {"psnr": 31.0, "ssim": 0.95, "lpips": 0.1, "views": 1}
    assert (entry["gaussians"], entry["seconds"]) == (123, 4.0)
    results = read(tmp_path / "results.json")
    assert list(results) == ["iteration_7000", "iteration_30000"]
    views = json.loads((tmp_path / "per_view.json").read_text())
    assert views == {"iteration_7000": {"test": TRAIN, "train": TRAIN}, "iteration_30000": {"test": TEST}}


def test_no_views_enter_only_the_other_figures(tmp_path: Path) -> None:
    assert update_results(tmp_path, 10, "test", {}, gaussians=5) == {"gaussians": 5}
    assert not (tmp_path / "per_view.json").exists()


def test_results_of_a_diverged_model_are_still_json(tmp_path: Path) -> None:
    update_results(tmp_path, 1, "test", {"a.jpg": {"psnr": float("nan"), "ssim": 0.5, "lpips": None}})
    entry = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    assert entry["iteration_1"]["test"] == {"psnr": None, "ssim": 0.5, "lpips": None, "views": 1}


def test_unreadable_results_are_put_aside(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"iteration_7000": {"te')
    update_results(tmp_path, 1, "test", TEST)
    assert list(read(tmp_path / "results.json")) == ["iteration_1"]
    assert (tmp_path / "results.unreadable.json").read_text() == '{"iteration_7000": {"te'


def test_mean_needs_every_view() -> None:
    assert mean_metrics({**TEST, **TRAIN})["lpips"] is None
    assert mean_metrics({**TEST, **TRAIN})["psnr"] == 27.0
    assert mean_metrics({}) == {"psnr": None, "ssim": None, "lpips": None}


def test_table_fits_80_columns_and_holds_the_figures() -> None:
    long = {
        f"a/very/long/folder/name/that/goes/on/and/on/for/ever/{i:03d}.jpg": TEST["a.jpg"] for i in range(3)
    }
    table = metrics_table({**TEST, **long}, "test view")
    assert max(map(len, table.splitlines())) <= 80
    assert [line.split() for line in table.splitlines() if line.startswith("left/b.jpg")] == [
        ["left/b.jpg", "30.00", "0.9000", "-"]
    ]
    assert table.splitlines()[-1].split() == ["mean", "of", "5", "22.00", "0.5800", "-"]
    assert "001.jpg" in table


def test_long_tables_show_the_worst_views() -> None:
    views: dict[str, Metrics] = {
        f"{i:03d}.jpg": {"psnr": 20.0 + i, "ssim": 0.5, "lpips": None} for i in range(100)
    }
    table = metrics_table(views, "test view")
    assert "009.jpg" in table and "010.jpg" not in table
    assert "the 10 worst" in table
    assert table.splitlines()[-1].split()[:4] == ["mean", "of", "100", "69.50"]
