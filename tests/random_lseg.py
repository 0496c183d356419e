"""LSeg checkpoints with random numbers in the public format, and LSeg computed from them step by step."""

import sys
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from feature_gs.encoders.lseg import Sizes

SMALL = Sizes(
    width=32, depth=5, heads=4, side=4, taps=(0, 1, 2, 4), levels=(4, 6, 8, 10), features=8, channels=12
)
FULL = Sizes()
_EPSILON = 1e-6  # of the ViT's normalisations


def public_shapes(sizes: Sizes, text_width: int = 512, text_depth: int = 12) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors of a checkpoint."""
    width, features = sizes.width, sizes.features
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *shape: int, bias: bool = True) -> None:
        shapes[f"net.{name}.weight"] = shape
        if bias:
            shapes[f"net.{name}.bias"] = shape[:1]

    vit = "pretrained.model"
    shapes[f"net.{vit}.cls_token"] = (1, 1, width)
    shapes[f"net.{vit}.pos_embed"] = (1, sizes.side**2 + 1, width)
    layer(f"{vit}.patch_embed.proj", width, 3, 16, 16)
    for block in (f"{vit}.blocks.{index}" for index in range(sizes.depth)):
        layer(f"{block}.norm1", width)
        layer(f"{block}.attn.qkv", 3 * width, width)
        layer(f"{block}.attn.proj", width, width)
        layer(f"{block}.norm2", width)
        layer(f"{block}.mlp.fc1", 4 * width, width)
        layer(f"{block}.mlp.fc2", width, 4 * width)
    layer(f"{vit}.norm", width)
    layer(f"{vit}.head", 1000, width)

    for index, level in enumerate(sizes.levels):
        post = f"pretrained.act_postprocess{index + 1}"
        layer(f"{post}.0.project.0", width, 2 * width)
        layer(f"{post}.3", level, width, 1, 1)
        if index != 2:
            side = (4, 2, 0, 3)[index]
            layer(f"{post}.4", level, level, side, side)
        layer(f"scratch.layer{index + 1}_rn", features, level, 3, 3, bias=False)
        fusion = f"scratch.refinenet{index + 1}"
        layer(f"{fusion}.out_conv", features, features, 1, 1)
        for unit in (f"{fusion}.resConfUnit{number}" for number in (1, 2)):
            for number in (1, 2):
                layer(f"{unit}.conv{number}", features, features, 3, 3, bias=False)
                layer(f"{unit}.bn{number}", features)
                for statistic in ("running_mean", "running_var"):
                    shapes[f"net.{unit}.bn{number}.{statistic}"] = (features,)
                shapes[f"net.{unit}.bn{number}.num_batches_tracked"] = ()
    layer("scratch.head1", sizes.channels, features, 1, 1)

    clip = "net.clip_pretrained"
    image = 768 * text_width // 512
    shapes |= {
        f"{clip}.positional_embedding": (77, text_width),
        f"{clip}.text_projection": (text_width, sizes.channels),
        f"{clip}.logit_scale": (),
        f"{clip}.token_embedding.weight": (49408, text_width),
        f"{clip}.visual.class_embedding": (image,),
        f"{clip}.visual.positional_embedding": (50, image),
        f"{clip}.visual.proj": (image, sizes.channels),
        f"{clip}.visual.conv1.weight": (image, 3, 32, 32),
    }
    for part in ("visual.ln_pre", "visual.ln_post"):
        layer(f"clip_pretrained.{part}", image)
    layer("clip_pretrained.ln_final", text_width)
    for tower, wide in (("transformer", text_width), ("visual.transformer", image)):
        for block in (f"clip_pretrained.{tower}.resblocks.{index}" for index in range(text_depth)):
            layer(f"{block}.ln_1", wide)
            layer(f"{block}.ln_2", wide)
            shapes[f"net.{block}.attn.in_proj_weight"] = (3 * wide, wide)
            shapes[f"net.{block}.attn.in_proj_bias"] = (3 * wide,)
            layer(f"{block}.attn.out_proj", wide, wide)
            layer(f"{block}.mlp.c_fc", 4 * wide, wide)
            layer(f"{block}.mlp.c_proj", wide, 4 * wide)
    return shapes


def random_state(sizes: Sizes, **text: int) -> dict[str, Tensor]:
    """Random tensors of a whole checkpoint, scaled so that signals neither die nor explode."""
    generator = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}
    for name, shape in public_shapes(sizes, **text).items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif len(shape) < 2:  # near 1 for factors and variances, near 0 for what is added
            near = 1.0 if name.endswith(("weight", "running_var")) else 0.0
            state[name] = near + 0.1 * torch.randn(shape, generator=generator).clamp(-3, 3)
        else:
            inputs = torch.Size(shape[1:]).numel()
            state[name] = torch.randn(shape, generator=generator) / inputs**0.5
    return state


def write_checkpoint(path: Path, state: dict[str, Tensor]) -> Path:
    """Writes a state dict as Lightning does, with settings and callbacks of packages that are not here."""
    names = ("pytorch_lightning", "pytorch_lightning.callbacks", "pytorch_lightning.utilities.parsing")
    modules = {name: ModuleType(name) for name in names}
    callback = type("ModelCheckpoint", (), {"__module__": names[1]})
    settings = type("AttributeDict", (dict,), {"__module__": names[2]})
    modules[names[1]].ModelCheckpoint = callback  # type: ignore[attr-defined]
    modules[names[2]].AttributeDict = settings  # type: ignore[attr-defined]
    sys.modules.update(modules)
    try:
        torch.save(
            {
                "epoch": 200,
                "pytorch-lightning_version": "1.3.5",
                "state_dict": OrderedDict(state),
                "callbacks": {callback: {"best_model_score": torch.tensor(0.5)}},
                "optimizer_states": [{"state": {}, "param_groups": [{"lr": 0.004, "params": [0, 1]}]}],
                "hyper_parameters": settings(backbone="clip_vitl16_384", num_features=256),
                "made_by": callback(),
            },
            path,
        )
    finally:
        for name in modules:
            del sys.modules[name]
    return path


def step_by_step(
    state: dict[str, Tensor],
    pixels: Tensor,  # [1, 3, h, w]
    sizes: Sizes,
) -> Tensor:  # [C, h / 2, w / 2]
    """LSeg's features of a normalised picture, written down from the wiring of the public checkpoint."""

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ state[f"net.{name}.weight"].T + state[f"net.{name}.bias"]

    def convolve(name: str, x: Tensor, **how: Any) -> Tensor:
        return functional.conv2d(x, state[f"net.{name}.weight"], state.get(f"net.{name}.bias"), **how)

    def normal(name: str, x: Tensor) -> Tensor:
        spread = (x - x.mean(-1, keepdim=True)).square().mean(-1, keepdim=True)
        unit = (x - x.mean(-1, keepdim=True)) / (spread + _EPSILON).sqrt()
        return unit * state[f"net.{name}.weight"] + state[f"net.{name}.bias"]

    def block(name: str, x: Tensor) -> Tensor:
        head = sizes.width // sizes.heads
        parts = linear(f"{name}.attn.qkv", normal(f"{name}.norm1", x)).chunk(3, -1)
        query, key, value = (part.unflatten(-1, (sizes.heads, head)).transpose(1, 2) for part in parts)
        attention = (query @ key.transpose(-1, -2) / head**0.5).softmax(-1)
        x = x + linear(f"{name}.attn.proj", (attention @ value).transpose(1, 2).flatten(2))
        inner = functional.gelu(linear(f"{name}.mlp.fc1", normal(f"{name}.norm2", x)))
        return x + linear(f"{name}.mlp.fc2", inner)

    def batch_normal(name: str, x: Tensor) -> Tensor:
        mean, spread, factor, shift = (
            state[f"net.{name}.{part}"].view(-1, 1, 1)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (spread + 1e-5).sqrt() * factor + shift

    def residual(name: str, x: Tensor) -> Tensor:
        inner = batch_normal(f"{name}.bn1", convolve(f"{name}.conv1", x.relu(), padding=1))
        return batch_normal(f"{name}.bn2", convolve(f"{name}.conv2", inner.relu(), padding=1)) + x

    vit = "pretrained.model"
    rows, columns = pixels.shape[2] // 16, pixels.shape[3] // 16
    patches = convolve(f"{vit}.patch_embed.proj", pixels, stride=16).flatten(2).transpose(1, 2)
    positions = state[f"net.{vit}.pos_embed"]
    grid = positions[:, 1:].transpose(1, 2).unflatten(2, (sizes.side, sizes.side))
    grid = functional.interpolate(grid, (rows, columns), mode="bilinear")
    positions = torch.cat([positions[:, :1], grid.flatten(2).transpose(1, 2)], 1)
    tokens = torch.cat([state[f"net.{vit}.cls_token"], patches], 1) + positions
    taken = []
    for index in range(sizes.depth):
        tokens = block(f"{vit}.blocks.{index}", tokens)
        if index in sizes.taps:
            taken.append(tokens)

    levels = []
    for index, x in enumerate(taken):
        post = f"pretrained.act_postprocess{index + 1}"
        both = torch.cat([x[:, 1:], x[:, :1].expand(-1, x.shape[1] - 1, -1)], -1)
        picture = functional.gelu(linear(f"{post}.0.project.0", both)).transpose(1, 2)
        picture = convolve(f"{post}.3", picture.unflatten(2, (rows, columns)))
        if index < 2:
            weight, bias = state[f"net.{post}.4.weight"], state[f"net.{post}.4.bias"]
            picture = functional.conv_transpose2d(picture, weight, bias, stride=(4, 2)[index])
        elif index == 3:
            picture = convolve(f"{post}.4", picture, stride=2, padding=1)
        levels.append(convolve(f"scratch.layer{index + 1}_rn", picture, padding=1))

    out = levels[3]
    for number in (4, 3, 2, 1):
        fusion = f"scratch.refinenet{number}"
        if number < 4:
            out = out + residual(f"{fusion}.resConfUnit1", levels[number - 1])
        out = residual(f"{fusion}.resConfUnit2", out)
        out = functional.interpolate(out, scale_factor=2, mode="bilinear", align_corners=True)
        out = convolve(f"{fusion}.out_conv", out)
    return convolve("scratch.head1", out)[0]
