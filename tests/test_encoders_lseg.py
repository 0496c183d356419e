"""LSeg: its wiring, its windows, its averages, and which checkpoints it takes."""

import json
import os
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from random_lseg import FULL, SMALL, public_shapes, random_state, step_by_step, write_checkpoint
from random_networks import random_photo
from torch import Tensor

from feature_gs.encoders import load_encoder
from feature_gs.encoders.lseg import LSeg, mirrored, window_starts
from feature_gs.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL_TEXT = {"text_width": 32, "text_depth": 1}


@cache
def small_state() -> dict[str, Tensor]:
    return random_state(SMALL, **SMALL_TEXT)


@cache
def small_file() -> Path:
    return write_checkpoint(Path(mkdtemp(prefix="feature_gs_")) / "small.ckpt", small_state())


def lseg(path: Path | None = None, **options: Any) -> LSeg:
    return LSeg(path or small_file(), options, sizes=SMALL)


def single(**options: Any) -> LSeg:
    """One size, not mirrored."""
    return lseg(**{"scales": 1, "flip": False} | options)


def normalised(photo: Tensor) -> Tensor:  # [H, W, 3] -> [1, 3, H, W]
    return (photo.permute(2, 0, 1).float()[None] / 255 - 0.5) / 0.5


def test_the_public_checkpoint_has_these_names_and_shapes(shared_data: Path) -> None:
    page = shared_data.parent / "reference" / "lseg-checkpoint-keys.txt"
    if not page.is_file():
        pytest.skip(f"the names are not at {page}")
    lines = [line.split(" ", 1) for line in page.read_text().splitlines() if not line.startswith("#")]
    assert {name: tuple(json.loads(shape)) for name, shape in lines} == public_shapes(FULL)


def test_features_are_those_of_the_public_wiring() -> None:
    photo = random_photo(96, 64)
    features = single(size=96)(photo)
    expected = step_by_step(small_state(), normalised(photo), SMALL)
    assert features.shape == expected.shape == (12, 32, 48)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)
    assert features.std() > 0.1


def test_windows_start_at_both_ends_and_overlap_by_a_third_or_more() -> None:
    assert window_starts(240) == window_starts(3) == [0]
    assert window_starts(260) == [0, 20] and window_starts(400) == [0, 160]
    for cells in range(241, 2000, 7):
        starts = window_starts(cells)
        assert starts[0] == 0 and starts[-1] + 240 == cells
        assert max(b - a for a, b in zip(starts, starts[1:], strict=False)) <= 160


