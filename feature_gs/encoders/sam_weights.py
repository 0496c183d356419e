"""SAM's published checkpoints: where they are, of which network each is, and reading a part of one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from feature_gs.encoders.weights import Published, find_weights, misfits, read_weights
from feature_gs.errors import UserError

SIDE = 1024  # of the square input, pixels
PATCH = 16  # side of a cell, pixels of the input
CELLS = SIDE // PATCH
CHANNELS = 256

# Of SAM's own pre-processing, there in 0 to 255.
MEAN = (123.675, 116.28, 103.53)
DEVIATION = (58.395, 57.12, 57.375)

_URL = "https://dl.fbaipublicfiles.com/segment_anything/"
_WIDTH = "image_encoder.pos_embed"  # [1, 64, 64, width]
_PARTS = ("image_encoder.", "prompt_encoder.", "mask_decoder.")


@dataclass(frozen=True)
class SamModel:
    """One of the published sizes of SAM; they differ in the image encoder only.

    Attributes:
        weights: Where its checkpoint is.
        width: Channels of the image encoder's tokens.
        depth: Blocks of the image encoder.
        heads: Heads of its attention.
        global_blocks: The blocks whose attention reaches over the whole photo, not only over 14 x 14 cells.
    """

    weights: Published
    width: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]


def _published(file: str) -> Published:
    mean, deviation = ((r / 255, g / 255, b / 255) for r, g, b in (MEAN, DEVIATION))
    return Published(_URL + file, file, "apache-2.0", mean, deviation)


MODELS = {
    "sam_vit_b": SamModel(_published("sam_vit_b_01ec64.pth"), 768, 12, 12, (2, 5, 8, 11)),
    "sam_vit_l": SamModel(_published("sam_vit_l_0b3195.pth"), 1024, 24, 16, (5, 11, 17, 23)),
    "sam_vit_h": SamModel(_published("sam_vit_h_4b8939.pth"), 1280, 32, 16, (7, 15, 23, 31)),
}


def load_parts(name: str, weights: Path | None, parts: Mapping[str, nn.Module]) -> Path:
    """Fills parts of SAM from a checkpoint; of the others nothing is kept in memory.

    Args:
        name: One of MODELS.
        weights: The user's own file, or None.
        parts: Networks by their name in the checkpoint ("image_encoder", "prompt_encoder", "mask_decoder").
            They may be on the device "meta": their tensors are replaced, by float32 ones on the CPU.

    Returns:
        The file.

    Raises:
        UserError: The file is missing, damaged, of another size of SAM or of something else.
    """
    path = find_weights(name, MODELS[name].weights, weights)
    state = {key: value for key, value in read_weights(path).items() if isinstance(value, Tensor)}
    _check_size(name, path, state)
    wanted = {
        f"{part}.{key}": value
        for part, network in parts.items()
        for key, value in network.state_dict().items()
    }
    others = tuple(part for part in _PARTS if part.rstrip(".") not in parts)
    faults = misfits(wanted, state, others)
    if faults:
        raise UserError(
            f"{path} is no checkpoint of {name} in the format of the segment_anything package. "
            f"Of its tensors are\n{faults}"
        )
    for part, network in parts.items():
        own = {key: state[f"{part}.{key}"].to(torch.float32, copy=True) for key in network.state_dict()}
        network.load_state_dict(own, assign=True)
    return path


def _check_size(name: str, path: Path, state: Mapping[str, Tensor]) -> None:
    """Raises UserError where the checkpoint tells that it is of another size, or in another layout."""
    if any(key.startswith(("vision_encoder.", "shared_image_embedding.")) for key in state):
        raise UserError(
            f"{path} is SAM in the layout of the transformers library. {name} reads the original file:\n"
            f"    {MODELS[name].weights.url}"
        )
    embedding = state.get(_WIDTH)
    if embedding is None or embedding.ndim != 4:
        return
    for other, model in MODELS.items():
        if embedding.shape[3] == model.width and model.width != MODELS[name].width:
            raise UserError(f"{path} holds the weights of {other}, not of {name}: say {other}.")
