"""The CUDA kernels of the sparse matrix of cells, emulated, against the CPU twin."""

import math
from typing import Any

import pytest
import torch
from cuda_host.emulated import BACKWARDS, IN_ORDER, SHUFFLED, Emulated
from random_cells import lists_of, random_cells
from splats import intersect_arguments, random_splats, rasterize_arguments
from torch import Tensor

from feature_gs.rasterizer import CellWeights
from feature_gs.rasterizer.ops import ops

pytestmark = pytest.mark.usefixtures("one_thread")
F16, F32, F64 = torch.float16, torch.float32, torch.float64

SPLATS = {
    "none": random_splats(0, 33, 21),
    "three views of odd size": random_splats(300, 69, 53, batch=3),
    "more than a block": random_splats(600, 97, 80),
    "one pixel": random_splats(50, 1, 1, scale=0.5),
}


def compress_arguments(case: str, cell: int, dtype: torch.dtype) -> list[Any]:
    splats = SPLATS[case].to(dtype)
    lists = ops.intersect(*intersect_arguments(splats))
    weights = ops.rasterize(*rasterize_arguments(splats, lists, cell, False, None))[7]
    return [weights, *lists[3:], splats.radii.shape[0], splats.width, splats.height, cell]


class TestCompress:
    @pytest.mark.parametrize("dtype", [F32, F64])
    @pytest.mark.parametrize("cell", [4, 8, 16])
    @pytest.mark.parametrize("case", SPLATS)
    def test_same_lists_as_on_the_cpu(
        self, emulated: Emulated, case: str, cell: int, dtype: torch.dtype
    ) -> None:
        arguments = compress_arguments(case, cell, dtype)
        for order in (SHUFFLED, IN_ORDER, BACKWARDS) if cell == 8 else (SHUFFLED,):
            with emulated.order(order):
                actual = emulated.ops.compress_cells(*arguments)
            for a, e in zip(actual, ops.compress_cells(*arguments), strict=True):
                assert a.dtype == e.dtype and torch.equal(a, e)

    def test_without_weights_there_are_no_entries(self, emulated: Emulated) -> None:
        weights, *rest = compress_arguments("three views of odd size", 8, F32)
        gaussians, offsets, rows, places = emulated.ops.compress_cells(torch.zeros_like(weights), *rest)
        assert not gaussians.numel() and offsets.tolist() == [0] and not rows.numel() and not places.numel()

    @pytest.mark.parametrize(
        ("which", "place", "value"),
        [(1, 3, -1), (1, 3, 2**31 - 1), (2, 0, 1), (2, 7, 2**40), (2, 7, -1), (2, -1, 5)],
    )
    def test_broken_lists_are_refused(self, emulated: Emulated, which: int, place: int, value: int) -> None:
        arguments = compress_arguments("three views of odd size", 8, F32)
        arguments[which] = arguments[which].clone()
        arguments[which][place] = value
        with pytest.raises(RuntimeError, match="gaussian_offsets must rise from 0 to P = "):
            emulated.ops.compress_cells(*arguments)

    def test_a_slot_of_another_view_is_refused(self, emulated: Emulated) -> None:
        arguments = compress_arguments("three views of odd size", 8, F32)
        arguments[1] = arguments[1].clone()
        arguments[1][0] = arguments[1][-1]
        with pytest.raises(RuntimeError, match="slot_tiles must lie in"):
            emulated.ops.compress_cells(*arguments)

    @pytest.mark.parametrize("offsets", [[0], [1, 2], [0, 1]])
    def test_slots_of_no_gaussian_are_refused(self, emulated: Emulated, offsets: list[int]) -> None:
        lists = (torch.zeros(2).int(), torch.tensor(offsets))
        with pytest.raises(RuntimeError, match="must rise from 0 to P = 2"):
            emulated.ops.compress_cells(torch.ones(2, 4), *lists, 1, 16, 16, 8)


