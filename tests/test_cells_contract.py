"""What torch asks of the ops on cells: shapes without data, compilation; and errors instead of crashes."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from random_cells import by_gaussian, random_cells
from torch import Tensor

from feature_gs.rasterizer.ops import ops

pytestmark = pytest.mark.usefixtures("one_thread")
FLOAT64 = torch.float64


class TestOpcheck:
    @pytest.mark.parametrize("requires_grad", [False, True])
    def test_blend(self, opcheck: Callable[..., Any], requires_grad: bool) -> None:
        cells = random_cells(20, (1, 3, 2), FLOAT64)
        weights, features = cells.weights, torch.randn(20, 5, dtype=FLOAT64)
        inputs = (features.requires_grad_(requires_grad), weights.requires_grad_(requires_grad))
        opcheck(ops.blend_cells.default, (*inputs, *cells.lists, *cells.shape))

    def test_gather(self, opcheck: Callable[..., Any]) -> None:
        cells = random_cells(20, (1, 3, 2), torch.float32)
        opcheck(ops.gather_cells.default, (torch.randn(1, 3, 2, 5), *by_gaussian(cells), 20))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
    def test_accumulate(self, opcheck: Callable[..., Any], dtype: torch.dtype) -> None:
        cells = random_cells(20, (1, 3, 2), torch.float32)
        args = (torch.randn(20, 5).to(dtype), torch.randn(1, 3, 2, 5), 0.5, 0.1, *by_gaussian(cells))
        opcheck(ops.accumulate_cells.default, args)

    def test_products(self, opcheck: Callable[..., Any]) -> None:
        cells = random_cells(20, (1, 3, 2), torch.float32)
        args = (torch.randn(20, 5), torch.randn(1, 3, 2, 5), *by_gaussian(cells))
        opcheck(ops.cell_products.default, args)


def test_blending_compiles_without_graph_breaks() -> None:
    cells = random_cells(60, (2, 3, 4), torch.float32)

    def loss(features: Tensor, weights: Tensor) -> Tensor:
        return dataclasses.replace(cells, weights=weights).blend(features).square().sum()

    results = []
    for call in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
        features, weights = torch.ones(60, 7).requires_grad_(), cells.weights.clone().requires_grad_()
        results.append(
            (call(features, weights), *torch.autograd.grad(call(features, weights), (features, weights)))
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


# What stands where: weights, tile_offsets, pair_gaussians, pair_slots, slot_tiles, gaussian_offsets
BY_TILE = (1, 2, 3)  # which blending takes, the other ops do not
WRONG_LISTS: dict[str, tuple[int, Callable[[Tensor], Tensor]]] = {
    "weights of other cells": (0, lambda weights: weights[:, :2]),
    "weights of no cells": (0, lambda weights: weights[:, :0]),
    "weights of fewer slots": (0, lambda weights: weights[:-1]),
    "weights in half precision": (0, lambda weights: weights.half()),
    "weights in double precision": (0, lambda weights: weights.double()),
    "weights in a row": (0, lambda weights: weights.flatten()),
    "fewer tiles": (1, lambda offsets: offsets[:-1]),
    "tile offsets as 32 bits": (1, lambda offsets: offsets.int()),
    "Gaussians of fewer pairs": (2, lambda gaussians: gaussians[:-1]),
    "Gaussians as 64 bits": (2, lambda gaussians: gaussians.long()),
    "slots of fewer pairs": (3, lambda slots: slots[:-1]),
    "slots as a table": (3, lambda slots: slots[None]),
    "tiles below 0": (4, put(3, -1)),
    "tiles beyond the last": (4, put(3, 2**31 - 1)),
    "tiles of another view": (4, move_a_slot_to_the_other_view),
    "tiles as 64 bits": (4, lambda tiles: tiles.long()),
    "tiles of fewer slots": (4, lambda tiles: tiles[:-1]),
    "offsets that start late": (5, put(0, 1)),
    "offsets that fall": (5, put(7, 2**40)),
    "offsets below 0": (5, put(7, -1)),
    "offsets that end late": (5, put(-1, 2**40)),
    "offsets that end early": (5, lambda offsets: offsets[:-2]),
    "no offsets": (5, lambda offsets: offsets[:0]),
}


@pytest.mark.usefixtures("checked_lists")
@pytest.mark.parametrize("case", WRONG_LISTS)
def test_lists_that_lead_outside_memory_are_refused(case: str) -> None:
    where, change = WRONG_LISTS[case]
    cells = random_cells(50, (2, 3, 4), torch.float32)
    lists = [cells.weights, *cells.lists]
    lists[where] = change(lists[where])
    matrix = (lists[0], *lists[4:])
    features, maps = torch.zeros(50, 5), torch.zeros(2, 3, 4, 5)
    calls: dict[str, Callable[[], object]] = {
        "blend": lambda: ops.blend_cells(features, *lists, 2, 3, 4),
        "gather": lambda: ops.gather_cells(maps, *matrix, 50),
        "accumulate": lambda: ops.accumulate_cells(features, maps, 1.0, -1.0, *matrix),
        "products": lambda: ops.cell_products(features, maps, *matrix),
    }
    for call in list(calls.values())[: 1 if where in BY_TILE else None]:
        with pytest.raises(RuntimeError, match="must"):
            call()
    assert not features.any()


FAR = 2**62


@pytest.mark.parametrize("shape", [(2, 3, 5), (1, 3, 4), (2, 0, 4), (-2, 3, 4), (2, FAR, FAR), (FAR, 3, 4)])
def test_grids_that_do_not_fit_the_lists_are_refused(shape: tuple[int, int, int]) -> None:
    cells = random_cells(50, (2, 3, 4), torch.float32)
    with pytest.raises(RuntimeError, match="must"):
        ops.blend_cells(torch.zeros(50, 5), cells.weights, *cells.lists, *shape)


def test_sizes_that_do_not_fit_the_lists_are_refused() -> None:
    cells = random_cells(50, (2, 3, 4), torch.float32)
    maps, features = torch.zeros(2, 3, 4, 5), torch.zeros(50, 5)
    for count in (-1, 0, 49, 2**62):
        with pytest.raises(RuntimeError, match="must"):
            ops.gather_cells(maps, *by_gaussian(cells), count)
    for wrong in (maps[0], maps[:1], maps[:, :0], maps[..., :0]):
        with pytest.raises(RuntimeError, match="must"):
            ops.gather_cells(wrong, *by_gaussian(cells), 50)
    with pytest.raises(RuntimeError, match="must"):
        ops.cell_products(features[:, :4], maps, *by_gaussian(cells))
    with pytest.raises(RuntimeError, match="must"):
        ops.cell_products(features[:49], maps, *by_gaussian(cells))


@pytest.mark.usefixtures("checked_lists")
def test_maps_of_fewer_tiles_than_slots_name_are_refused() -> None:
    cells = random_cells(50, (2, 3, 4), torch.float32)
    with pytest.raises(RuntimeError, match="slot_tiles must lie in"):
        ops.gather_cells(torch.zeros(2, 2, 4, 5), *by_gaussian(cells), 50)
