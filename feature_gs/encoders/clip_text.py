"""CLIP's text tower: words to unit vectors."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from feature_gs.encoders.clip_weights import fill_tower, text_state
from feature_gs.encoders.timm_import import import_with_torchvision
from feature_gs.errors import UserError

_HEAD = 64  # width of a head of the attention in every CLIP
_AT_ONCE = 64  # texts


def encode_clip(
    texts: Sequence[str],
    weights: Path,
    quick_gelu: bool,
    device: torch.device | str = "cpu",
) -> Tensor:  # [n, C]
    """Embeddings of texts by the text tower in a file. The image tower is not built.

    Args:
        texts: What to embed, at most 75 tokens each (about 50 words).
        weights: A file of CLIP as open_clip names its tensors, or LSeg's checkpoint.
        quick_gelu: Whether that CLIP was trained with x sigmoid(1.702 x) in place of GELU.
        device: Where to compute.

    Returns:
        Unit vectors, on the CPU. [n, C] float32

    Raises:
        UserError: A text is too long, or the file is damaged or holds no text tower.
    """
    state = text_state(weights)
    tower = _text_tower(state, weights, quick_gelu).to(device)
    tokens = _tokens(texts, tower.context_length)
    length = int(tokens.argmax(1).max()) + 1  # no token looks at later ones, so what follows the end may go
    tokens = tokens[:, :length].to(device)
    tower.attn_mask = tower.attn_mask[:length, :length]
    with torch.no_grad():
        parts = [functional.normalize(tower(part), dim=-1) for part in tokens.split(_AT_ONCE)]
    return torch.cat(parts).cpu()


def _text_tower(state: Mapping[str, Tensor], path: Path, quick_gelu: bool) -> Any:
    """The tower that a state dict is of; its sizes are those of the tensors."""
    needed = ("positional_embedding", "text_projection", "token_embedding.weight")
    lacking = [name for name in needed if name not in state or state[name].ndim != 2]
    if lacking:
        raise UserError(
            f"{path} does not hold a text tower of CLIP as open_clip names it: no {lacking[0]}.\n"
            "  Leave --weights out, or name the file that the teacher was loaded from."
        )
    transformer = import_with_torchvision("open_clip.transformer")
    context, width = state["positional_embedding"].shape
    with torch.device("meta"):
        tower = transformer.TextTransformer(
            context_length=context,
            vocab_size=state["token_embedding.weight"].shape[0],
            width=width,
            heads=max(1, width // _HEAD),
            layers=len({name.split(".")[2] for name in state if name.startswith("transformer.resblocks.")}),
            output_dim=state["text_projection"].shape[1],
            act_layer=transformer.QuickGELU if quick_gelu else torch.nn.GELU,
        )
    fill_tower(tower, state, path, "a text tower of CLIP")
    tower.attn_mask = tower.build_causal_mask()  # in no file
    return tower.eval().requires_grad_(False)


def _tokens(texts: Sequence[str], length: int) -> Tensor:  # [n, length]
    """The numbers of a text's pieces, between those of its start and end."""
    tokenizer = import_with_torchvision("open_clip.tokenizer").SimpleTokenizer(context_length=length)
    for text in texts:
        count = len(tokenizer.encode(text))
        if count > length - 2:
            raise UserError(
                f"the text {text[:40]!r}... has {count} tokens; CLIP reads at most {length - 2} (about "
                f"{(length - 2) * 2 // 3} words). Say it more briefly."
            )
    tokens: Tensor = tokenizer(list(texts))
    return tokens
