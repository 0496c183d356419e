"""Flags of features: what contradicts itself or is not there stops before anything is made or cleared."""

import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from blobs import write_blobs
from random_networks import TINY, weights_of
from safetensors.torch import save_file
from taught import CHANNELS, settings, write_taught_blobs

from feature_gs.cli.train import main
from feature_gs.encoders import weights as weights_file
from feature_gs.errors import UserError
from feature_gs.features.field import FeatureField, field_path
from feature_gs.features.teacher import TeacherStore
from feature_gs.gaussians import GaussianModel
from feature_gs.training import TrainConfig, train
from feature_gs.training.folder import ply_path
from feature_gs.training.teaching import check_feature_flags, open_teacher, with_feature_dim

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_taught_blobs(tmp_path / "scene")


def refused(config: TrainConfig, message: str) -> None:
    """The run is refused, and a model that --overwrite would replace is still there."""
    out = Path(config.model_path)
    with pytest.raises(UserError, match=message):
        train(config)
    assert not out.exists()
    precious = ply_path(out, 7)
    precious.parent.mkdir(parents=True)
    precious.write_text("precious")
    with pytest.raises(UserError, match=message):
        train(TrainConfig(**{**vars(config), "overwrite": True}))
    assert precious.read_text() == "precious"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"speedup": True, "decoder": "conv3x3"}, "--speedup means --decoder linear, not conv3x3"),
        ({"decoder": "conv3x3", "features": "lift"}, "conv3x3.*--features joint, or --decoder linear"),
        ({"decoder": "conv3x3", "features": "lift+joint"}, "conv3x3.*--features joint"),
        ({"features_move_geometry": True, "features": "lift"}, "leave out --features_move_geometry"),
        ({"feature_dim": 3}, "--feature_dim 3 with --decoder none.*all 8 channels"),
        ({"feature_dim": 9, "decoder": "linear"}, "--feature_dim 9: the teacher has only 8 channels"),
        ({"feature_dim": 9, "speedup": True}, "--feature_dim 9: the teacher has only 8 channels"),
        ({"feature_dim": 0}, "--feature_dim must lie between 1"),
        ({"feature_weight": -1.0}, "--feature_weight must lie between 0"),
        ({"semantic_lr_init": 0.0}, "--semantic_lr_init must lie between"),
        (
            {"foundation_model": "dinosaur"},
            "-f dinosaur is neither a teacher nor a folder.*handcrafted",
        ),
        ({"foundation_model": "features/nothing"}, "neither a teacher nor a folder of maps"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_contradictions_are_named(scene: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    refused(settings(scene, tmp_path / "out", **changes), message)


@pytest.mark.parametrize(
    "flags",
    [
        ["--features", "lift"],
        ["--feature_dim", "8"],
        ["--decoder", "linear"],
        ["--decoder_start", "random"],
        ["--speedup"],
        ["--feature_weight", "2"],
        ["--feature_loss", "cosine"],
        ["--features_move_geometry"],
        ["--semantic_lr_init", "1"],
        ["--semantic_lr_final", "1"],
        ["--decoder_lr", "1"],
        ["--weights", "w.pth"],
        ["--ply_features"],
    ],
    ids=lambda flags: flags[0],
)
def test_without_a_teacher_flags_of_features_mean_nothing(tmp_path: Path, flags: list[str]) -> None:
    """Nothing is read before: the scene does not even exist."""
    with pytest.raises(UserError, match=f"{flags[0]} needs a teacher: name one with -f"):
        main(["-s", str(tmp_path / "none"), "-m", str(tmp_path / "out"), *flags])
    with pytest.raises(UserError, match="-r 0 .* needs a teacher"):
        main(["-s", str(tmp_path / "none"), "-m", str(tmp_path / "out"), "-r", "0"])
    assert not list(tmp_path.iterdir())


def test_a_folder_that_lacks_a_photo(scene: Path, tmp_path: Path) -> None:
    """Only photos that teach are asked for, unless their size is the teacher's."""
    maps = scene / "features" / "shared"
    (maps / "0.safetensors").unlink()  # of a test view
    train(settings(scene, tmp_path / "fine", iterations=1))
    refused(settings(scene, tmp_path / "out", resolution=0), r"shared has no map of 1 photos, e\.g\. 0\.png")
    (maps / "4.safetensors").unlink()
    refused(settings(scene, tmp_path / "other"), r"shared has no map of 1 photos, e\.g\. 4\.png")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("features", ["joint", "lift"])
def test_maps_that_are_not_finite(scene: Path, tmp_path: Path, features: str, value: float) -> None:
    path = scene / "features" / "shared" / "5.safetensors"
    maps = torch.zeros(CHANNELS, 6, 8, dtype=torch.float16)
    maps[3, 2, 1] = value
    save_file({"features": maps}, path)
    refused(settings(scene, tmp_path / "out", features=features), rf"map {path} is unusable.*NaN or infinite")


def test_a_damaged_map_is_named(scene: Path, tmp_path: Path) -> None:
    path = scene / "features" / "shared" / "5.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    refused(settings(scene, tmp_path / "out"), f"map {path} is unusable")


def test_missing_weights_stop_first(scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's file is not there; and nobody's, without network and caches."""
    refused(
        settings(scene, tmp_path / "out", foundation_model="dino_vits8", weights=str(tmp_path / "none.pth")),
        "there is no file .*none.pth for dino_vits8",
    )

    def unreachable(url: str) -> None:
        raise OSError(f"nobody answers at {url}")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(weights_file, "_knock", unreachable)
    message = "https://huggingface.co/.*dino_vits8|dino_vits8.*https://huggingface.co/"
    refused(settings(scene, tmp_path / "other", foundation_model="dino_vits8"), message)
    assert not (scene / "features" / "dino_vits8").exists()


def test_channels_that_do_not_suit_stop_before_maps_are_made(scene: Path, tmp_path: Path) -> None:
    refused(
        settings(scene, tmp_path / "out", foundation_model="handcrafted", feature_dim=3),
        "--feature_dim 3 with --decoder none",
    )
    assert not (scene / "features" / "handcrafted").exists()


def test_a_teacher_by_name_makes_its_maps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A network whose weights are given, and fewer channels than it has; then its folder is found."""
    scene, name = write_blobs(tmp_path / "scene"), f"timm:{TINY}"
    shutil.copy(weights_of(TINY), tmp_path / "weights.safetensors")
    flags = ["-s", str(scene), "-f", name, "--eval", "--iterations", "2", "--quiet"]
    flags += ["--decoder", "linear", "--feature_dim", "4"]
    weights = ["--weights", str(tmp_path / "weights.safetensors")]
    assert main([*flags, *weights, "-m", str(tmp_path / "a")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'a'}\n"
    ply = ply_path(tmp_path / "a", 2)
    field = FeatureField.load(field_path(ply), len(GaussianModel.load_ply(ply)))
    assert field.decoder.channels == 64 and field.decoder.features == 4
    assert len(list((scene / "features").rglob("*.safetensors"))) == 8, "test views too, to be measured"
    (tmp_path / "weights.safetensors").unlink()
    assert main([*flags, "-m", str(tmp_path / "b")]) == 0


def test_the_teacher_is_found_as_folder_too(scene: Path) -> None:
    named = open_teacher("shared", scene, [])
    beside = open_teacher(str(scene / "features" / "shared"), scene, [])
    assert named.folder.samefile(beside.folder) and isinstance(named, TeacherStore)


def test_decoder_and_channels_are_filled_in() -> None:
    def filled(**changes: Any) -> tuple[str, int | None]:
        config = with_feature_dim(TrainConfig(foundation_model="t", **changes), 384)
        check_feature_flags(config)
        return config.decoder, config.feature_dim

    assert filled() == ("none", 384)
    assert filled(speedup=True) == filled(speedup=True, decoder="linear") == ("linear", 96)
    assert filled(decoder="conv3x3") == ("conv3x3", 96)
    assert filled(decoder="linear", feature_dim=7) == ("linear", 7)
    assert filled(decoder="conv3x3", feature_dim=400) == ("conv3x3", 400)
