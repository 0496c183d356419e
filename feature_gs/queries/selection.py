"""The answer of a query in 3D: how much each Gaussian belongs to it, and whether it does."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from feature_gs.errors import UserError
from feature_gs.files import atomic_write

FILE_NAME = "selection.safetensors"
_KEY = "feature_gs"  # of the metadata; its value is JSON
_FORMAT = 1


@dataclass(frozen=True, eq=False)
class Selection:
    """A part of N Gaussians, in the order of their PLY.

    Attributes:
        scores: How much each Gaussian belongs to the part, in [0, 1]. [N] float32
        selected: Whether it does; `scores > 0.5` unless set operations say otherwise. [N] bool
        query: What was asked, in types that JSON has.
    """

    scores: Tensor
    selected: Tensor
    query: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = tuple(self.scores.shape)
        if len(shape) != 1 or self.scores.dtype != torch.float32:
            raise ValueError(f"scores must be [N] float32, got {list(shape)} {self.scores.dtype}")
        if tuple(self.selected.shape) != shape or self.selected.dtype != torch.bool:
            got = f"{list(self.selected.shape)} {self.selected.dtype}"
            raise ValueError(f"selected must be [{shape[0]}] bool, got {got}")
        if not bool(((self.scores >= 0) & (self.scores <= 1)).all()):
            raise ValueError("scores must lie in [0, 1]")

    @classmethod
    def of(cls, scores: Tensor, query: dict[str, Any] | None = None) -> "Selection":  # [N]
        """Selects where the score is above one half; scores beyond [0, 1] by rounding are clamped."""
        clamped = scores.detach().float().clamp(0, 1)
        return cls(clamped, clamped > 0.5, query or {})

    def __len__(self) -> int:
        return len(self.scores)

    def __invert__(self) -> "Selection":
        """All that is not selected; scores are turned over."""
        return Selection(1 - self.scores, ~self.selected, {"not": self.query})

    def __and__(self, other: "Selection") -> "Selection":
        """What both select; the smaller score."""
        self._check_same(other)
        scores = torch.minimum(self.scores, other.scores)
        return Selection(scores, self.selected & other.selected, {"and": [self.query, other.query]})

    def __or__(self, other: "Selection") -> "Selection":
        """What one of them selects; the larger score."""
        self._check_same(other)
        scores = torch.maximum(self.scores, other.scores)
        return Selection(scores, self.selected | other.selected, {"or": [self.query, other.query]})

    def _check_same(self, other: "Selection") -> None:
        if len(self) != len(other):
            raise UserError(
                f"the selections are of {len(self):,} and of {len(other):,} Gaussians: they belong to "
                "different models. Combine selections of one model and one iteration only."
            )

    def save(self, path: Path) -> None:
        """Writes a safetensors file: `scores` [N] float32, `selected` [N] uint8, the query as metadata.

        Raises:
            UserError: The file cannot be written; a previous one stays whole.
        """
        tensors = {
            "scores": self.scores.cpu().contiguous(),
            "selected": self.selected.cpu().to(torch.uint8).contiguous(),
        }
        about = json.dumps({"format": _FORMAT, "query": self.query})
        try:
            with atomic_write(path) as temporary:
                save_file(tensors, temporary, {_KEY: about})
        except (OSError, SafetensorError) as error:  # safetensors reports a full disk as its own error
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"cannot write {path}: {reason}. Free some space.") from error

    @classmethod
    def load(cls, path: Path, count: int) -> "Selection":
        """Reads what `save` wrote; nothing in the file is run.

        Args:
            path: The file.
            count: The number of Gaussians of the model that it belongs to.

        Raises:
            UserError: The file is missing, damaged, or belongs to other Gaussians.
        """
        if not path.is_file():
            raise UserError(f"there is no file {path}. Make a selection: {_MEND}.")
        try:
            with safe_open(path, framework="pt") as file:
                scores, selected = file.get_tensor("scores"), file.get_tensor("selected")
                about = json.loads((file.metadata() or {})[_KEY])
            if about["format"] != _FORMAT:
                raise ValueError(f"format {about['format']!r}, this program reads {_FORMAT}")
            if selected.dtype != torch.uint8 or not isinstance(about["query"], dict):
                raise ValueError(f"selected must be uint8 and query an object, got {selected.dtype}")
            found = cls(scores, selected.bool(), about["query"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise UserError(
                f"{path} is damaged or no selection ({type(error).__name__}: {error}). "
                f"Make it again: {_MEND}."
            ) from error
        if len(found) != count:
            raise UserError(
                f"{path} selects among {len(found):,} Gaussians, the model has {count:,}: they do not belong "
                f"together. Make the selection again: {_MEND}."
            )
        return found


_MEND = "feature-gs segment -m MODEL --point X Y --view NAME"
