"""Weights of CLIP as open_clip names them: where they are, and which tensors make which tower."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from feature_gs.encoders.lightning import read_lightning
from feature_gs.encoders.lseg_checkpoint import TEXT as LSEG_TEXT
from feature_gs.encoders.weights import Published, misfits, read_weights
from feature_gs.errors import UserError

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_IMAGE = "visual."
_TEXT = ("positional_embedding", "text_projection", "token_embedding.", "transformer.", "ln_final.")


@dataclass(frozen=True)
class Clip:
    """A trained CLIP.

    Attributes:
        weights: Where its file is.
        quick_gelu: Whether it was trained with x sigmoid(1.702 x) in place of GELU.
    """

    weights: Published
    quick_gelu: bool


def _published(file: str, repository: str, licence: str) -> Published:
    return Published(
        url="",
        file=file,
        license=licence,
        mean=_MEAN,
        std=_STD,
        hf_hub_id=repository,
        hf_hub_filename="open_clip_model.safetensors",
        older_filename="open_clip_pytorch_model.bin",
    )


VIT_B_16 = {
    "openai": Clip(
        _published("clip_vit_b_16.openai.safetensors", "timm/vit_base_patch16_clip_224.openai", "apache-2.0"),
        quick_gelu=True,
    ),
    "laion2b": Clip(
        _published("clip_vit_b_16.laion2b.safetensors", "laion/CLIP-ViT-B-16-laion2B-s34B-b88K", "mit"),
        quick_gelu=False,
    ),
}
VIT_B_32 = Clip(
    _published("clip_vit_b_32.openai.safetensors", "timm/vit_base_patch32_clip_224.openai", "apache-2.0"),
    quick_gelu=True,
)


def image_state(path: Path) -> dict[str, Tensor]:
    """Tensors of the image tower, named as in open_clip's `VisionTransformer`."""
    return {
        name.removeprefix(_IMAGE): value for name, value in _read(path).items() if name.startswith(_IMAGE)
    }


def text_state(path: Path) -> dict[str, Tensor]:
    """Tensors of the text tower, named as in open_clip's `TextTransformer`; also those inside LSeg's file."""
    state = _read(path)
    inside = {
        name.removeprefix(LSEG_TEXT): value for name, value in state.items() if name.startswith(LSEG_TEXT)
    }
    return {name: value for name, value in (inside or state).items() if name.startswith(_TEXT)}


def fill_tower(tower: nn.Module, state: Mapping[str, Tensor], path: Path, what: str) -> None:
    """Puts tensors into a tower, as float32; the tower may be on the device "meta".

    Raises:
        UserError: Tensors are missing, of other shapes or unknown; says how many and which.
    """
    faults = misfits(tower.state_dict(), state, ())
    if faults:
        raise UserError(f"{path} does not hold {what} as open_clip names it. Of its tensors are\n{faults}")
    tower.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)


def _read(path: Path) -> dict[str, Tensor]:
    return read_weights(path) if path.suffix == ".safetensors" else read_lightning(path)
