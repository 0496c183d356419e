"""Training as a whole: it learns, resumes bit by bit, survives being killed, and refuses what is damaged."""

import errno
import json
import os
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from blobs import VIEWS, busy_settings, new_trainer, orbit_camera, state_of, write_blobs

from feature_gs.cli.train import main
from feature_gs.errors import UserError
from feature_gs.gaussians import GaussianModel
from feature_gs.scenes import Scene, View
from feature_gs.training import TrainConfig, Trainer, train
from feature_gs.training.checkpoint import (
    checkpoint_path,
    checkpoints_of,
    load_checkpoint,
    newest_whole_checkpoint,
)
from feature_gs.training.folder import ply_path
from feature_gs.training.loop import run_training
from feature_gs.training.not_finite import NotFiniteError
from feature_gs.training.run import filled_in

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def scene_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_blobs(tmp_path_factory.mktemp("blobs"))


def test_training_learns_and_leaves_a_whole_folder(
    scene_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    flags = ["-s", str(scene_folder), "-m", str(out), "--eval", "--iterations", "150", "--quiet"]
    assert main([*flags, "--test_iterations", "1", "--checkpoint_iterations", "100"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{out}\n" and captured.err == ""
    results = json.loads((out / "results.json").read_text())
    assert results["iteration_150"]["test"]["psnr"] > results["iteration_1"]["test"]["psnr"] + 6
    assert results["iteration_150"]["test"]["views"] == 2
    assert results["iteration_150"]["seconds"] > results["iteration_1"]["seconds"] > 0
    model = GaussianModel.load_ply(ply_path(out, 150))
    assert results["iteration_150"]["gaussians"] == len(model) and model.sh_degree == 3
    config = json.loads((out / "config.json").read_text())
    assert config["iterations"] == 150 and Path(config["source_path"]) == scene_folder.resolve()
    assert config["densify_until_iter"] is not None and config["eval"] is True
    assert len(json.loads((out / "cameras.json").read_text())) == VIEWS
    assert [path.name for path in checkpoints_of(out)] == ["iteration_100.pt"]
    assert list(out.glob("events.out.tfevents.*"))
    with pytest.raises(UserError, match="already holds a model"):
        main(flags)
    with pytest.raises(UserError, match="already holds a model"):
        main([*flags, "--start_checkpoint", str(tmp_path / "elsewhere.pt")])


@pytest.mark.parametrize("strategy", ["default", "mcmc", "absgrad"])
def test_resuming_is_bit_equal_to_never_having_stopped(
    scene_folder: Path, tmp_path: Path, strategy: str
) -> None:
    mode: dict[str, Any] = {"absgrad": True} if strategy == "absgrad" else {"strategy": strategy}
    whole = new_trainer(busy_settings(scene_folder, **mode), tmp_path / "whole")
    run_training(whole)
    # Stops between two densifications, with statistics gathered, in the middle of a pass over the photos.
    first = new_trainer(busy_settings(scene_folder, **mode, checkpoint_iterations=(21,)), tmp_path / "parts")
    count = len(first.model)
    run_training(first)
    checkpoint = load_checkpoint(checkpoint_path(tmp_path / "parts", 21))
    assert checkpoint.iteration == 21
    second = new_trainer(busy_settings(scene_folder, **mode), tmp_path / "parts", checkpoint)
    assert len(second.model) != count, "a densification lies before the stop"
    middle = len(second.model)
    run_training(second)
    assert len(second.model) != middle, "and one after it"
    expected, got = state_of(whole), state_of(second)
    assert expected.keys() == got.keys()
    for name in expected:
        assert torch.equal(expected[name], got[name]), name
    plys = [ply_path(tmp_path / part, 40).read_bytes() for part in ("whole", "parts")]
    assert plys[0] == plys[1]


def test_resume_flag_takes_settings_and_newest_whole_checkpoint(
    scene_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    train(busy_settings(scene_folder, model_path=str(out), checkpoint_iterations=(10, 20), seed=5))
    newest = checkpoint_path(out, 30)
    newest.write_bytes(checkpoint_path(out, 20).read_bytes()[:-100])
    ply_path(out, 40).unlink()
    assert main(["-m", str(out), "--resume", "--quiet"]) == 0
    error = capsys.readouterr().err
    assert "skipped" in error and "iteration_30.pt is truncated" in error
    assert ply_path(out, 40).is_file()
    config = TrainConfig.load(out / "config.json")
    assert config.seed == 5 and config.densify_from_iter == 5
    with pytest.raises(UserError, match=r"iteration 20 of 20.*larger --iterations"):
        main(["-m", str(out), "--resume", "--iterations", "20"])
    with pytest.raises(UserError, match="give --strategy default"):
        main(["-m", str(out), "--resume", "--strategy", "mcmc"])


def test_start_checkpoint_takes_the_model_elsewhere(scene_folder: Path, tmp_path: Path) -> None:
    train(busy_settings(scene_folder, model_path=str(tmp_path / "a"), checkpoint_iterations=(20,)))
    start = str(checkpoint_path(tmp_path / "a", 20))
    train(busy_settings(scene_folder, model_path=str(tmp_path / "b"), start_checkpoint=start))
    paths = [ply_path(tmp_path / name, 40) for name in ("a", "b")]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_resume_on_other_photos_is_refused(scene_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    train(busy_settings(scene_folder, model_path=str(out), checkpoint_iterations=(20,)))
    config = busy_settings(scene_folder, model_path=str(out), resume=True, eval=False)
    transforms = json.loads((scene_folder / "transforms_train.json").read_text())
    other = tmp_path / "other"
    other.mkdir()
    for path in scene_folder.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    transforms["frames"] = transforms["frames"][1:]
    (other / "transforms_train.json").write_text(json.dumps(transforms))
    with pytest.raises(UserError, match="trained on other photos"):
        train(replace(config, source_path=str(other)))


def test_nan_in_a_photo_stops_before_it_reaches_the_model(scene_folder: Path, tmp_path: Path) -> None:
    trainer = new_trainer(busy_settings(scene_folder), tmp_path)
    view = trainer.scene.train[0]
    target = view.load()[None].float() / 255
    trainer.step(view, target)
    before = state_of(trainer)
    target[0, 3, 4, 1] = float("nan")
    with pytest.raises(
        NotFiniteError, match=rf"iteration 2, view {view.camera.name}: the loss is nan.*photo"
    ):
        trainer.step(view, target)
    after = state_of(trainer)
    assert trainer.iteration == 1 and trainer.model.is_finite()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_non_finite_gradient_saves_the_last_good_state(
    scene_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = new_trainer(busy_settings(scene_folder), tmp_path)
    observed = []

    prepare = trainer.strategy.prepare

    def poison(output: Any) -> None:
        prepare(output)
        observed.append(0)
        if len(observed) == 4:
            output.means2d.register_hook(lambda gradient: gradient * float("inf"))

    monkeypatch.setattr(trainer.strategy, "prepare", poison)
    with pytest.raises(
        NotFiniteError, match=r"iteration 4, view .*\.png: a gradient is not finite(.|\n)*iteration_3\.pt"
    ):
        run_training(trainer)
    assert load_checkpoint(checkpoint_path(tmp_path, 3)).restore_model().is_finite()
    assert not ply_path(tmp_path, 4).exists()


def test_a_model_that_is_not_finite_is_never_saved(scene_folder: Path, tmp_path: Path) -> None:
    trainer = new_trainer(busy_settings(scene_folder), tmp_path)
    trainer.save_ply()
    trainer.save_checkpoint()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    trainer.model.quats.data[3, 1] = float("inf")
    for save in (trainer.save_ply, trainer.save_checkpoint):
        with pytest.raises(UserError, match="not finite, so nothing is saved"):
            save()
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_damaged_checkpoint_says_so(scene_folder: Path, tmp_path: Path) -> None:
    trainer = new_trainer(busy_settings(scene_folder), tmp_path)
    trainer.step(trainer.scene.train[0], trainer.scene.train[0].load()[None].float() / 255)
    path = trainer.save_checkpoint()
    whole = path.read_bytes()
    content = torch.load(path, weights_only=True)

    def message(data: Any) -> str:
        if isinstance(data, bytes):
            path.write_bytes(data)
        else:
            torch.save(data, path)
        with pytest.raises(UserError) as caught:
            load_checkpoint(path)
        return str(caught.value)

    for length in (0, 4, len(whole) // 2, len(whole) - 1):
        assert "truncated" in message(whole[:length])
    assert "truncated or not a checkpoint" in message(b"some text, not a checkpoint")
    assert "not a checkpoint of feature_gs" in message({"state_dict": {}})
    assert "not a checkpoint of feature_gs" in message([1, 2])
    assert "not a checkpoint of feature_gs" in message({"format": Path("x")}), "no code in the file is run"
    assert "'optimizer' is missing" in message({k: v for k, v in content.items() if k != "optimizer"})
    assert "damaged" in message({**content, "model": {**content["model"], "means": torch.zeros(3, 3)}})
    assert "damaged" in message({**content, "model": {"means": torch.zeros(3, 3)}})
    assert "damaged" in message({**content, "model": {**content["model"], "means": "here"}})
    torch.save({**content, "optimizer": {"means": {"exp_avg": torch.zeros(2)}}}, path)
    with pytest.raises(UserError, match="exp_avg of means must be"):
        new_trainer(busy_settings(scene_folder), tmp_path, load_checkpoint(path))
    with pytest.raises(UserError, match="no checkpoint"):
        load_checkpoint(tmp_path / "none.pt")
    with pytest.raises(UserError, match="nothing to resume"):
        newest_whole_checkpoint(tmp_path / "nowhere")


def test_a_full_disk_leaves_the_previous_checkpoint(scene_folder: Path, tmp_path: Path) -> None:
    trainer = new_trainer(busy_settings(scene_folder), tmp_path)
    path = trainer.save_checkpoint()
    before = path.read_bytes()
    script = f"""
        import resource, sys
        from pathlib import Path
        from feature_gs.errors import UserError
        from feature_gs.training.checkpoint import load_checkpoint, save_checkpoint
        path = Path({str(path)!r})
        checkpoint = load_checkpoint(path)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        try:
            save_checkpoint(path, checkpoint)
        except UserError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert f"cannot write the checkpoint {path}: {os.strerror(errno.EFBIG)}" in done.stdout
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_kill_9_in_the_middle_of_a_save_leaves_the_previous_checkpoint(
    scene_folder: Path, tmp_path: Path
) -> None:
    trainer = new_trainer(busy_settings(scene_folder), tmp_path)
    path = trainer.save_checkpoint()
    before = path.read_bytes()
    script = f"""
        import io, time, torch
        from pathlib import Path
        from feature_gs.training.checkpoint import load_checkpoint, save_checkpoint
        save = torch.save
        def slow_save(content, file):
            whole = io.BytesIO()
            save(content, whole)
            file.write(whole.getvalue()[: whole.tell() // 2])
            file.flush()
            print("half", flush=True)
            time.sleep(600)
        torch.save = slow_save
        path = Path({str(path)!r})
        save_checkpoint(path, load_checkpoint(path))
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "half\n"
        process.kill()
    assert len(list(path.parent.iterdir())) == 2, "the half-written file is there"
    assert path.read_bytes() == before
    assert newest_whole_checkpoint(tmp_path)[0].iteration == 0
    trainer.save_checkpoint()
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_prints_the_command_that_resumes(
    scene_folder: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    out = tmp_path / "my model"
    command = [sys.executable, str(ROOT / "train.py"), "-s", str(scene_folder), "-m", str(out), "--eval"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        while not list(out.glob("events.out.tfevents.*")):
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(number)
        assert process.stderr is not None
        error = process.stderr.read()
    assert process.returncode == code
    checkpoint, _ = newest_whole_checkpoint(out)
    assert f"stopped after iteration {checkpoint.iteration}" in error
    assert len(GaussianModel.load_ply(ply_path(out, checkpoint.iteration))) == len(checkpoint.model["means"])
    if number == signal.SIGINT:
        resume = shlex.split(error.rsplit("go on with:", 1)[1])
        assert resume == ["python", str(ROOT / "train.py"), "-m", str(out), "--resume"]
        last = checkpoint.iteration + 3
        flags = ["--iterations", str(last)]
        subprocess.run([sys.executable, *resume[1:], *flags], check=True, cwd=tmp_path, capture_output=True)
        assert ply_path(out, last).is_file()


def test_a_model_without_gaussians_stops(scene_folder: Path, tmp_path: Path) -> None:
    trainer = new_trainer(busy_settings(scene_folder, min_opacity=0.99), tmp_path)
    with pytest.raises(UserError, match="iteration 8: no Gaussian is left"):
        run_training(trainer)
    assert not checkpoints_of(tmp_path)


def test_white_background_and_no_test_views(scene_folder: Path, tmp_path: Path) -> None:
    """A single view, no held-out ones: all defaults must cope."""
    camera = orbit_camera("0.png", torch.tensor(0.0))
    points = torch.tensor([[0.0, 0, 0]])
    scene = Scene(
        "one", scene_folder, [View(camera, scene_folder / "0.png")], [], points, points.to(torch.uint8), 1.0
    )
    config, schedule = filled_in(busy_settings(scene_folder, white_background=True))
    trainer = Trainer(config, schedule, scene, tmp_path)
    run_training(trainer)
    results = json.loads((tmp_path / "results.json").read_text())["iteration_40"]
    assert "test" not in results and results["train"]["views"] == 1
