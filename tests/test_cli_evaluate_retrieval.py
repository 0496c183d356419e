"""`feature-gs evaluate-retrieval`: finding kinds of blobs again, against labels."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from blobs import make_kinds, write_blobs
from PIL import Image
from safetensors.torch import load_file
from taught import CHANNELS, settings, write_taught_blobs

from feature_gs.cli.main import main
from feature_gs.features.teacher import TeacherStore, write_map
from feature_gs.scenes import load_scene
from feature_gs.training import train


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The blobs with both teachers, label pictures, and a model of the teacher "shared"."""
    folder = write_taught_blobs(tmp_path_factory.mktemp("scene"))
    store = TeacherStore.open(folder / "features" / "shared")
    loaded, codes = load_scene(folder, eval=True), make_kinds(CHANNELS)
    for view in [*loaded.train, *loaded.test]:
        cells = store.load(view).features.float().permute(1, 2, 0)
        nearest = (cells @ codes[:3].T).argmax(dim=2) + 1
        nearest[cells.norm(dim=2) < 0.5] = 0
        labels = np.kron(nearest.numpy().astype(np.uint8), np.ones((4, 4), np.uint8))
        (folder / "labels").mkdir(exist_ok=True)
        Image.fromarray(labels).save(folder / "labels" / view.camera.name)
    (folder / "labels.json").write_text(json.dumps({"labels": {"0": "void", "1": "left", "2": "middle"}}))
    train(settings(folder, folder / "model", features="lift"))
    return folder


def test_a_teacher_without_noise_finds_everything(
    scene: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "figures.json"
    command = ["evaluate-retrieval", "-m", str(scene / "model"), "--labels", str(scene / "labels")]
    assert main([*command, "--views", "all", "--ignore", "void", "--output", str(out)]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.replace(str(tmp_path), "").splitlines())) <= 80
    found = json.loads(out.read_text())
    assert set(found["objects"]) == {"1", "2", "3"} and found["objects"]["2"]["name"] == "middle"
    assert found["views"] == 8
    assert found["map"]["teacher"] > 0.98
    assert 0.5 < found["map"]["distilled"] <= 1
    assert found["map"]["gain"] == pytest.approx(found["map"]["distilled"] - found["map"]["teacher"])
    for kind in ("teacher", "distilled"):
        mean = np.mean([values[kind] for values in found["objects"].values()])
        assert found["map"][kind] == pytest.approx(mean)

    assert main([*command, "--views", "all", "--objects", "LEFT", "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    one = json.loads((scene / "model/retrieval.json").read_text())
    assert set(one["objects"]) == {"1"}
    # Cells without a feature are ranked now; the background is easily told from a kind.
    assert one["objects"]["1"]["teacher"] <= found["objects"]["1"]["teacher"] + 1e-9


def test_noise_in_the_teacher_costs_the_teacher_more(scene: Path, tmp_path: Path) -> None:
    noisy = tmp_path / "scene"
    shutil.copytree(scene, noisy)
    generator = torch.Generator().manual_seed(0)
    for path in sorted((noisy / "features/shared").glob("*.safetensors")):
        features = load_file(path)["features"].float()
        features += 0.5 * torch.randn(features.shape, generator=generator)
        write_map(path, features, 1 / 4, 1 / 4)
    train(settings(noisy, noisy / "noisy", features="lift"))
    command = ["evaluate-retrieval", "-m", str(noisy / "noisy"), "--labels", str(noisy / "labels"), "--quiet"]
    assert main([*command, "--views", "all", "--ignore", "0"]) == 0
    found = json.loads((noisy / "noisy/retrieval.json").read_text())["map"]
    assert found["teacher"] < 0.9 and found["gain"] > 0.03


def test_it_says_what_is_missing(scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def complaint(*options: str, model: Path = scene / "model", labels: Path = scene / "labels") -> str:
        assert main(["evaluate-retrieval", "-m", str(model), "--labels", str(labels), *options]) == 2
        return capsys.readouterr().err

    assert "no label 'cat'" in complaint("--objects", "cat")
    assert "no folder" in complaint(labels=tmp_path / "nowhere")
    Image.fromarray(np.zeros((24, 32), np.uint8)).save(tmp_path / "other.png")
    assert "lacks the labels of 2 views, 0.png" in complaint(labels=tmp_path)
    assert "none of 77, 99 is in the labels of the 2 views; these show 0, 1" in complaint(
        "--objects", "99", "77"
    )
    plain = write_blobs(tmp_path / "plain")
    train(settings(plain, tmp_path / "colours", foundation_model=""))
    assert "has no features" in complaint(model=tmp_path / "colours")
