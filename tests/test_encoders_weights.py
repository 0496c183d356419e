"""Weights: where they are looked for, what is refused, what is said when there are none."""

import hashlib
import os
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from random_networks import TINY, random_model, random_photo, weights_of
from safetensors.torch import load_file, save_file

from feature_gs.encoders import load_encoder
from feature_gs.encoders import weights as weights_file
from feature_gs.encoders.weights import read_weights
from feature_gs.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")

NAME = f"timm:{TINY}"


@pytest.fixture
def empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No caches, no network. The folder for weights placed by hand."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)

    def unreachable(url: str) -> None:
        raise OSError(f"nobody answers at {url}")

    monkeypatch.setattr(weights_file, "_knock", unreachable)
    return tmp_path / "hub" / "checkpoints"


def test_missing_weights_say_url_and_target(empty_machine: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_encoder("dino_vits8")
    message = str(caught.value)
    assert "https://huggingface.co/timm/vit_small_patch8_224.dino/resolve/main/model.safetensors" in message
    assert str(empty_machine / "vit_small_patch8_224.dino.safetensors") in message
    assert "nobody answers" in message and "--weights" in message


def test_weights_put_there_by_hand_are_found(empty_machine: Path) -> None:
    empty_machine.mkdir(parents=True)
    target = empty_machine / "test_vit.r160_in1k.safetensors"
    target.write_bytes(weights_of(TINY).read_bytes())
    made = load_encoder(NAME, options={"size": 64})
    photo = random_photo(64, 64)
    assert torch.equal(made(photo), load_encoder(NAME, weights=weights_of(TINY), options={"size": 64})(photo))
    assert made.describe()["weights_sha256"] == hashlib.sha256(target.read_bytes()).hexdigest()


def test_weights_come_from_the_hub_when_it_answers(
    empty_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(repository: str, file: str) -> str:
        asked.append((repository, file))
        return str(weights_of(TINY))

    monkeypatch.setattr(weights_file, "_knock", lambda url: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    load_encoder(NAME)
    assert asked == [("timm/test_vit.r160_in1k", "model.safetensors")]


def test_the_users_own_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file .*none.pth for timm:test_vit"):
        load_encoder(NAME, weights=tmp_path / "none.pth")


def test_a_pth_file_is_read_as_well(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"model": random_model(TINY).state_dict()}, path)
    photo = random_photo(64, 64)
    expected = load_encoder(NAME, weights=weights_of(TINY), options={"size": 64})(photo)
    assert torch.equal(load_encoder(NAME, weights=path, options={"size": 64})(photo), expected)


def test_a_classifier_in_the_file_does_not_matter(tmp_path: Path) -> None:
    state = load_file(weights_of(TINY))
    save_file(
        {**state, "head.weight": torch.zeros(10, 64), "head.bias": torch.zeros(10)},
        tmp_path / "a.safetensors",
    )
    load_encoder(NAME, weights=tmp_path / "a.safetensors")


class Harmful:
    def __reduce__(self) -> Any:
        return os.mkdir, ("harm_was_done",)


def test_code_in_a_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pth"
    torch.save({"model": Harmful()}, path)
    with pytest.raises(UserError, match="cannot read the weights"):
        load_encoder(NAME, weights=path)
    assert not (tmp_path / "harm_was_done").exists()


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "w.pth").touch()
    with pytest.raises(UserError, match="cannot read the weights .*w.pth"):
        read_weights(tmp_path / "w.pth")


def test_a_cut_off_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(weights_of(TINY).read_bytes()[:-100])
    with pytest.raises(UserError, match="cannot read the weights .*weights.safetensors"):
        load_encoder(NAME, weights=path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("blocks.3.attn.qkv.weight"), "lack blocks.3.attn.qkv.weight"),
        (lambda state: state.update({"blocks.6.norm1.weight": torch.ones(64)}), "have blocks.6.norm1.weight"),
        (lambda state: state.update({"norm.weight": torch.ones(65)}), "do not fit timm:test_vit"),
        (lambda state: state.clear(), "lack .* more"),
    ],
)
def test_weights_of_another_model_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    state = load_file(weights_of(TINY))
    change(state)
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=message):
        load_encoder(NAME, weights=tmp_path / "other.safetensors")


def test_a_list_is_no_state_dict(tmp_path: Path) -> None:
    torch.save([torch.zeros(3)], tmp_path / "weights.pth")
    with pytest.raises(UserError, match="hold a list; expected a state dict"):
        load_encoder(NAME, weights=tmp_path / "weights.pth")
