"""Vision transformers: tokens or attention projections of any block, at any stride."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional

from feature_gs.encoders.network import Architecture, NetworkEncoder
from feature_gs.encoders.options import Option, one_of, whole_number
from feature_gs.errors import UserError

_PROJECTIONS = ("query", "key", "value")  # in the order in which a fused projection holds them
_CELLS_BY_DEFAULT = 48  # along the long side, for models without a size of their own here


def block_index(text: str) -> int | None:
    """`last` (None) or the index of a block from 0."""
    if text == "last":
        return None
    if not text.isdecimal():
        raise ValueError("expected last or the index of a block, from 0")
    return int(text)


class VisionTransformer(NetworkEncoder):
    """A plain ViT of timm.

    Tokens are what a block gives out, after the network's final normalisation (whichever the block), without
    class and register tokens. Queries, keys and values are what the block's attention projects from its
    input, heads side by side, before any normalisation or rotation of its own.
    """

    known_options: ClassVar[Mapping[str, Option]] = {
        "layer": Option(block_index, None, "last, or index of the block from 0"),
        "facet": Option(one_of("token", *_PROJECTIONS), "token", "token, query, key or value"),
        "stride": Option(whole_number, None, "pixels between patches, less than a patch to overlap them"),
        **NetworkEncoder.known_options,
    }

    def _prepare(self, architecture: Architecture) -> None:
        embed, settings = self.model.patch_embed, self.settings
        self.patch = int(embed.patch_size[0])
        self.stride = settings["stride"] = settings["stride"] or self.patch
        if self.stride > self.patch:
            raise UserError(
                f"option stride of {self.name} must be at most its patch of {self.patch} pixels, "
                f"got {self.stride}: larger ones would skip parts of the photo."
            )
        depth = len(self.model.blocks)
        if settings["layer"] is None:
            settings["layer"] = depth - 1
        if settings["layer"] >= depth:
            raise UserError(
                f"option layer of {self.name} must be last or 0 to {depth - 1}, got {settings['layer']}."
            )
        settings["size"] = settings["size"] or architecture.size or _CELLS_BY_DEFAULT * self.patch
        embed.proj.stride = (self.stride, self.stride)
        embed.img_size = None  # the sides need not be whole patches where patches overlap
        self.sizing = (
            f"long side about {settings['size']} pixels, both sides whole multiples of {self.stride}"
            + f", mirrored at the edges by {(self.patch - self.stride) / 2:g}" * (self.stride < self.patch)
        )
        self.channels = int(self.model.embed_dim)
        if settings["facet"] != "token":
            self.channels = _projection(self.name, self._attention(), settings["facet"])[0].shape[0]

    def _attention(self) -> nn.Module | None:
        return getattr(self.model.blocks[self.settings["layer"]], "attn", None)

    def _forward(self, pixels: Tensor, rows: int, columns: int) -> Tensor:
        facet, attention = self.settings["facet"], self._attention()
        inputs: list[Tensor] = []
        hook = None
        if facet != "token" and attention is not None:
            hook = attention.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
        try:
            tokens = self.model.forward_intermediates(
                pixels,
                indices=[self.settings["layer"]],
                norm=True,
                stop_early=True,
                output_fmt="NLC",
                intermediates_only=True,
            )[0]
        finally:
            if hook is not None:
                hook.remove()
        if facet != "token":
            weight, bias = _projection(self.name, attention, facet)
            tokens = functional.linear(inputs[0][:, self.model.num_prefix_tokens :], weight, bias)
        return tokens[0].T.reshape(-1, rows, columns)


def _projection(name: str, attention: Any, facet: str) -> tuple[Tensor, Tensor | None]:
    """Weight [C, D] and bias [C] with which an attention makes its queries, keys or values."""
    which = _PROJECTIONS.index(facet)
    fused = getattr(attention, "qkv", None)
    if fused is not None:
        biases = [fused.bias.chunk(3)[which]] if fused.bias is not None else []
        if getattr(attention, "q_bias", None) is not None:  # kept apart from the projection
            biases.append((attention.q_bias, attention.k_bias, attention.v_bias)[which])
        return fused.weight.chunk(3)[which], biases[0] if biases else None
    single = getattr(attention, f"{facet[0]}_proj", None)
    if single is None:
        raise UserError(f"{name} has no {facet} to take: its attention is of another kind. Use facet=token.")
    return single.weight, single.bias
