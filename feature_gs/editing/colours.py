"""Colours by name, as maps of RGB."""

import torch
from PIL import ImageColor
from torch import Tensor

from feature_gs.editing.cloud import Cloud
from feature_gs.gaussians.sh import dc_to_rgb

_LUMINANCE = (0.2126, 0.7152, 0.0722)  # Rec. 709
_DARKEST = 0.1  # mean luminance below which texture is not strengthened further


def named_colour(name: str) -> Tensor:
    """The RGB of a CSS colour: "red", "#f80", "rgb(255, 128, 0)".

    Returns:
        In [0, 1]. [3] float64

    Raises:
        ValueError: There is no such colour.
    """
    red, green, blue = ImageColor.getrgb(name)[:3]
    return torch.tensor([red, green, blue], dtype=torch.float64) / 255


@torch.no_grad()
def painted(cloud: Cloud, selected: Tensor, rgb: Tensor) -> tuple[Tensor, Tensor]:  # [N] bool, [3]
    """The map of colours that paints something in one colour and leaves its texture and shading visible.

    With Y a colour's luminance and y the mean of what is selected, `rgb' = rgb (1 + (Y - y) / max(y, 0.1))`.

    Args:
        cloud: The Gaussians.
        selected: At least one. [N] bool
        rgb: What the mean becomes, in [0, 1]. [3]

    Returns:
        Matrix [3, 3] and offset [3] for `recolour`.
    """
    weights = cloud.model.opacities[selected].double()
    luminance = torch.tensor(_LUMINANCE, dtype=torch.float64, device=weights.device)
    shown = dc_to_rgb(cloud.model.sh_dc[selected].double()).clamp(0, 1) @ luminance
    mean = (weights * shown).sum() / weights.sum()
    strength = mean.clamp_min(_DARKEST)
    rgb = rgb.to(luminance)
    return rgb[:, None] * luminance / strength, rgb * (1 - mean / strength)
