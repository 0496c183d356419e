"""Imports packages that need torchvision, also where it was built for another torch than ours."""

import importlib
import sys
from types import ModuleType

import torch

_registered: list[torch.library.Library] = []  # alive as long as the process: the schemas die with it


def import_timm() -> ModuleType:
    """The module timm. Takes seconds the first time, so call it only when a model of timm is wanted."""
    return import_with_torchvision("timm")


def import_with_torchvision(name: str) -> ModuleType:
    """A module that imports torchvision without using its compiled operators.

    Beside a CPU-only torch the registries install a torchvision whose compiled operators do not load, and
    torchvision stops its own import when it finds their schemas missing. Naming the two schemas is all it
    takes.
    """
    if name not in sys.modules:
        try:
            importlib.import_module("torchvision")
        except RuntimeError as error:
            if "torchvision::nms" not in str(error):
                raise
            _name_the_operators()
    return importlib.import_module(name)


def _name_the_operators() -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[module]  # what the failed import left behind
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _registered.append(library)