def long_lists(cells: int, entries: int, dtype: torch.dtype) -> CellWeights:
    """Gaussians seen by few cells, one of them 600 times, one as often as fits one segment."""
    rng = torch.Generator().manual_seed(3)
    lengths = torch.randint(0, 4, (entries // 2,), generator=rng)
    lengths[3], lengths[40] = 600, 256
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    count = int(offsets[-1])
    rows = torch.randint(0, cells, (count,), generator=rng).int()
    values = torch.rand(count, generator=rng).to(dtype)
    gaussians = torch.randperm(len(lengths) + 5, generator=rng)[: len(lengths)].int()
    return CellWeights(values, gaussians, offsets, rows, (1, 1, cells), len(lengths) + 5)


def nothing(dtype: torch.dtype, shape: tuple[int, int, int]) -> CellWeights:
    no_index = torch.zeros(0, dtype=torch.int32)
    return CellWeights(torch.zeros(0, dtype=dtype), no_index, torch.zeros(1).long(), no_index, shape, 0)


MATRICES = {
    "few entries": lambda dtype: random_cells(60, (2, 3, 3), dtype),
    "one cell": lambda dtype: long_lists(1, 100, dtype),
    "long lists": lambda dtype: long_lists(3, 200, dtype),
    "no entries": lambda dtype: nothing(dtype, (1, 2, 2)),
    "nothing": lambda dtype: nothing(dtype, (0, 2, 2)),
}
STORED = {"float32": (F32, F32), "float64": (F64, F64), "float16": (F32, F16)}  # of values; of features


def rows_like(count: int, channels: int, dtype: torch.dtype, seed: int) -> Tensor:
    return torch.randn(count, channels, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_near(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    assert actual.dtype == expected.dtype and actual.shape == expected.shape
    tolerance = (
        {F64: 1e-13, F32: 2e-6}[dtype] * max(1.0, float(expected.abs().max())) if expected.numel() else 0
    )
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize(
    ("matrix", "channels"),
    [
        *(("few entries", channels) for channels in (1, 3, 64, 130, 260, 1000)),
        *(("long lists", channels) for channels in (1, 8, 33, 132)),
        *(("one cell", 1), ("one cell", 300), ("no entries", 8), ("nothing", 1)),
    ],
)
class TestProducts:
    def test_same_as_on_the_cpu(self, emulated: Emulated, matrix: str, channels: int, stored: str) -> None:
        dtype, kept = STORED[stored]
        cells = MATRICES[matrix](dtype)
        lists, rows = lists_of(cells), math.prod(cells.shape)
        features, maps = rows_like(cells.count, channels, kept, 1), rows_like(rows, channels, dtype, 2)
        blend = (features, *lists, rows)
        assert_near(emulated.ops.blend_cells(*blend), ops.blend_cells(*blend), dtype)
        if kept == dtype:
            gather = (maps, *lists, cells.count)
            assert_near(emulated.ops.gather_cells(*gather), ops.gather_cells(*gather), dtype)
        products = (features, maps, *lists[1:])
        assert_near(emulated.ops.cell_products(*products), ops.cell_products(*products), dtype)
        for floor in (-1.0, 0.0, 0.7):
            sums, expected = features.clone(), features.clone()
            emulated.ops.accumulate_cells(sums, maps, -1.5, floor, *lists)
            ops.accumulate_cells(expected, maps, -1.5, floor, *lists)
            if kept == F16:  # rounded once: at most to the neighbour of what the CPU's sum is rounded to
                torch.testing.assert_close(sums, expected, rtol=2**-10, atol=1e-5)
                assert (sums != expected).sum() <= 0.01 * sums.numel()
            else:
                assert_near(sums, expected, dtype)


def test_half_precision_gives_the_bits_of_float32(emulated: Emulated) -> None:
    cells = long_lists(3, 200, F32)
    for channels in (5, 132):
        features, maps = rows_like(cells.count, channels, F16, 3), rows_like(3, channels, F32, 4)
        lists = lists_of(cells)
        wide = features.float()
        assert torch.equal(
            emulated.ops.blend_cells(features, *lists, 3), emulated.ops.blend_cells(wide, *lists, 3)
        )
        products = [emulated.ops.cell_products(f, maps, *lists[1:]) for f in (features, wide)]
        assert torch.equal(*products)
        emulated.ops.accumulate_cells(features, maps, 0.3, 0.1, *lists)
        emulated.ops.accumulate_cells(wide, maps, 0.3, 0.1, *lists)
        assert torch.equal(features, wide.half())


def test_unlisted_rows_are_left_alone(emulated: Emulated) -> None:
    cells = random_cells(150, (2, 5, 7), F32)
    listed = torch.zeros(150, dtype=torch.bool)
    listed[cells.gaussians.long()] = True
    features = rows_like(150, 8, F32, 5)
    features[~listed] = math.nan
    assert torch.isfinite(emulated.ops.blend_cells(features, *lists_of(cells), 70)).all()
    sums = features.clone()
    emulated.ops.accumulate_cells(sums, rows_like(70, 8, F32, 6), 1.0, 0.1, *lists_of(cells))
    assert torch.isfinite(sums[listed]).all() and sums[~listed].isnan().all()


def test_same_bits_in_any_order_and_unaligned(emulated: Emulated) -> None:
    cells = long_lists(3, 200, F32)
    lists = lists_of(cells)
    features, maps = rows_like(cells.count, 8, F32, 7), rows_like(3, 8, F32, 8)
    shifted = torch.cat([torch.zeros(1), features.flatten()])[1:].view_as(features)
    assert shifted.data_ptr() % 16 and shifted.is_contiguous()
    results = []
    for order in (IN_ORDER, BACKWARDS, SHUFFLED + 1):
        with emulated.order(order):
            sums = features.clone()
            emulated.ops.accumulate_cells(sums, maps, 0.5, 0.1, *lists)
            blended = emulated.ops.blend_cells(features, *lists, 3)
            results.append((blended, sums, emulated.ops.cell_products(features, maps, *lists[1:])))
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], result, strict=True))
    assert_near(emulated.ops.blend_cells(shifted, *lists, 3), results[0][0], F32)
    assert_near(emulated.ops.cell_products(shifted, maps, *lists[1:]), results[0][2], F32)
    emulated.ops.accumulate_cells(shifted, maps, 0.5, 0.1, *lists)
    assert_near(shifted, results[0][1], F32)


FAR = (-1, 2**31 - 1)


@pytest.mark.parametrize("channels", [1, 8])
@pytest.mark.parametrize(
    ("which", "values"),
    [(1, FAR), (1, (155, 160)), (3, FAR), (3, (-128, 128)), (2, (2**40, -(2**40))), (2, (3, 1))],
)
def test_entries_that_lead_outside_memory_are_skipped(
    emulated: Emulated, which: int, values: tuple[int, int], channels: int
) -> None:
    """Nothing is read or written outside; what stays whole is summed as if the rest were not there."""
    cells = random_cells(150, (1, 8, 8), F32)
    lists = [tensor.clone() for tensor in lists_of(cells)]
    lists[which][4], lists[which][9] = values
    features, maps = rows_like(150, channels, F32, 9), rows_like(64, channels, F32, 10)
    blended = emulated.ops.blend_cells(features, *lists, 64)
    gathered = emulated.ops.gather_cells(maps, *lists, 150)
    products = emulated.ops.cell_products(features, maps, *lists[1:])
    assert all(torch.isfinite(result).all() for result in (blended, gathered, products))
    if which == 2:
        return
    whole = torch.ones(len(lists[0]), dtype=torch.bool)
    if which == 3:
        whole[[4, 9]] = False
    else:
        for k in (4, 9):
            whole[int(lists[2][k]) : int(lists[2][k + 1])] = False
    columns = torch.repeat_interleave(cells.gaussians.long(), cells.offsets.diff())[whole]
    matrix = torch.zeros(64, 150).index_put((cells.rows.long()[whole], columns), cells.values[whole])
    assert_near(blended, matrix @ features, F32)
    assert_near(gathered, matrix.T @ maps, F32)
    expected = (features[columns] * maps[cells.rows.long()[whole]]).sum(1)
    assert_near(products[whole], expected, F32)
    assert not products[~whole].any()


def test_wrong_inputs_are_named(emulated: Emulated) -> None:
    cells = random_cells(20, (1, 3, 2), F32)
    features, maps, lists = torch.zeros(20, 5), torch.zeros(6, 5), lists_of(cells)
    with pytest.raises(RuntimeError, match="at least one channel"):
        emulated.ops.blend_cells(torch.zeros(20, 0), *lists, 6)
    with pytest.raises(RuntimeError, match="dtype of values"):
        emulated.ops.blend_cells(features.double(), *lists, 6)
    with pytest.raises(RuntimeError, match=r"cells must be in \[0, 2\^31\), got -1"):
        emulated.ops.blend_cells(features, *lists, -1)
    with pytest.raises(RuntimeError, match=r"offsets must be \[K \+ 1\]"):
        emulated.ops.gather_cells(maps, lists[0], lists[1], lists[2][1:], lists[3], 20)
    with pytest.raises(RuntimeError, match="sums must be contiguous"):
        emulated.ops.accumulate_cells(torch.zeros(5, 20).T, maps, 1.0, -1.0, *lists)
    with pytest.raises(RuntimeError, match=r"maps must be \[cells, C\]"):
        emulated.ops.cell_products(features, torch.zeros(6, 4), *lists[1:])
