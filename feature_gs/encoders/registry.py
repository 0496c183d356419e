"""How an encoder is found by its name. Families are imported only when one of theirs is asked for."""

import importlib
import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch

from feature_gs.encoders.base import Encoder
from feature_gs.encoders.options import split_spec, suggestion
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
