"""What all networks share: photo in, weights in, averaging over mirrored and scaled copies."""

import sys
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from feature_gs.encoders import weights as weights_file
from feature_gs.encoders.base import Encoder, Grid
from feature_gs.encoders.options import Option, whole_number, yes_or_no
from feature_gs.encoders.picture import cells_along, network_input


@dataclass(frozen=True)
class Architecture:
    """A network before it has weights.

    Attributes:
        name: What the user calls it.
        model: The network, random.
        config: timm's `PretrainedCfg`, or `weights.Published`.
        size: Long side of the input by default, pixels; None lets the encoder choose.
        library: Whose network it is, for the description kept with the maps.
    """

    name: str
    model: Any
    config: Any
    size: int | None
    library: str = "timm"


def scale_factors(text: str) -> tuple[float, ...]:
    """Numbers between 0.1 and 10, with commas between."""
    try:
        factors = tuple(float(part) for part in text.strip("()[] ").split(",") if part.strip())
    except ValueError:
        factors = ()
    if not factors or not all(0.1 <= factor <= 10 for factor in factors):
        raise ValueError("expected numbers from 0.1 to 10 with commas between, such as 0.5,1,2")
    return factors


class NetworkEncoder(Encoder):
    """Resizes, normalises, runs and averages; the kind of network says how many cells and which features.

    Attributes:
        model: The network, on `device`, in evaluation mode.
    """

    uses_weights = True
    known_options: ClassVar[Mapping[str, Option]] = {
        "size": Option(whole_number, None, "long side of the input in pixels"),
        "flip": Option(yes_or_no, False, "average with the map of the mirrored photo"),
        "scales": Option(scale_factors, (1.0,), "average over these multiples of size, such as 0.5,1,2"),
    }

    def __init__(
        self,
        architecture: Architecture,
        weights: Path | None = None,
        options: Mapping[str, Any] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """Checks the options, then finds and loads the weights.

        Args:
            architecture: The network.
            weights: File of weights; None takes the published ones.
            options: Option -> value.
            device: Where to compute.

        Raises:
            UserError: An option is wrong, or the weights are missing, damaged or of another model.
        """
        config = architecture.config
        self.name = architecture.name
        self.model: Any = architecture.model.eval().requires_grad_(False)
        self.licence = config.license or "see the model's page"
        self.origin = weights_file.weights_url(config)
        self.normalisation = f"(colour / 255 - mean {tuple(config.mean)}) / deviation {tuple(config.std)}"
        self._mean = torch.tensor(config.mean).view(3, 1, 1)
        self._deviation = torch.tensor(config.std).view(3, 1, 1)
        super().__init__(weights, options, device)
        self._prepare(architecture)
        path = weights_file.find_weights(self.name, config, weights)
        self._load(path)
        self.model.to(self.device)
        self._weights = {
            f"{architecture.library}_model": Path(weights_file.local_name(config)).stem,
            "weights": path.name,
            "weights_sha256": weights_file.file_sha256(path),
        }

    @abstractmethod
    def _prepare(self, architecture: Architecture) -> None:
        """Resolves the settings against the network and sets channels, patch, stride and sizing."""

    def _load(self, path: Path) -> None:
        """Reads the file of weights into the network."""
        state = weights_file.read_weights(path)
        weights_file.fit_weights(self.model, _as_timm_has_it(state, self.model), path, self.name)

    @abstractmethod
    def _forward(self, pixels: Tensor, rows: int, columns: int) -> Tensor:
        """Features of one normalised picture: [1, 3, h, w] -> [C, rows, columns]."""

    def _cells(self, width: int, height: int, scale: float) -> tuple[int, int]:
        """Rows and columns of a photo's map at a multiple of the input size."""
        return cells_along(self.settings["size"] * scale, width, height, self.stride)

    def _input(self, image: Tensor, rows: int, columns: int) -> Tensor:  # [H, W, 3] -> [3, h, w]
        """The photo as the network wants it, but not normalised."""
        overlap = self.patch - self.stride
        return network_input(image, columns * self.stride, rows * self.stride, overlap)

    def grid(self, width: int, height: int) -> Grid:
        """Cells that together are exactly the photo, nearly square."""
        return Grid.whole(width, height, *self._cells(width, height, 1.0))

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:  # [H, W, 3] -> [C, rows, columns]
        """The map of one photo, averaged as the options say."""
        height, width = image.shape[:2]
        shape = self._cells(width, height, 1.0)
        maps = []
        for scale in self.settings["scales"]:
            cells = self._cells(width, height, scale)
            pixels = ((self._input(image, *cells) - self._mean) / self._deviation).to(self.device)[None]
            features = self._forward(pixels, *cells)
            if self.settings["flip"]:
                features = (features + self._forward(pixels.flip(-1), *cells).flip(-1)) / 2
            if cells != shape:
                features = functional.interpolate(
                    features[None], shape, mode="bilinear", antialias=True, align_corners=False
                )[0]
            maps.append(features)
        return torch.stack(maps).mean(0).float().cpu()

    def describe(self) -> dict[str, Any]:
        """Also names the model and the SHA-256 of its weights."""
        return {**super().describe(), **self._weights}


def _as_timm_has_it(state: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """The state dict with timm's names; timm's own filter translates the publishers' files."""
    translate = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if translate is None:
        return state
    try:
        return dict(translate(state, model))
    except Exception:  # not a file that it knows; what does not fit is said when it is loaded
        return state
