"""The CUDA twins take what the table of ops says, as the CPU twins do."""

import re
from functools import cache
from pathlib import Path

import pytest
import torch
from cuda_host.emulated import Emulated

from feature_gs.rasterizer.ops import ops

CUDA_ONLY = {"nearest_distances"}  # on the CPU SciPy does it
CSRC = Path(__file__).resolve().parents[1] / "csrc"
TYPES = {
    "Tensor": "Tensor",
    "Optional[Tensor]": "std::optional<Tensor>",
    "int": "int64_t",
    "float": "double",
    "bool": "bool",
}


@cache
def sources(suffix: str) -> str:
    return "\n".join(path.read_text() for path in sorted(CSRC.rglob(f"*{suffix}")))


def schemas() -> dict[str, torch.FunctionSchema]:
    names = re.findall(r'"(\w+)\(Tensor', (CSRC / "ops.cpp").read_text())
    return {name: getattr(ops, name).default._schema for name in names}


def registered(suffix: str) -> dict[str, str]:
    """By op, the function that the sources with this suffix register for it."""
    return dict(re.findall(r'm\.impl\("(\w+)",\s*TORCH_BOX\(&fgs::(\w+)\)\)', sources(suffix)))


def parameter_types(function: str, suffix: str) -> list[str]:
    """The types a C++ function takes, without names and const references."""
    found = re.search(rf"\b{function}\(([^)]*)\)\s*\{{", sources(suffix))
    assert found is not None, f"{function} is not defined"
    parameters = (parameter.strip() for parameter in found[1].split(","))
    return [re.sub(r"^const |&", "", parameter.rsplit(" ", 1)[0]).strip() for parameter in parameters]


def test_every_op_has_both_twins() -> None:
    names = set(schemas())
    assert len(names) >= 12
    assert set(registered(".cpp")) == names - CUDA_ONLY
    assert set(registered(".cu")) == names


@pytest.mark.parametrize("suffix", [".cpp", ".cu"])
def test_twins_take_what_the_table_says(suffix: str) -> None:
    found = registered(suffix)
    for name, schema in schemas().items():
        if name not in found:  # see the test above
            continue
        expected = [TYPES[re.sub(r"\(a!\)", "", str(argument.type))] for argument in schema.arguments]
        assert parameter_types(found[name], suffix) == expected, name


def test_emulated_ops_have_the_same_schemas(emulated: Emulated) -> None:
    for name, schema in schemas().items():
        twin = getattr(emulated.ops, name).default
        assert str(twin._schema) == str(schema).replace("feature_gs::", "feature_gs_emulated::")
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"feature_gs_emulated::{name}", "CPU"), name
