"""The features of a model's Gaussians and how to read them: features.safetensors beside the PLY."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from feature_gs.errors import UserError
from feature_gs.features.decoders import Decoder, decoder_from_state
from feature_gs.features.palette import Palette
from feature_gs.files import atomic_write

FILE_NAME = "features.safetensors"
_KEY = "feature_gs"  # of the metadata; its value is JSON
_FORMAT = 1
_LARGEST_HALF = 65504.0


@dataclass(eq=False)
class FeatureField:
    """Features of N Gaussians, in the order of their PLY.

    Attributes:
        features: What each Gaussian carries; rendered, then decoded. [N, c] float32
        decoder: From c channels to the teacher's C.
        teacher: Name of the teacher, or the folder of its maps, as `-f` takes it.
        cell: A teacher's cell in pixels of the training cameras, x and y.
        seen: Whether a training view saw the Gaussian; the features of others mean nothing. [N] bool
        meta: What else is known of the teacher and the training; JSON.
        palette: The colours of decoded features, or None where none was fitted.
    """

    features: Tensor
    decoder: Decoder
    teacher: str
    cell: tuple[float, float]
    seen: Tensor
    meta: dict[str, Any] = field(default_factory=dict)
    palette: Palette | None = None

    def __post_init__(self) -> None:
        count, channels = len(self.features), self.decoder.features
        if tuple(self.features.shape) != (count, channels):
            raise ValueError(f"features must be [N, {channels}], got {list(self.features.shape)}")
        if tuple(self.seen.shape) != (count,) or self.seen.dtype != torch.bool:
            raise ValueError(f"seen must be [{count}] bool, got {list(self.seen.shape)} {self.seen.dtype}")
        if not all(math.isfinite(side) and side > 0 for side in self.cell):
            raise ValueError(f"the sides of a cell must be above 0, got {self.cell}")

    def __len__(self) -> int:
        return len(self.features)

    def save(self, path: Path) -> None:
        """Writes the file: features in half precision, unless a value is too large for it.

        Raises:
            UserError: A feature is not finite, or the file cannot be written; a previous one stays whole.
        """
        features = self.features.detach().cpu()
        if not bool(torch.isfinite(features).all()):
            raise UserError(f"cannot write {path}: the features hold a NaN or an infinity.")
        fits = len(features) == 0 or float(features.abs().max()) <= _LARGEST_HALF
        tensors = {
            "features": features.to(torch.float16 if fits else torch.float32),
            "seen": self.seen.detach().cpu().to(torch.uint8),
            **{f"decoder.{name}": tensor for name, tensor in self.decoder.state_dict().items()},
        }
        if self.palette is not None:
            tensors |= {"palette.matrix": self.palette.matrix, "palette.bias": self.palette.bias}
        about = {
            "format": _FORMAT,
            "teacher": self.teacher,
            "decoder": self.decoder.kind,
            "channels": self.decoder.channels,
            "cell": list(self.cell),
            "meta": self.meta,
        }
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        try:
            with atomic_write(path) as temporary:
                save_file(contiguous, temporary, {_KEY: json.dumps(about)})
        except (OSError, SafetensorError) as error:  # safetensors reports a full disk as its own error
            reason = getattr(error, "strerror", None) or error
            raise UserError(
                f"cannot write {path}: {reason}. Free some space or choose another folder (-m)."
            ) from error

    @classmethod
    def load(cls, path: Path, gaussians: int) -> "FeatureField":
        """Reads what `save` wrote; nothing in the file is run.

        Args:
            path: The file.
            gaussians: The number of Gaussians in the PLY beside it.

        Raises:
            UserError: The file is missing, damaged, or belongs to other Gaussians.
        """
        if not path.is_file():
            raise UserError(f"there is no file {path}: the model has no features. Give it some: {_MEND}.")
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                about = json.loads((file.metadata() or {})[_KEY])
            if about["format"] != _FORMAT:
                raise ValueError(f"format {about['format']!r}, this program reads {_FORMAT}")
            found = cls._from(tensors, about)
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise UserError(
                f"{path} is damaged or no file of features ({type(error).__name__}: {error}). "
                f"Make it again: {_MEND}."
            ) from error
        if len(found) != gaussians:
            raise UserError(
                f"{path} holds features of {len(found):,} Gaussians, the PLY beside it {gaussians:,} "
                f"Gaussians: they do not belong together. Make the features again: {_MEND}."
            )
        return found

    @classmethod
    def _from(cls, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> "FeatureField":
        """The field that tensors and JSON describe; KeyError, TypeError or ValueError where they do not."""
        features, seen, channels = tensors["features"], tensors["seen"], about["channels"]
        if features.dim() != 2 or features.shape[1] < 1 or features.dtype not in _FLOATS:
            raise ValueError(f"features must be [N, c] floats, got {list(features.shape)} {features.dtype}")
        if not bool(torch.isfinite(features).all()):
            raise ValueError("the features hold a NaN or an infinity")
        if seen.dtype != torch.uint8:
            raise ValueError(f"seen must be uint8, got {seen.dtype}")
        if type(channels) is not int or channels < 1:
            raise ValueError(f"channels must be a whole number above 0, got {channels!r}")
        if not isinstance(about["teacher"], str) or not isinstance(about["meta"], dict):
            raise ValueError("teacher must be a text and meta an object")
        x, y = (float(side) for side in about["cell"])
        state = {
            name.removeprefix("decoder."): tensor
            for name, tensor in tensors.items()
            if name.startswith("decoder.")
        }
        return cls(
            features=features.float(),
            decoder=decoder_from_state(about["decoder"], features.shape[1], channels, state),
            teacher=about["teacher"],
            cell=(x, y),
            seen=seen.bool(),
            meta=about["meta"],
            palette=_palette(tensors, channels),
        )


def field_path(ply: Path) -> Path:
    """Where the features of a PLY's Gaussians lie: beside it."""
    return ply.with_name(FILE_NAME)


_MEND = "feature-gs lift -m MODEL -f TEACHER"
_FLOATS = (torch.float16, torch.bfloat16, torch.float32)


def _palette(tensors: Mapping[str, Tensor], channels: int) -> Palette | None:
    if "palette.matrix" not in tensors:
        return None
    matrix, bias = tensors["palette.matrix"].float(), tensors["palette.bias"].float()
    if tuple(matrix.shape) != (channels, 3) or tuple(bias.shape) != (3,):
        got = f"{list(matrix.shape)} and {list(bias.shape)}"
        raise ValueError(f"the palette must be [{channels}, 3] and [3], got {got}")
    if not bool(torch.isfinite(matrix).all() and torch.isfinite(bias).all()):
        raise ValueError("the palette holds a NaN or an infinity")
    return Palette(matrix, bias)
