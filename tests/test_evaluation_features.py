"""How near features are to the teacher: the measure by hand, its file, and the command that asks for it."""

import json
from pathlib import Path

import pytest
import torch
from blobs import busy_settings, cameras, make_kinds, write_blobs, write_kinds
from safetensors.torch import save_file

from feature_gs.cli.main import main
from feature_gs.evaluation import feature_cosines, update_features, update_results
from feature_gs.features.decoders import make_decoder
from feature_gs.features.field import FeatureField
from feature_gs.features.teacher import TeacherStore, write_map, write_meta
from feature_gs.gaussians import GaussianModel
from feature_gs.scenes import View
from feature_gs.training import train

CAMERA = cameras()[0]  # 32 x 24 pixels


@pytest.fixture
def view(tmp_path: Path) -> View:
    write_blobs(tmp_path)
    return View(CAMERA, tmp_path / CAMERA.name)


def wall(features: torch.Tensor) -> tuple[GaussianModel, FeatureField]:  # [1, C]
    """One opaque Gaussian that fills the picture."""
    model = GaussianModel.from_points(torch.zeros(1, 3), torch.zeros(1, 3, dtype=torch.uint8), 0)
    with torch.no_grad():
        model.log_scales.fill_(3.0)
        model.logit_opacities.fill_(20.0)
    channels = features.shape[1]
    field = FeatureField(
        features, make_decoder("none", channels, channels), "t", (8, 8), torch.tensor([True])
    )
    return model, field


def store(folder: Path, maps: torch.Tensor) -> TeacherStore:  # [C, h, w]
    write_meta(folder / "t", "t", maps.shape[0])
    (folder / "t").mkdir(exist_ok=True)
    scale = {"cells_per_pixel_x": "0.125", "cells_per_pixel_y": "0.125"}
    save_file({"features": maps.half()}, folder / "t" / "0.safetensors", scale)
    return TeacherStore.open(folder / "t")


def test_the_mean_over_cells_by_hand(view: View, tmp_path: Path) -> None:
    """Cells of 8 pixels: 4 of the same direction, 4 at 60 degrees, 4 opposite, whatever their length."""
    model, field = wall(torch.tensor([[3.0, 0.0]]))
    maps = torch.zeros(2, 3, 4)
    maps[:, 0] = torch.tensor([0.01, 0.0])[:, None]
    maps[:, 1] = torch.tensor([5.0, 5.0 * 3**0.5])[:, None]
    maps[:, 2] = torch.tensor([-2.0, 0.0])[:, None]
    found = feature_cosines(model, field, [view], store(tmp_path, maps))
    assert found == {"0.png": pytest.approx((1 + 0.5 - 1) / 3, abs=1e-3)}


def test_where_the_teacher_says_nothing_does_not_count(view: View, tmp_path: Path) -> None:
    model, field = wall(torch.tensor([[1.0, 0.0]]))
    maps = torch.zeros(2, 3, 4)
    maps[0, 0] = 1
    assert feature_cosines(model, field, [view], store(tmp_path, maps))["0.png"] == pytest.approx(1)
    assert feature_cosines(model, field, [view], store(tmp_path, torch.zeros(2, 3, 4))) == {}


def test_cells_that_show_nothing_count_zero(view: View, tmp_path: Path) -> None:
    """A Gaussian in the left half only, a map that is the same everywhere."""
    model, field = wall(torch.tensor([[1.0, 0.0]]))
    with torch.no_grad():
        model.log_scales.fill_(-6.0)
    maps = torch.zeros(2, 3, 4)
    maps[0] = 1
    got = feature_cosines(model, field, [view], store(tmp_path, maps))["0.png"]
    assert 0 < got <= 4 / 12  # the Gaussian lies on the corner of four cells


def test_a_map_smaller_than_the_photo_and_a_view_without_one(view: View, tmp_path: Path) -> None:
    model, field = wall(torch.tensor([[1.0, 0.0]]))
    maps = torch.zeros(2, 2, 3)
    maps[0] = 1
    other = View(cameras()[1], tmp_path / "1.png")
    assert set(feature_cosines(model, field, [view, other], store(tmp_path, maps))) == {"0.png"}


def test_the_decoder_decodes_what_is_compared(view: View, tmp_path: Path) -> None:
    model, field = wall(torch.tensor([[1.0, 0.0]]))
    maps = torch.zeros(2, 3, 4)
    maps[1] = 1
    decoder = make_decoder("linear", 2, 2)
    with torch.no_grad():
        decoder.load_state_dict({"weight": torch.tensor([[0.0, 1], [1, 0]]), "bias": torch.zeros(2)})
    field.decoder = decoder
    assert feature_cosines(model, field, [view], store(tmp_path, maps))["0.png"] == pytest.approx(1)


def entry_of(path: Path, iteration: int) -> dict[str, object]:
    content = json.loads((path / "results.json").read_text())[f"iteration_{iteration}"]
    assert isinstance(content, dict)
    return content


def test_features_stand_beside_the_other_figures(tmp_path: Path) -> None:
    update_results(tmp_path, 7, "test", {"a.png": {"psnr": 20.0, "ssim": 0.5, "lpips": None}}, gaussians=3)
    update_features(tmp_path, 7, "dino", 384, {"test": 0.5, "train": 0.75})
    update_features(tmp_path, 7, "dino", 384, {"train": 0.8})
    entry = entry_of(tmp_path, 7)
    assert entry["features"] == {"teacher": "dino", "channels": 384, "cosine": {"test": 0.5, "train": 0.8}}
    assert entry["gaussians"] == 3
    update_results(tmp_path, 7, "train", {}, gaussians=4)
    assert entry_of(tmp_path, 7)["features"] == entry["features"]
    update_features(tmp_path, 7, "mae", 768, {"test": 0.1})
    expected = {"teacher": "mae", "channels": 768, "cosine": {"test": 0.1}}
    assert entry_of(tmp_path, 7)["features"] == expected, "figures of two teachers do not mix"


def test_training_and_evaluate_measure_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    scene, out = write_blobs(tmp_path / "scene"), tmp_path / "out"
    write_kinds(scene / "features" / "kinds", make_kinds(6))
    config = busy_settings(scene, model_path=str(out), foundation_model="kinds", quiet=False)
    train(config)
    log = capsys.readouterr().err
    trained = entry_of(out, 40)["features"]
    assert isinstance(trained, dict) and trained["teacher"] == "kinds" and trained["channels"] == 6
    for split in ("test", "train"):
        assert f"{split} features: cosine {trained['cosine'][split]:.4f}" in log
    assert main(["evaluate", "-m", str(out)]) == 0
    assert "test features: cosine" in capsys.readouterr().out
    again = entry_of(out, 40)["features"]
    assert isinstance(again, dict)
    assert again["cosine"]["test"] == pytest.approx(trained["cosine"]["test"], abs=1e-3)

    (scene / "features/kinds/0.safetensors").unlink()
    assert main(["evaluate", "-m", str(out), "--skip_train"]) == 0
    assert "1 test views have no map" in capsys.readouterr().out
    write_map(scene / "features/kinds/1.safetensors", torch.zeros(3, 2, 2))
    assert main(["evaluate", "-m", str(out)]) == 0
    assert "Features were not compared: the teacher map" in capsys.readouterr().out
    (scene / "features/kinds/meta.json").unlink()
    assert main(["evaluate", "-m", str(out)]) == 0
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if "eatures" in line]
    assert len(lines) == 1 and lines[0].endswith("has no maps of kinds (feature-gs encode).")
    assert "mean of 2" in printed
