"""Settings, schedule, order of the photos, the loss, and what the terminal shows."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from feature_gs.cli.train import main
from feature_gs.errors import UserError
from feature_gs.rasterizer import ssim
from feature_gs.training import TrainConfig
from feature_gs.training.folder import check_vacant, make_folder, model_folder
from feature_gs.training.losses import photometric_loss
from feature_gs.training.progress import Progress, short_count
from feature_gs.training.run import filled_in
from feature_gs.training.sampling import view_order
from feature_gs.training.schedule import position_rate, schedule_for


def test_config_may_begin_with_a_mark_and_must_not_nest_without_end(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"iterations": 7}')
    assert TrainConfig.load(path).iterations == 7
    path.write_text("[" * 100_000)
    with pytest.raises(UserError, match="is not JSON"):
        TrainConfig.load(path)


def test_config_survives_json(tmp_path: Path) -> None:
    config = replace(
        TrainConfig(),
        source_path="a b",
        eval=True,
        resolution=2.5,
        save_iterations=(3, 5),
        densify_from_iter=7,
    )
    config.save(tmp_path / "config.json")
    assert TrainConfig.load(tmp_path / "config.json") == config


def test_what_concerns_one_run_is_not_stored(tmp_path: Path) -> None:
    config = replace(TrainConfig(), model_path="m", resume=True, quiet=True, start_checkpoint="c")
    config.save(tmp_path / "config.json")
    assert TrainConfig.load(tmp_path / "config.json") == TrainConfig()


def test_unknown_settings_are_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"iterations": 5, "encoder_version": "sam"}')
    with pytest.warns(UserWarning, match="encoder_version"):
        assert TrainConfig.load(tmp_path / "config.json").iterations == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"iterations": "5"}', "iterations must be of type int, got '5'"),
        ('{"iterations": true}', "iterations must be of type int"),
        ('{"iterations": -5}', "--iterations must lie between 1"),
        ('{"eval": 1}', "eval must be of type bool"),
        ('{"near": NaN}', "near must be of type float"),
        ('{"strategy": "magic"}', "strategy must be one of default, mcmc"),
        ('{"sh_degree": true}', "sh_degree must be one of"),
        ('{"save_iterations": [1, "2"]}', "save_iterations must be of type int"),
        ('{"save_iterations": 7}', "save_iterations must be of type list"),
        ('{"source_path": null}', "source_path must be of type str"),
        ("[1]", "JSON object"),
        ("{", "not JSON"),
        (None, "model folder"),
    ],
)
def test_bad_config_files_say_what_is_wrong(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=message):
        TrainConfig.load(tmp_path / "config.json")


def test_schedule_of_the_reference() -> None:
    schedule = schedule_for(30_000, "default")
    densified = [i for i in range(1, 30_001) if schedule.densifies_at(i)]
    assert densified[0] == 600 and densified[-1] == 15_000 and len(densified) == 145
    assert [i for i in range(1, 30_001) if schedule.resets_opacity_at(i)] == [3000, 6000, 9000, 12_000]
    assert [i for i in range(1, 30_001) if schedule.raises_sh_at(i)][:3] == [1000, 2000, 3000]
    assert schedule_for(60_000, "default").densify_until_iter == 15_000
    assert schedule_for(30_000, "mcmc").densify_until_iter == 25_000


@pytest.mark.parametrize("strategy", ["default", "mcmc"])
@pytest.mark.parametrize("iterations", [1, 7, 100, 1000, 2000, 7000, 15_000, 30_000, 50_000])
def test_every_length_has_a_sound_schedule(iterations: int, strategy: str) -> None:
    schedule = schedule_for(iterations, strategy)
    assert 0 <= schedule.densify_from_iter <= schedule.densify_until_iter <= iterations
    assert schedule.sh_interval >= 1 and schedule.position_lr_max_steps == iterations
    resets = [i for i in range(1, iterations + 1) if schedule.resets_opacity_at(i)]
    assert all(i + schedule.opacity_reset_interval <= schedule.densify_until_iter for i in resets)
    if iterations >= 1000:
        assert 3 * schedule.sh_interval < iterations / 2, "all bands have at least half of the run"
        assert any(schedule.densifies_at(i) for i in range(iterations))


def test_flags_win_over_the_schedule() -> None:
    given = replace(TrainConfig(), iterations=2000, densify_until_iter=1234, sh_interval=5)
    config, schedule = filled_in(given)
    assert schedule.densify_until_iter == config.densify_until_iter == 1234
    assert schedule.sh_interval == 5
    assert config.densification_interval == schedule_for(2000, "default").densification_interval
    assert filled_in(config)[1] == schedule, "the filled-in settings mean the same run"


def test_position_rate_is_straight_in_its_logarithm() -> None:
    assert position_rate(0, 1.6e-4, 1.6e-6, 30_000) == pytest.approx(1.6e-4)
    assert position_rate(15_000, 1.6e-4, 1.6e-6, 30_000) == pytest.approx(1.6e-5)
    assert position_rate(30_000, 1.6e-4, 1.6e-6, 30_000) == pytest.approx(1.6e-6)
    assert position_rate(90_000, 1.6e-4, 1.6e-6, 30_000) == pytest.approx(1.6e-6)


def test_every_photo_once_per_pass_in_changing_order() -> None:
    orders = [view_order(20, seed, epoch) for seed in (0, 1) for epoch in range(5)]
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert len({tuple(order) for order in orders}) == 10
    assert view_order(20, 1, 3) == orders[8]


def test_loss_by_hand_and_its_gradient() -> None:
    image = torch.zeros(1, 12, 13, 3, requires_grad=True)
    target = torch.full((1, 12, 13, 3), 0.25)
    assert photometric_loss(image, target, 0.0).item() == pytest.approx(0.25)
    assert photometric_loss(target, target, 0.2).item() == pytest.approx(0.0, abs=1e-6)
    noise = torch.rand(1, 12, 13, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = photometric_loss(noise, target, 0.2)
    plain = 0.8 * (noise - target).abs().mean() + 0.2 * (1 - ssim(noise, target).mean())
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)
    (ours,) = torch.autograd.grad(loss, noise)
    (theirs,) = torch.autograd.grad(plain, noise)
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-8)
    with pytest.raises(ValueError, match="one shape"):
        photometric_loss(image, target[:, :5], 0.2)


def test_default_folder_is_named_after_the_scene() -> None:
    assert model_folder("", "data/scenes/fox/") == Path("output/fox")
    assert model_folder("here", "data/fox") == Path("here")
    with pytest.raises(UserError, match="-s path/to/scene"):
        model_folder("", "")


def test_a_model_is_not_overwritten_unless_asked(tmp_path: Path) -> None:
    check_vacant(tmp_path / "new")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    check_vacant(tmp_path)
    ply = tmp_path / "point_cloud" / "iteration_70" / "point_cloud.ply"
    ply.parent.mkdir(parents=True)
    ply.write_bytes(b"")
    with pytest.raises(UserError, match=r"iteration 70\): replace it with --overwrite"):
        check_vacant(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "iteration_90.pt").write_bytes(b"")
    (tmp_path / "queries" / "mug").mkdir(parents=True)
    (tmp_path / "edit.yaml").write_text("edits: []")
    with pytest.raises(UserError, match=r"iteration 90\): continue it with --resume"):
        check_vacant(tmp_path)
    make_folder(tmp_path, clear=True)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(UserError, match="is a file"):
        check_vacant(tmp_path / "notes.txt")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "-s path/to/scene"),
        (["-s", "nowhere"], "nowhere"),
        (["-s", "x", "--iterations", "0"], "--iterations must lie between 1"),
        (["-m", "nowhere", "--resume"], "nothing to resume"),
        (["-s", "x", "-m", "m", "--start_checkpoint", "c.pt"], "no checkpoint c.pt"),
    ],
)
def test_bad_command_lines_say_what_is_wrong(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        main(arguments)
    assert not list(tmp_path.iterdir()), "nothing is written before the input is known to be good"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Use --data_device cpu"):
        main(["-s", str(tmp_path), "--data_device", "cuda"])


@pytest.mark.parametrize("spelling", ["source_path", "source-path"])
def test_command_line_speaks_both_spellings(spelling: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="no_such_scene"):
        main(
            [f"--{spelling}", "no_such_scene", "-r", "2", "-i", "photos", "-w", "--eval", "--sh-degree", "1"]
        )


def test_help_explains_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for name in json.loads(json.dumps(list(TrainConfig.__dataclass_fields__))):
        assert f"--{name}" in text


def test_the_log_says_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feature_gs.training.progress._SECONDS_BETWEEN_LINES", 0.0)
    progress = Progress(100, 30_000, quiet=False)
    progress.advance(50, 0.0312, 24.5, 12_345)
    progress.close()
    line = capsys.readouterr().err
    assert line.startswith("150/30000 loss 0.0312 24.50 dB 12.3k Gs ") and len(line) <= 80
    quiet = Progress(0, 10, quiet=True)
    quiet.advance(10, 0.1, 20.0, 5)
    quiet.say("something")
    quiet.close()
    assert capsys.readouterr().err == ""


def test_short_counts() -> None:
    assert [short_count(n) for n in (0, 999, 1000, 12_345, 999_949, 1_250_000)] == [
        "0",
        "999",
        "1.0k",
        "12.3k",
        "999.9k",
        "1.25M",
    ]
