"""What a run with features leaves: checkpoints that go on bit by bit, files beside every PLY."""

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from blobs import make_kinds, state_of, write_kinds
from plyfile import PlyData
from taught import CHANNELS, calm, cosine_of, field_of, settings, start, write_taught_blobs

from feature_gs.errors import UserError
from feature_gs.features.field import FeatureField, field_path
from feature_gs.training import TrainConfig, Trainer, train
from feature_gs.training.checkpoint import checkpoint_path, load_checkpoint
from feature_gs.training.distillation import Distillation
from feature_gs.training.folder import ply_path
from feature_gs.training.interrupt import TrainingInterrupted
from feature_gs.training.loop import run_training

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_taught_blobs(tmp_path_factory.mktemp("blobs"))


@pytest.mark.parametrize(
    ("stop", "changes"),
    [
        (21, {}),
        (21, {"strategy": "mcmc", "feature_loss": "cosine"}),
        (21, {"decoder": "linear", "feature_dim": 3}),
        (21, {"decoder": "conv3x3", "feature_dim": 3, "features_move_geometry": True}),
        (21, {"features": "lift"}),
        (21, {"features": "lift+joint"}),
        (32, {"features": "lift+joint"}),
        (35, {"features": "lift+joint", "decoder": "linear", "feature_dim": 3}),
    ],
)
def test_resuming_is_bit_equal(scene: Path, tmp_path: Path, stop: int, changes: dict[str, Any]) -> None:
    whole = start(scene, tmp_path / "whole", checkpoint_iterations=(stop,), **changes)
    run_training(whole)
    checkpoint = load_checkpoint(checkpoint_path(tmp_path / "whole", stop))
    second = start(scene, tmp_path / "parts", checkpoint=checkpoint, **changes)
    run_training(second)
    expected, got = state_of(whole), state_of(second)
    assert expected.keys() == got.keys()
    for key in expected:
        assert torch.equal(expected[key], got[key]), key
    for place in (ply_path, lambda folder, i: field_path(ply_path(folder, i))):
        assert place(tmp_path / "whole", 40).read_bytes() == place(tmp_path / "parts", 40).read_bytes()


def test_checkpoints_of_other_features_are_refused(scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    train(settings(scene, out, checkpoint_iterations=(6,), decoder="linear", feature_dim=3))
    begun = {"start_checkpoint": str(checkpoint_path(out, 6)), "decoder": "linear", "feature_dim": 3}
    write_kinds(scene / "features" / "wide", make_kinds(CHANNELS + 3))
    for changes, message in (
        ({"foundation_model": "", "decoder": "none", "feature_dim": None}, "carry features.* with -f"),
        ({"feature_dim": 4}, "carry 3 channels, not 4.*--feature_dim, --decoder and -f"),
        ({"decoder": "conv3x3"}, r"decoder has weight \[8, 3\], bias \[8\] parameters, not weight"),
        ({"foundation_model": "wide"}, r"weight \[8, 3\].*not weight \[11, 3\]"),
    ):
        other = tmp_path / "other"
        with pytest.raises(UserError, match=message):
            train(settings(scene, other, **{**begun, **changes}))
        assert not other.exists()
    train(settings(scene, tmp_path / "same", **begun))
    assert field_of(tmp_path / "same", 12).features.shape[1] == 3


@pytest.mark.parametrize("features", ["joint", "lift", "lift+joint"])
def test_colours_go_on_with_features(scene: Path, tmp_path: Path, features: str) -> None:
    """Features that join late start from zero or from lifting, and have the whole of their schedule."""
    colours = calm(scene, tmp_path / "a", foundation_model="", iterations=40, checkpoint_iterations=(40,))
    train(colours)
    begun = {"start_checkpoint": str(checkpoint_path(tmp_path / "a", 40)), "iterations": 120}
    train(calm(scene, tmp_path / "b", features=features, **begun))
    assert cosine_of(tmp_path / "b", 120) > 0.9
    train(calm(scene, tmp_path / "c", foundation_model="", **begun))
    plys = [ply_path(tmp_path / name, 120).read_bytes() for name in "bc"]
    assert plys[0] == plys[1]


@pytest.mark.parametrize("features", ["joint", "lift", "lift+joint"])
def test_features_lie_beside_every_ply(scene: Path, tmp_path: Path, features: str) -> None:
    out = tmp_path / "out"
    train(settings(scene, out, features=features, save_iterations=(5, 12), ply_features=True))
    assert {path.parent.name for path in out.rglob("features.safetensors")} == {"iteration_5", "iteration_12"}
    for iteration in (5, 12):
        field = field_of(out, iteration)
        assert field.palette is not None and field.teacher == "shared" and field.cell == (4.0, 4.0)
        columns = PlyData.read(ply_path(out, iteration))["vertex"]
        found = torch.stack([torch.tensor(columns[f"semantic_{i}"]) for i in range(CHANNELS)], dim=1)
        assert torch.equal(found.half().float(), field.features)
        taught = features != "lift+joint" or iteration == 12
        assert bool(field.seen.any()) == taught
    train(settings(scene, tmp_path / "plain", features=features))
    assert "semantic_0" not in PlyData.read(ply_path(tmp_path / "plain", 12))["vertex"].data.dtype.names


def test_lifting_happens_once_per_save(scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring takes the saved field; a test iteration alone lifts nothing."""
    calls = []
    lifted = Distillation._lifted

    def counted(self: Distillation) -> FeatureField:
        calls.append(0)
        return lifted(self)

    monkeypatch.setattr(Distillation, "_lifted", counted)
    train(settings(scene, tmp_path / "out", features="lift", test_iterations=(4, 6), ply_features=True))
    assert len(calls) == 1
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert "features" not in results["iteration_4"] and "features" in results["iteration_12"]


@pytest.mark.parametrize("features", ["joint", "lift", "lift+joint"])
def test_ctrl_c_loses_nothing(
    scene: Path, tmp_path: Path, features: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, lifted = Trainer.step, Distillation._lifted

    def interrupted(self: Trainer, *args: Any) -> Any:
        if self.iteration == 9:
            signal.raise_signal(signal.SIGINT)
        return step(self, *args)

    def not_now(self: Distillation) -> FeatureField:
        if features == "lift":
            pytest.fail("lifting takes long; whoever resumes lifts at the end")
        return lifted(self)

    whole, out = tmp_path / "whole", tmp_path / "out"
    train(settings(scene, whole, features=features))
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", interrupted)
        patch.setattr(Distillation, "_lifted", not_now)
        with pytest.raises(TrainingInterrupted):
            train(settings(scene, out, features=features))
    assert load_checkpoint(checkpoint_path(out, 10)).iteration == 10
    assert ply_path(out, 10).is_file()
    assert field_path(ply_path(out, 10)).is_file() == (features != "lift")
    train(replace(TrainConfig.load(out / "config.json"), model_path=str(out), resume=True, quiet=True))
    paths = [field_path(ply_path(folder, 12)) for folder in (whole, out)]
    assert paths[0].read_bytes() == paths[1].read_bytes()
