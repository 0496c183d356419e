"""Checkpoints of PyTorch Lightning: their tensors, without running what else they pickle."""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from feature_gs.errors import UserError

_MAPPINGS = ("AttributeDict", "defaultdict")  # classes that a pickle fills like a dict


class _Nothing:
    """Takes the place of any object of a class that is not loaded."""

    def __new__(cls, *_: Any) -> "_Nothing":
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


class _Entries:
    """Takes the place of a class that a pickle fills like a dict: gives dicts of a kind that torch fills."""

    def __new__(cls, *_: Any) -> "OrderedDict[Any, Any]":  # type: ignore[misc]
        return OrderedDict()


def read_lightning(path: Path) -> dict[str, Any]:
    """The state dict of a checkpoint, mapped into memory: only tensors that are used are read from disk.

    Besides tensors, such files pickle settings, callbacks and the state of optimisers: objects of packages
    that need not be installed, and that could run code when loaded. torch reads the file with
    `weights_only=True`, and each of those classes is replaced by an empty one of this module, so that nothing
    of theirs is imported or called.

    Args:
        path: A .ckpt file, or a .pth file that holds a state dict itself.

    Returns:
        Name -> tensor, names as in the file.

    Raises:
        UserError: The file is damaged, holds no state dict, or names functions of the operating system.
    """
    try:
        with torch.serialization.safe_globals(_stand_ins(path)):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # of several kinds, all meaning the same
        raise UserError(
            f"cannot read the checkpoint {path}: {type(error).__name__}: {str(error).splitlines()[0]}\n"
            '  Expected a file written by torch.save, with a dict of tensors under "state_dict". Is it only '
            "partly copied, or the web page of the download?"
        ) from error
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f'{path} holds no state dict: expected a dict of tensors under "state_dict".')
    return dict(state)


def _stand_ins(path: Path) -> list[Any]:
    """For each class and function that torch would refuse: what is called in its place, and its name."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except Exception:  # not written by torch.save; reading it says so
        return []
    return [(_Entries if name.rpartition(".")[2] in _MAPPINGS else _Nothing, name) for name in names]
