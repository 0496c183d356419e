"""Imports timm, also where torchvision was built for another torch than the one installed."""

import importlib
import sys
from types import ModuleType

import torch

_registered: list[torch.library.Library] = []  # alive as long as the process: the schemas die with it


def import_timm() -> ModuleType:
    """The module timm. Takes seconds the first time, so call it only when a model of timm is wanted.

    Beside a CPU-only torch the registries install a torchvision whose compiled operators do not load. timm
    uses none of them, but torchvision stops its own import when it finds their schemas missing. Naming the
    two schemas is all it takes.
    """
    if "timm" not in sys.modules:
        try:
            importlib.import_module("torchvision")
        except RuntimeError as error:
            if "torchvision::nms" not in str(error):
                raise
            _name_the_operators()
    return importlib.import_module("timm")


def _name_the_operators() -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[module]  # what the failed import left behind
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _registered.append(library)
