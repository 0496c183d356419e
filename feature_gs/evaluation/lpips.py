"""LPIPS (VGG): perceptual distance of two pictures, when the network's weights are on this machine.

Nothing is downloaded. The VGG-16 weights are torchvision's file; the weights of the five linear layers
come with torchmetrics. torchvision itself is not needed.
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from feature_gs.errors import UserError

WEIGHTS_NAME = "vgg16-397923af.pth"
WEIGHTS_URL = f"https://download.pytorch.org/models/{WEIGHTS_NAME}"

# VGG-16: output channels of each 3x3 convolution, one block per row; max pooling between the blocks.
_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class Lpips(nn.Module):
    """Distance of deep features; 0 for equal pictures, about 0.1 to 0.5 for renders of a scene."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        channels = 3
        for index, widths in enumerate(_BLOCKS):
            layers: list[nn.Module] = [nn.MaxPool2d(2)] if index else []
            for width in widths:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            self.blocks.append(nn.Sequential(*layers))
        self.weights = nn.ParameterList(torch.zeros(widths[-1]) for widths in _BLOCKS)
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(_STD)[:, None, None])
        self.requires_grad_(False)

    def forward(self, image: Tensor, target: Tensor) -> Tensor:  # [B, H, W, 3], [B, H, W, 3] -> [B]
        """Distances between pictures.

        Args:
            image: Colours in [0, 1] (brought to the range that the network was trained on here). [B, H, W, 3]
            target: Colours in [0, 1]. [B, H, W, 3]

        Returns:
            The distance of each pair. [B]
        """
        both = torch.cat([image, target]).permute(0, 3, 1, 2)
        activation = (both - self.mean) / self.std
        distance = image.new_zeros(len(image))
        for block, weights in zip(self.blocks, self.weights, strict=True):
            activation = block(activation)
            unit = activation / (activation.square().sum(1, keepdim=True) + 1e-8).sqrt()
            first, second = unit.chunk(2)
            distance = distance + torch.einsum("bchw,c->bhw", (first - second).square(), weights).mean((1, 2))
        return distance

    def load_vgg(self, state: Mapping[str, Tensor]) -> None:
        """Takes the convolutions of torchvision's VGG-16 state dict (`features.0.weight` ...).

        Raises:
            KeyError, RuntimeError: The state dict is of another network.
        """
        position = 0
        for block in self.blocks:
            for layer in block.children():
                if isinstance(layer, nn.Conv2d):
                    layer.load_state_dict(
                        {name: state[f"features.{position}.{name}"] for name in ("weight", "bias")}
                    )
                position += 1

    def load_linear(self, state: Mapping[str, Tensor]) -> None:
        """Takes the five linear layers of the LPIPS release (`lin0.model.1.weight` ...)."""
        for index, weights in enumerate(self.weights):
            weights.copy_(state[f"lin{index}.model.1.weight"].flatten())


def load_lpips(weights: Path | None = None) -> Lpips | None:
    """The metric, when its weights are at hand.

    Args:
        weights: torchvision's VGG-16 file; None looks into torch's hub cache.

    Returns:
        The metric, or None when nothing was named and the cache has no weights (see `how_to_get_lpips`).

    Raises:
        UserError: `weights` does not exist or is not VGG-16.
    """
    path = weights or default_weights()
    linear = _linear_weights()
    if weights is None and (not path.is_file() or linear is None):
        return None
    if linear is None:
        raise UserError("LPIPS takes its linear layers from torchmetrics: `pip install torchmetrics`.")
    if not path.is_file():
        raise UserError(f"--lpips_weights: there is no file {path}.\n  {how_to_get_lpips()}")
    metric = Lpips()
    try:
        with torch.no_grad():
            metric.load_vgg(torch.load(path, map_location="cpu", weights_only=True, mmap=True))
            metric.load_linear(torch.load(linear, map_location="cpu", weights_only=True))
    except Exception as error:
        raise UserError(
            f"--lpips_weights: {path} is not torchvision's VGG-16 ({type(error).__name__}: {error}).\n"
            f"  {how_to_get_lpips()}"
        ) from error
    return metric


def default_weights() -> Path:
    """Where torch keeps the VGG-16 weights once they were downloaded."""
    return Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_NAME


def how_to_get_lpips() -> str:
    """One sentence: what to download and where to put it."""
    return (
        f"LPIPS needs the VGG-16 weights (528 MB): put\n  {WEIGHTS_URL}\n"
        f"  into {default_weights().parent},\n  or name the file with --lpips_weights."
    )


def _linear_weights() -> Path | None:
    package = importlib.util.find_spec("torchmetrics")
    if package is None or package.origin is None:
        return None
    path = Path(package.origin).parent / "functional" / "image" / "lpips_models" / "vgg.pth"
    return path if path.is_file() else None
