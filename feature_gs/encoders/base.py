"""What an encoder is."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from feature_gs.encoders.options import Option, read_options
from feature_gs.errors import UserError


@dataclass(frozen=True)
class Grid:
    """How the cells of a map lie on the photo that was encoded.

    Cell (i, j) covers the pixels from j / cells_per_pixel_x to (j + 1) / cells_per_pixel_x across, and from
    i / cells_per_pixel_y to (i + 1) / cells_per_pixel_y down; the first cell begins at the photo's top left
    corner. All cells touch the photo: an encoder that pads leaves the cells of its padding out. The last row
    and column may reach over the edge.
    """

    rows: int
    columns: int
    cells_per_pixel_x: float
    cells_per_pixel_y: float

    @classmethod
    def whole(cls, width: int, height: int, rows: int, columns: int) -> "Grid":
        """`rows` x `columns` cells that together are exactly the photo."""
        return cls(rows, columns, columns / width, rows / height)

    @classmethod
    def of_cells(cls, width: int, height: int, cell: int) -> "Grid":
        """Cells of `cell` x `cell` pixels; the last row and column may be partial."""
        return cls(math.ceil(height / cell), math.ceil(width / cell), 1 / cell, 1 / cell)


class Encoder(ABC):
    """Turns photos into maps of features. Inference only; to write one, see docs/teachers.md.

    Attributes:
        name: What the user calls it.
        channels: Length of a feature.
        patch: Side of what one cell mainly sees, in pixels of the encoder's input.
        stride: Distance between neighbouring cells, in pixels of the encoder's input.
        sizing: How a photo becomes the encoder's input.
        normalisation: How its colours do.
        licence: Licence of the weights.
        origin: Where the weights come from.
        known_options: The options that the encoder understands.
        uses_weights: Whether it takes a file of weights.
        settings: Values of all options.
        device: Where it computes.
    """

    name: str
    channels: int
    patch: int
    stride: int
    sizing: str = "the photo as it is"
    normalisation: str = "none"
    licence: str
    origin: str
    known_options: ClassVar[Mapping[str, Option]] = {}
    uses_weights: ClassVar[bool] = False

    def __init__(
        self,
        weights: Path | None = None,
        options: Mapping[str, Any] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """Reads the options. An encoder with weights loads them here, so that missing ones stop early.

        Args:
            weights: File of weights; None takes the encoder's own.
            options: Option -> value, values as text.
            device: Where to compute.

        Raises:
            UserError: An option is unknown or unreadable, or there are weights for an encoder without.
        """
        if weights is not None and not self.uses_weights:
            raise UserError(f"{self.name} has no weights to load: leave out --weights {weights}.")
        self.settings = read_options(self.name, options or {}, self.known_options)
        self.device = torch.device(device)

    @abstractmethod
    def grid(self, width: int, height: int) -> Grid:
        """The grid of a photo of that size, known without encoding it."""

    @abstractmethod
    def encode(self, image: Tensor) -> Tensor:  # [H, W, 3] -> [C, rows, columns]
        """The map of one photo.

        Args:
            image: RGB in 0 to 255. [H, W, 3] uint8

        Returns:
            Features, on the CPU. [C, rows, columns] float32
        """

    def __call__(self, image: Tensor) -> Tensor:  # [H, W, 3] -> [C, rows, columns]
        """`encode` without gradients, its result held against `channels` and `grid`.

        Raises:
            UserError: The encoder breaks its own word (shape, type, or values that are not finite).
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != torch.uint8:
            raise ValueError(f"image must be [H, W, 3] uint8, got {tuple(image.shape)} {image.dtype}")
        with torch.no_grad():
            features = self.encode(image)
        grid = self.grid(image.shape[1], image.shape[0])
        expected = (self.channels, grid.rows, grid.columns)
        if tuple(features.shape) != expected or features.dtype != torch.float32:
            raise UserError(
                f"encoder {self.name} promised a map {expected} float32 for a photo of {image.shape[1]} x "
                f"{image.shape[0]} pixels, and gave {tuple(features.shape)} {features.dtype}."
            )
        if not bool(features.isfinite().all()):
            raise UserError(f"encoder {self.name} gave values that are not finite: are its weights damaged?")
        return features.cpu()

    def findings(self) -> dict[str, Any]:
        """What it found out from the photos so far and readers of the maps need, in types that JSON has."""
        return {}

    def describe(self) -> dict[str, Any]:
        """What must be kept beside its maps to make them again, in types that JSON has."""
        return {
            "encoder": self.name,
            "channels": self.channels,
            "patch": self.patch,
            "stride": self.stride,
            "sizing": self.sizing,
            "normalisation": self.normalisation,
            "licence": self.licence,
            "origin": self.origin,
            "options": {
                key: list(value) if isinstance(value, tuple) else value
                for key, value in self.settings.items()
            },
        }
