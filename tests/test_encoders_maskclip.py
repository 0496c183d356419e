"""Dense features from CLIP's last values: against open_clip's own parts, on random weights."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from random_clip import SMALL, clip_file, random_clip
from random_networks import random_photo
from safetensors.torch import load_file, save_file
from torch import Tensor

from feature_gs.encoders import load_encoder
from feature_gs.encoders import weights as weights_file
from feature_gs.encoders.maskclip import MaskClip
from feature_gs.encoders.timm_import import import_with_torchvision
from feature_gs.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
DEVIATION = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)


def maskclip(weights: Path | None = None, **options: Any) -> MaskClip:
    return MaskClip(weights or clip_file(), options, sizes=SMALL)


def before_the_last_block(tower: Any, photo: Tensor) -> Tensor:  # [1 + patches, width]
    """Tokens of a photo of the trained size, by open_clip."""
    pixels = (photo.permute(2, 0, 1).float() / 255 - MEAN) / DEVIATION
    tokens = tower._embeds(pixels[None])
    for block in tower.transformer.resblocks[:-1]:
        tokens = block(tokens)
    result: Tensor = tokens[0]
    return result


@pytest.mark.parametrize("pretrained", ["openai", "laion2b"])
def test_a_patch_keeps_what_the_last_attention_would_give_it_alone(pretrained: str) -> None:
    """Attention over a single token gives the token's own value: nothing else is there to be mixed in."""
    tower = random_clip(pretrained == "openai").visual
    photo = random_photo(64, 64)
    last = tower.transformer.resblocks[-1]
    expected = [
        tower.ln_post(last.attention(last.ln_1(token.view(1, 1, -1))))[0, 0] @ tower.proj
        for token in before_the_last_block(tower, photo)[1:]
    ]
    features = maskclip(clip_file(pretrained == "openai"), size=64, pretrained=pretrained)(photo)
    assert features.shape == (24, 4, 4) and features.std() > 0.1
    torch.testing.assert_close(features, torch.stack(expected, 1).view(24, 4, 4), rtol=1e-4, atol=1e-4)


def test_the_kind_of_gelu_matters() -> None:
    photo = random_photo(64, 64)
    quick, exact = (maskclip(size=64, pretrained=name)(photo) for name in ("openai", "laion2b"))
    assert (quick - exact).abs().max() > 1e-4


def test_positions_keep_their_place_on_another_grid() -> None:
    """With nothing but positions in the tokens, a wider grid shows the trained one, stretched."""
    state = load_file(clip_file())
    state["visual.conv1.weight"].zero_()
    for name, value in state.items():
        if name.startswith("visual.transformer") and name.split(".")[-2] in ("out_proj", "c_proj"):
            value.zero_()
    state["visual.transformer.resblocks.2.attn.out_proj.weight"].copy_(torch.eye(64))
    file = clip_file().with_name("positions.safetensors")
    save_file(state, file)
    trained, wide = maskclip(file, size=64)(random_photo(64, 64)), maskclip(file, size=192)
    assert wide.grid(192, 64).columns == 12
    stretched = wide(random_photo(192, 192))[:, 1::3, 1::3]  # the middle of every three cells
    torch.testing.assert_close(stretched, trained, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("width", "height"), [(101, 67), (67, 101), (441, 788), (10, 10)])
def test_the_photo_keeps_its_aspect(width: int, height: int) -> None:
    made = maskclip(size=160)
    grid = made.grid(width, height)
    long = max(width, height)
    assert max(grid.rows, grid.columns) == 10
    assert abs(grid.columns - 10 * width / long) <= 0.5 and abs(grid.rows - 10 * height / long) <= 0.5
    assert made(random_photo(width, height)).shape == (24, grid.rows, grid.columns)


def test_the_map_of_a_mirrored_photo_is_the_mirrored_map() -> None:
    photo = random_photo(96, 64)
    made = maskclip(size=96, flip=True)
    mirror = photo.flip(1).contiguous()
    torch.testing.assert_close(made(mirror), made(photo).flip(-1), rtol=1e-4, atol=1e-4)


def test_a_description_is_kept_with_the_maps() -> None:
    described = maskclip().describe()
    assert described["options"] == {
        "pretrained": "openai",
        "size": 768,
        "flip": False,
        "scales": [1.0],
    }
    assert described["open_clip_model"] == "clip_vit_b_16.openai"
    assert described["licence"] == "apache-2.0"
    assert json.loads(json.dumps(described)) == described


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="(?s)does not hold an image tower .*of another shape: .*instead of"):
        MaskClip(clip_file())  # not as large as ViT-B/16
    state = load_file(clip_file())
    del state["visual.proj"]
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="1 missing: proj"):
        maskclip(tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="one of openai, laion2b"):
        maskclip(pretrained="meta")


def test_weights_come_from_the_hub_under_either_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(weights_file, "_knock", lambda url: None)
    asked = []

    def download(repository: str, file: str) -> str:
        asked.append((repository, file))
        if file.endswith(".safetensors"):
            raise huggingface_hub.errors.EntryNotFoundError("not in this repository")
        torch.save(load_file(clip_file()), tmp_path / "older.bin")
        return str(tmp_path / "older.bin")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    photo = random_photo(64, 64)
    made = MaskClip(None, {"size": 64}, sizes=SMALL)
    assert asked == [
        ("timm/vit_base_patch16_clip_224.openai", "open_clip_model.safetensors"),
        ("timm/vit_base_patch16_clip_224.openai", "open_clip_pytorch_model.bin"),
    ]
    assert torch.equal(made(photo), maskclip(size=64)(photo))


def test_missing_weights_say_url_and_target(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)

    def unreachable(url: str) -> None:
        raise OSError(f"nobody answers at {url}")

    monkeypatch.setattr(weights_file, "_knock", unreachable)
    with pytest.raises(UserError) as caught:
        load_encoder("maskclip?pretrained=laion2b")
    assert "laion/CLIP-ViT-B-16-laion2B-s34B-b88K/resolve/main/open_clip_model.safetensors" in str(
        caught.value
    )
    assert str(tmp_path / "checkpoints" / "clip_vit_b_16.laion2b.safetensors") in str(caught.value)


@pytest.mark.slow
def test_the_public_size(tmp_path: Path) -> None:
    model = import_with_torchvision("open_clip").create_model("ViT-B-16-quickgelu", pretrained=None)
    save_file(model.state_dict(), tmp_path / "clip.safetensors")
    made = load_encoder("maskclip?size=224", weights=tmp_path / "clip.safetensors")
    assert made(random_photo(200, 300)).shape == (512, 14, 9)