def test_where_windows_overlap_their_mean_counts() -> None:
    photo = random_photo(640, 64)  # windows from pixel 0 and 160
    features = single(size=640)(photo)
    left, right = (
        step_by_step(small_state(), normalised(photo[:, start : start + 480].contiguous()), SMALL)
        for start in (0, 160)
    )
    assert features.shape == (12, 32, 320)
    torch.testing.assert_close(features[..., :80], left[..., :80], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(features[..., 240:], right[..., 160:], rtol=1e-4, atol=1e-4)
    mean = (left[..., 80:] + right[..., :160]) / 2
    torch.testing.assert_close(features[..., 80:240], mean, rtol=1e-4, atol=1e-4)


def test_what_is_no_whole_unit_is_mirrored() -> None:
    assert mirrored(5, 4).tolist() == [0, 1, 2, 3, 4, 4, 3, 2]
    assert mirrored(1, 4).tolist() == [0, 0, 0, 0] and mirrored(4, 4).tolist() == [0, 1, 2, 3]
    photo = random_photo(80, 32)
    filled = torch.cat([photo, photo[:, 64:].flip(1)], 1)
    expected = step_by_step(small_state(), normalised(filled), SMALL)[..., :40]
    torch.testing.assert_close(single(size=80)(photo), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("width", "height"), [(441, 788), (788, 441), (640, 480), (200, 9), (1, 1)])
def test_the_photo_keeps_its_aspect(width: int, height: int) -> None:
    made = single(size=100)
    grid = made.grid(width, height)
    long = max(width, height)
    assert max(grid.rows, grid.columns) == 50  # half of the input's long side
    assert abs(grid.columns - 50 * width / long) <= 0.5 and abs(grid.rows - 50 * height / long) <= 0.5
    assert grid.columns == pytest.approx(grid.cells_per_pixel_x * width)
    assert grid.rows == pytest.approx(grid.cells_per_pixel_y * height)
    assert made(random_photo(width, height)).shape == (12, grid.rows, grid.columns)


def test_the_map_of_a_mirrored_photo_is_the_mirrored_map() -> None:
    photo = random_photo(520, 90)  # two windows, mirrored edges: both are lopsided
    mirror = photo.flip(1).contiguous()
    both, one = lseg(size=520, scales=1), single(size=520)
    torch.testing.assert_close(both(mirror), both(photo).flip(-1), rtol=1e-4, atol=1e-4)
    assert (one(mirror) - one(photo).flip(-1)).abs().max() > 1e-2
    torch.testing.assert_close(both(photo), (one(photo) + one(mirror).flip(-1)) / 2, rtol=1e-4, atol=1e-4)


def test_sizes_are_averaged_on_the_grid_of_the_first() -> None:
    photo = random_photo(128, 64)
    both = lseg(size=128, flip=False, scales="1,0.5")
    half = single(size=64)(photo)
    half = torch.nn.functional.interpolate(half[None], (32, 64), mode="bilinear")[0]
    expected = (single(size=128)(photo) + half) / 2
    torch.testing.assert_close(both(photo), expected, rtol=1e-4, atol=1e-4)


def test_by_default_it_averages_as_the_original() -> None:
    described = lseg().describe()
    assert described["options"] == {"size": 520, "flip": True, "scales": [0.75, 1.0, 1.25, 1.75]}
    assert described["normalisation"].startswith("(colour / 255 - mean (0.5, 0.5, 0.5)) / deviation (0.5,")
    assert described["lseg_model"] == "demo_e200" and described["weights"] == "small.ckpt"
    assert len(described["weights_sha256"]) == 64
    assert json.loads(json.dumps(described)) == described


def test_half_precision_is_read_as_single(tmp_path: Path) -> None:
    half = {name: value.half() if value.ndim else value for name, value in small_state().items()}
    photo = random_photo(64, 64)
    features = LSeg(
        write_checkpoint(tmp_path / "half.ckpt", half), {"scales": 1, "flip": False, "size": 64}, sizes=SMALL
    )(photo)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, single(size=64)(photo), rtol=5e-2, atol=5e-2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: state.pop("net.pretrained.model.blocks.3.attn.qkv.weight"),
            "1 missing: net.pretrained.model.blocks.3.attn.qkv.weight",
        ),
        (
            lambda state: state.update({"net.scratch.layer1_rn.weight": torch.zeros(8, 5, 3, 3)}),
            r"1 of another shape: net.scratch.layer1_rn.weight \[8, 5, 3, 3\] instead of \[8, 4, 3, 3\]",
        ),
        (
            lambda state: state.update({"net.scratch.head_block.depthwise.weight": torch.zeros(1)}),
            "1 unknown: net.scratch.head_block.depthwise.weight",
        ),
        (
            lambda state: state.update({f"net.new{index}": torch.zeros(1) for index in range(5)}),
            "5 unknown: net.new0, net.new1, net.new2, ...$",
        ),
        (lambda state: state.clear(), r"missing: net.pretrained.model.cls_token, "),
    ],
)
def test_another_checkpoint_is_refused_with_what_is_wrong(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    state = dict(small_state())
    change(state)
    with pytest.raises(UserError, match=message):
        lseg(write_checkpoint(tmp_path / "other.ckpt", state))


def test_what_is_not_used_may_be_gone(tmp_path: Path) -> None:
    unused = (
        *("net.clip_pretrained.", "net.pretrained.model.norm.", "net.pretrained.model.head."),
        "net.scratch.refinenet4.resConfUnit1.",
    )
    state = {name: value for name, value in small_state().items() if not name.startswith(unused)}
    photo = random_photo(64, 64)
    made = LSeg(
        write_checkpoint(tmp_path / "less.ckpt", state), {"scales": 1, "flip": False, "size": 64}, sizes=SMALL
    )
    assert torch.equal(made(photo), single(size=64)(photo))


class Harmful:
    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call = (call, arguments)

    def __reduce__(self) -> Any:
        return self.call


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = {"state_dict": small_state()}
    harms = {
        "call": Harmful(subprocess.call, ["mkdir", "harm"]),
        "eval": Harmful(eval, "__import__('os').mkdir('harm')"),
    }
    torch.save(content | harms, "harmful.ckpt")
    lseg(Path("harmful.ckpt"))  # what would do harm was replaced by nothing
    torch.save(content | {"system": Harmful(os.mkdir, "harm")}, "system.ckpt")
    with pytest.raises(UserError, match="cannot read the checkpoint system.ckpt"):
        lseg(Path("system.ckpt"))
    assert not (tmp_path / "harm").exists()


def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    page = tmp_path / "demo_e200.ckpt"
    page.write_text("<html>Google Drive - Virus scan warning</html>")
    with pytest.raises(UserError, match="(?s)cannot read the checkpoint .*the web page of the download"):
        lseg(page)
    cut = tmp_path / "cut.ckpt"
    cut.write_bytes(small_file().read_bytes()[:-1000])
    with pytest.raises(UserError, match="cannot read the checkpoint .*cut.ckpt"):
        lseg(cut)
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(UserError, match="holds no state dict"):
        lseg(tmp_path / "list.ckpt")


def test_a_missing_checkpoint_says_url_and_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    with pytest.raises(UserError) as caught:
        load_encoder("lseg")
    assert "https://drive.google.com/file/d/1ayk6NXURI_vIPlym16f_RG3ffxBWHxvb/view" in str(caught.value)
    assert str(tmp_path / "checkpoints" / "demo_e200.ckpt") in str(caught.value)


@pytest.mark.slow
def test_the_public_size(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "demo_e200.ckpt", random_state(FULL))
    made = load_encoder("lseg?scales=1&flip=false&size=96", weights=path)
    photo = random_photo(96, 64)
    features = made(photo)
    assert made.channels == 512 and features.shape == (512, 32, 48)
    with torch.no_grad():
        expected = step_by_step(random_state(FULL), normalised(photo), FULL)
    torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-3)
