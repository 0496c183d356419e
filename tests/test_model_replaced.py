"""A model is replaced when its successor is whole, and not before."""

import errno
from pathlib import Path

import pytest
from taught import calm, write_taught_blobs

import feature_gs
from feature_gs.cli.main import main
from feature_gs.training import train

pytestmark = pytest.mark.usefixtures("one_thread")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The blobs; a short run of theirs in `model`."""
    scene = write_taught_blobs(tmp_path_factory.mktemp("replaced"))
    train(calm(scene, scene / "model", iterations=5, features="lift"))
    return scene


def test_by_an_edit(scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    loaded = feature_gs.load(scene / "model")
    loaded.save(out)
    (out / "queries").mkdir()
    plan = out / "edit.yaml"
    plan.write_text("edits: [{scale: all, factor: 2}]")
    before = files(out)
    with monkeypatch.context() as patch:
        patch.setattr("feature_gs.editing.folder.write_cameras_json", full_disk)
        with pytest.raises(OSError, match="No space left"):
            loaded.save(out, overwrite=True)
    assert files(out) == before and [path.name for path in tmp_path.iterdir()] == ["out"]
    edit = ["edit", "-m", str(scene / "model"), "--config", str(plan), "-o", str(out), "--overwrite"]
    assert main([*edit, "--quiet"]) == 0
    after = files(out)
    assert after.keys() == before.keys() and not (out / "queries").exists()
    assert {name for name in after if after[name] != before[name]} == {
        "point_cloud/iteration_5/point_cloud.ply"
    }


def test_by_lifting(scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    ply = scene / "model" / "point_cloud" / "iteration_5" / "point_cloud.ply"
    lift = ["lift", "--ply", str(ply), "-s", str(scene), "-f", "own", "-m", str(out), "--quiet"]
    assert main(lift) == 0
    before = files(out)
    with monkeypatch.context() as patch:
        patch.setattr("feature_gs.features.field.FeatureField.save", full_disk)
        assert main([*lift, "--overwrite"]) == 2
    assert files(out) == before and [path.name for path in tmp_path.iterdir()] == ["out"]
    assert main([*lift, "--overwrite"]) == 0 and files(out).keys() == before.keys()


def test_by_nothing(scene: Path, tmp_path: Path) -> None:
    loaded = feature_gs.load(scene / "model")
    everything = loaded.select(box=(0, 0, 1, 1), view="0.png")
    everything.selected[:] = True
    with pytest.raises(feature_gs.errors.UserError, match="no Gaussian to write"):
        loaded.without(everything).save(tmp_path / "none")
    assert not list(tmp_path.iterdir())
