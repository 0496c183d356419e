"""Checkpoints: everything a run needs to go on as if it had never stopped."""

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from feature_gs.errors import UserError
from feature_gs.files import atomic_write
from feature_gs.gaussians import GaussianModel

_FORMAT = "feature_gs checkpoint 1"
_CONTENTS: dict[str, type | tuple[type, ...]] = {
    "iteration": int,
    "seconds": float,
    "strategy": str,
    "views": list,
    "sh_degree": int,
    "model": dict,
    "optimizer": dict,
    "strategy_state": dict,
    "generator": Tensor,
    "distillation": dict,
}


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after `iteration` steps.

    Attributes:
        iteration: Steps done.
        seconds: Training time so far.
        strategy: Name of the densification strategy.
        views: Names of the training views, in the scene's order.
        sh_degree: The model's highest SH degree.
        model: The model's parameters by name.
        optimizer: Adam's state by parameter name.
        strategy_state: The densification's statistics.
        generator: State of the random generator. [bytes] uint8
        distillation: Decoder and the rest of the feature training; empty without a teacher.
    """

    iteration: int
    seconds: float
    strategy: str
    views: list[str]
    sh_degree: int
    model: dict[str, Tensor]
    optimizer: dict[str, dict[str, Tensor]]
    strategy_state: dict[str, Tensor]
    generator: Tensor
    distillation: dict[str, Tensor]

    def restore_model(self) -> GaussianModel:
        """The Gaussians.

        Raises:
            ValueError, TypeError: The tensors do not make a model.
        """
        return GaussianModel(**self.model, sh_degree=self.sh_degree)


def checkpoint_path(model_path: Path, iteration: int) -> Path:
    """Where the checkpoint of an iteration lies."""
    return model_path / "checkpoints" / f"iteration_{iteration}.pt"


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint; a previous file stays whole until the new one is.

    Raises:
        UserError: It cannot be written, e.g. because the disk is full.
    """
    content = {"format": _FORMAT, **{name: getattr(checkpoint, name) for name in _CONTENTS}}
    try:
        with atomic_write(path) as temporary, open(temporary, "wb") as file:
            torch.save(content, file)
            file.flush()
    except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(
            f"cannot write the checkpoint {path}: {reason}. Earlier checkpoints are whole: make room and "
            "continue from the newest with --resume."
        ) from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint; no code in the file is run.

    Raises:
        UserError: The file is missing, truncated, or not a checkpoint of this program.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}.")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a file of random bytes makes the unpickler raise
        whole = zipfile.is_zipfile(path)
        fault = "is not a checkpoint of feature_gs" if whole else "is truncated or not a checkpoint at all"
        raise UserError(f"{path} {fault} ({type(error).__name__}). Choose another checkpoint.") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise UserError(
            f"{path} is not a checkpoint of feature_gs (expected format {_FORMAT!r}). Gaussians of other "
            "programs come in through their PLY."
        )
    for name, kind in _CONTENTS.items():
        if not isinstance(content.get(name), kind):
            raise UserError(f"{path} is damaged: its entry {name!r} is missing or of the wrong type.")
    checkpoint = Checkpoint(**{name: content[name] for name in _CONTENTS})
    try:
        checkpoint.restore_model()
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{path} is damaged: {error}.") from error
    return checkpoint


def checkpoints_of(model_path: Path) -> list[Path]:
    """The checkpoints of a model folder, newest iteration first."""
    found = []
    for path in (model_path / "checkpoints").glob("iteration_*.pt"):
        match = re.fullmatch(r"iteration_(\d+)\.pt", path.name)
        if match:
            found.append((int(match[1]), path))
    return [path for _, path in sorted(found, reverse=True)]


def newest_whole_checkpoint(model_path: Path) -> tuple[Checkpoint, list[str]]:
    """The newest checkpoint that can be read, and a message for each newer one that cannot.

    Raises:
        UserError: There is none.
    """
    messages: list[str] = []
    for path in checkpoints_of(model_path):
        try:
            return load_checkpoint(path), messages
        except UserError as error:
            messages.append(str(error))
    reason = "\n".join(messages) or f"{model_path / 'checkpoints'} holds no iteration_N.pt."
    raise UserError(f"nothing to resume in {model_path}: {reason}\nStart afresh without --resume.")
