"""What an encoder is, and how one is found by its name."""

import importlib
import math
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from feature_gs.encoders.options import Option, read_options, split_spec, suggestion
from feature_gs.errors import UserError

ENTRY_POINTS = "feature_gs.encoders"
_TIMM = "timm:"
_CLASSES = {  # module:Class in this folder
    "lseg": "lseg:LSeg",
    "maskclip": "maskclip:MaskClip",
    "sam_vit_b": "sam:SamVitB",
    "sam_vit_l": "sam:SamVitL",
    "sam_vit_h": "sam:SamVitH",
}
_CLASS = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")  # package.module:Class


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


def load_encoder(
    spec: str,
    *,
    weights: Path | None = None,
    options: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
) -> Encoder:
    """The encoder of that name, ready to encode.

    Args:
        spec: A name of `encoder_names()`, `timm:MODEL`, or `package.module:Class`, then perhaps options:
            `dino_vits8?layer=9&facet=key`.
        weights: File of weights; None takes those of the encoder, downloading them on first use.
        options: Further options; they win over those in `spec`.
        device: Where to compute.

    Returns:
        The encoder, its weights loaded.

    Raises:
        UserError: There is no such encoder, an option is wrong, or weights are missing or damaged.
    """
    name, in_spec = split_spec(spec)
    make = _maker(name)
    encoder = make(weights=weights, options={**in_spec, **(options or {})}, device=device)
    if not isinstance(encoder, Encoder):
        raise UserError(f"{name} made a {type(encoder).__name__}, not a feature_gs.encoders.Encoder.")
    return encoder


def encoder_names() -> list[str]:
    """Names that `load_encoder` knows: built in, then those that installed packages bring."""
    plugged = sorted(entry.name for entry in entry_points(group=ENTRY_POINTS))
    return [*dict.fromkeys([*_built_in(), *plugged])]


def is_encoder_name(spec: str) -> bool:
    """Whether `spec` is written as an encoder rather than a folder; nothing is imported or checked."""
    name = spec.partition("?")[0]
    return name.startswith(_TIMM) or bool(_CLASS.fullmatch(name)) or name in encoder_names()


def _built_in() -> list[str]:
    from feature_gs.encoders.teachers import TEACHERS

    return ["handcrafted", *TEACHERS, *_CLASSES]


def _maker(name: str) -> Callable[..., Any]:
    """Whatever makes the encoder `name` from weights, options and device. Families are imported only here."""
    if name == "handcrafted":
        from feature_gs.encoders.handcrafted import Handcrafted

        return Handcrafted
    if name in _CLASSES:
        return _import_class(f"{__package__}.{_CLASSES[name]}", f"encoder {name}")
    if name in _built_in() or name.startswith(_TIMM):
        from feature_gs.encoders.timm_models import open_timm

        return partial(open_timm, name)
    own = own_class(name)
    if own is not None:
        return own
    names = encoder_names()
    raise UserError(
        f"there is no encoder {name!r}.{suggestion(name, names)}\n  Encoders: {', '.join(names)}; "
        f"also timm:MODEL for any model of timm, and package.module:Class for your own."
    )


def own_class(name: str) -> Callable[..., Any] | None:
    """The class behind a name that an installed package brings, or behind `package.module:Class`, or None.

    Raises:
        UserError: It cannot be imported, or is no class of an encoder.
    """
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name == name:
            return _import_class(entry.value, f"encoder {name} of an installed package")
    own = _CLASS.fullmatch(name) and not name.startswith(_TIMM)
    return _import_class(name, f"encoder {name}") if own else None


def _import_class(path: str, what: str) -> Callable[..., Any]:
    module, _, attribute = path.partition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # the folder the user works in, as `python -m` has it
    try:
        found = getattr(importlib.import_module(module), attribute.split("[")[0].strip())
    except Exception as error:  # whatever a foreign module raises while it is imported
        raise UserError(
            f"cannot import {what}: {type(error).__name__}: {error}.\n"
            "  Is its package installed, or its file in the folder you are in?"
        ) from error
    if not callable(found) or (isinstance(found, type) and not issubclass(found, Encoder)):
        kind = "class of another kind" if isinstance(found, type) else type(found).__name__
        raise UserError(f"{what} is a {kind}; expected a class derived from feature_gs.encoders.Encoder.")
    return found
