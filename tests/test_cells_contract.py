"""What torch asks of the ops on cells: shapes without data, compilation; and errors instead of crashes."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from random_cells import lists_of, random_cells
from splats import intersect_arguments, random_splats, rasterize_arguments
from torch import Tensor

from feature_gs.rasterizer.ops import ops

pytestmark = pytest.mark.usefixtures("one_thread")
FLOAT64 = torch.float64


def compress_arguments(cell: int = 8) -> tuple[Any, ...]:
    splats = random_splats(300, 69, 53, batch=2).to(torch.float32)
    lists = ops.intersect(*intersect_arguments(splats))
    weights = ops.rasterize(*rasterize_arguments(splats, lists, cell, False, None))[7]
    return (weights, *lists[3:], 2, splats.width, splats.height, cell)


class TestOpcheck:
    @pytest.mark.parametrize("cell", [4, 8, 16])
    def test_compress(self, opcheck: Callable[..., Any], cell: int) -> None:
        opcheck(ops.compress_cells.default, compress_arguments(cell))

    @pytest.mark.parametrize("requires_grad", [False, True])
    def test_blend(self, opcheck: Callable[..., Any], requires_grad: bool) -> None:
        cells = random_cells(20, (1, 3, 2), FLOAT64)
        values, *lists = lists_of(cells)
        features = torch.randn(20, 5, dtype=FLOAT64)
        inputs = (features.requires_grad_(requires_grad), values.requires_grad_(requires_grad))
        opcheck(ops.blend_cells.default, (*inputs, *lists, 6))

    def test_gather(self, opcheck: Callable[..., Any]) -> None:
        cells = random_cells(20, (1, 3, 2), torch.float32)
        opcheck(ops.gather_cells.default, (torch.randn(6, 5), *lists_of(cells), 20))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
    def test_accumulate(self, opcheck: Callable[..., Any], dtype: torch.dtype) -> None:
        cells = random_cells(20, (1, 3, 2), torch.float32)
        args = (torch.randn(20, 5).to(dtype), torch.randn(6, 5), 0.5, 0.1, *lists_of(cells))
        opcheck(ops.accumulate_cells.default, args)

    def test_products(self, opcheck: Callable[..., Any]) -> None:
        cells = random_cells(20, (1, 3, 2), torch.float32)
        opcheck(ops.cell_products.default, (torch.randn(20, 5), torch.randn(6, 5), *lists_of(cells)[1:]))


def test_blending_compiles_without_graph_breaks() -> None:
    cells = random_cells(60, (2, 3, 4), torch.float32)

    def loss(features: Tensor, values: Tensor) -> Tensor:
        return dataclasses.replace(cells, values=values).blend(features).square().sum()

    results = []
    for call in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
        features, values = torch.ones(60, 7).requires_grad_(), cells.values.clone().requires_grad_()
        results.append(
            (call(features, values), *torch.autograd.grad(call(features, values), (features, values)))
        )
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(eager, compiled)


def put(index: int, value: float) -> Callable[[Tensor], Tensor]:
    """A copy with another value in one place."""

    def change(tensor: Tensor) -> Tensor:
        changed = tensor.clone()
        changed[index] = value
        return changed

    return change


def move_a_slot_to_the_other_view(slot_tiles: Tensor) -> Tensor:
    return put(0, int(slot_tiles[-1]))(slot_tiles)


WRONG_SLOTS: dict[str, tuple[int, Callable[[Any], Any]]] = {
    "weights of other cells": (0, lambda weights: weights[:, :2]),
    "weights of fewer slots": (0, lambda weights: weights[:-1]),
    "weights in half precision": (0, lambda weights: weights.half()),
    "tiles below 0": (1, put(3, -1)),
    "tiles beyond the last": (1, put(3, 2**31 - 1)),
    "tiles of another view": (1, move_a_slot_to_the_other_view),
    "tiles as 64 bits": (1, lambda tiles: tiles.long()),
    "offsets that start late": (2, put(0, 1)),
    "offsets that fall": (2, put(7, 2**40)),
    "offsets below 0": (2, put(7, -1)),
    "offsets that end early": (2, lambda offsets: offsets[:-2]),
    "no offsets": (2, lambda offsets: offsets[:0]),
    "offsets of three views": (3, lambda batch: 3),
    "offsets of no views": (3, lambda batch: 0),
    "a negative number of views": (3, lambda batch: -2),
    "more views than memory": (3, lambda batch: 2**62),
    "no columns": (4, lambda width: 0),
    "wider than any number": (4, lambda width: 2**63 - 1),
    "higher than any number": (5, lambda height: 2**63 - 1),
    "more pixels than numbers": (5, lambda height: 2**24),
    "cells of 2": (6, lambda cell: 2),
    "cells of none": (6, lambda cell: 0),
}


@pytest.mark.parametrize("case", WRONG_SLOTS)
def test_slots_that_do_not_fit_are_refused(case: str) -> None:
    args = list(compress_arguments())
    where, change = WRONG_SLOTS[case]
    args[where] = change(args[where])
    if case == "more pixels than numbers":
        args[4] = 2**24
    with pytest.raises(RuntimeError, match="must"):
        ops.compress_cells(*args)


WRONG_LISTS: dict[str, tuple[int, Callable[[Tensor], Tensor]]] = {
    "values of fewer entries": (0, lambda values: values[:-1]),
    "values in double precision": (0, lambda values: values.double()),
    "values as whole numbers": (0, lambda values: values.int()),
    "a Gaussian too many": (1, put(4, 50)),
    "a Gaussian below 0": (1, put(4, -1)),
    "a Gaussian far away": (1, put(4, 2**31 - 1)),
    "Gaussians as 64 bits": (1, lambda gaussians: gaussians.long()),
    "fewer Gaussians": (1, lambda gaussians: gaussians[:-1]),
    "offsets that start late": (2, put(0, 1)),
    "offsets that fall": (2, put(5, 2**40)),
    "offsets below 0": (2, put(5, -(2**40))),
    "offsets that end early": (2, put(-1, 1)),
    "offsets that end late": (2, put(-1, 2**40)),
    "fewer offsets": (2, lambda offsets: offsets[:-1]),
    "no offsets": (2, lambda offsets: offsets[:0]),
    "a cell too many": (3, put(6, 12)),
    "a cell below 0": (3, put(6, -1)),
    "a cell far away": (3, put(6, 2**31 - 1)),
    "fewer cells": (3, lambda rows: rows[:-1]),
    "cells as a table": (3, lambda rows: rows[None]),
}


@pytest.mark.parametrize("case", WRONG_LISTS)
def test_lists_that_lead_outside_memory_are_refused(case: str) -> None:
    where, change = WRONG_LISTS[case]
    lists = list(lists_of(random_cells(50, (1, 3, 4), torch.float32)))
    lists[where] = change(lists[where])
    features, maps = torch.zeros(50, 5), torch.zeros(12, 5)
    calls: dict[str, Callable[[], object]] = {
        "blend": lambda: ops.blend_cells(features, *lists, 12),
        "gather": lambda: ops.gather_cells(maps, *lists, 50),
        "accumulate": lambda: ops.accumulate_cells(features, maps, 1.0, -1.0, *lists),
        "products": lambda: ops.cell_products(features, maps, *lists[1:]),
    }
    for name, call in calls.items():
        if name == "products" and where == 0:
            continue  # takes no values
        with pytest.raises(RuntimeError, match="must"):
            call()
    assert not features.any()


@pytest.mark.parametrize("size", [-1, 0])
def test_sizes_that_do_not_fit_the_lists_are_refused(size: int) -> None:
    lists = lists_of(random_cells(50, (1, 3, 4), torch.float32))
    with pytest.raises(RuntimeError, match="must"):
        ops.blend_cells(torch.zeros(50, 5), *lists, size)
    with pytest.raises(RuntimeError, match="must"):
        ops.gather_cells(torch.zeros(12, 5), *lists, size)
    with pytest.raises(RuntimeError, match="must"):
        ops.cell_products(torch.zeros(50, 5), torch.zeros(12, 4), *lists[1:])
