"""The CUDA kernels of the matrix of cells, emulated, against the CPU twin."""

import math

import pytest
import torch
from cuda_host.emulated import BACKWARDS, IN_ORDER, Emulated
from random_cells import (
    by_gaussian,
    cells_from,
    cells_of_slots,
    dense,
    random_cells,
    seen,
)
from splats import cells_compiled, random_splats
from torch import Tensor

from feature_gs.rasterizer import CellWeights
from feature_gs.rasterizer.ops import ops

pytestmark = pytest.mark.usefixtures("one_thread")
F16, F32, F64 = torch.float16, torch.float32, torch.float64


def long_lists(dtype: torch.dtype, across: int = 2, views: int = 2) -> CellWeights:
    """More slots of some Gaussians than a segment holds, of others exactly as many.

    Long ranges begin and end within segments and, in the first view, on their borders.
    """
    rng = torch.Generator().manual_seed(3)
    down, wide, segment = (15, 20, 256) if across == 1 else (10, 16, 128)
    tiles, shape = down * wide, (views, down * across - across // 2, wide * across)
    lengths = torch.randint(0, 5, (views, 50), generator=rng)
    lengths[:, 6], lengths[:, 40:42] = tiles, segment
    lengths[0, :4] = torch.tensor([128, 160, 64, 160])
    slot_tiles = [
        tiles * view + torch.randperm(tiles, generator=rng)[:length].sort().values
        for view in range(views)
        for length in lengths[view].tolist()
    ]
    return cells_from(slot_tiles, shape, 50, across, dtype, rng)


def crowded(dtype: torch.dtype) -> CellWeights:
    """Three tiles that everything is in: longer lists than a warp looks at together."""
    rng = torch.Generator().manual_seed(4)
    return cells_from([torch.arange(3)] * 150, (1, 2, 6), 150, 2, dtype, rng)


def many_lists(dtype: torch.dtype) -> CellWeights:
    """More than 2^14 cells and Gaussians, most of them without entries."""
    rng = torch.Generator().manual_seed(5)
    none, some = torch.zeros(0, dtype=torch.int64), torch.randint(0, 4160, (60, 2), generator=rng)
    slot_tiles = [*some.sort(1).values.unique(dim=0), *[none] * 16400]
    return cells_from(slot_tiles, (1, 129, 127), len(slot_tiles), 2, dtype, rng)


def nothing(dtype: torch.dtype, shape: tuple[int, int, int]) -> CellWeights:
    return cells_from([], shape, 0, 2, dtype, torch.Generator())


MATRICES = {
    "4 pixels": lambda dtype: random_cells(60, (2, 3, 5), dtype, across=4),
    "8 pixels": lambda dtype: random_cells(60, (2, 3, 5), dtype, across=2),
    "16 pixels": lambda dtype: random_cells(60, (2, 3, 5), dtype, across=1),
    "rendered": lambda dtype: cells_compiled(random_splats(300, 69, 53, batch=3).to(dtype), 8),
    "long lists": long_lists,
    "long lists of one cell": lambda dtype: long_lists(dtype, across=1, views=1),
    "crowded": crowded,
    "no entries": lambda dtype: nothing(dtype, (1, 2, 2)),
    "nothing": lambda dtype: nothing(dtype, (0, 2, 2)),
}
STORED = {"float32": (F32, F32), "float64": (F64, F64), "float16": (F32, F16)}  # of weights; of features


def random_like(cells: CellWeights, channels: int, dtype: torch.dtype, seed: int) -> tuple[Tensor, Tensor]:
    """Features and maps."""
    rng = torch.Generator().manual_seed(seed)
    features = torch.randn(cells.count, channels, generator=rng)
    return features.to(dtype), torch.randn(*cells.shape, channels, generator=rng).to(cells.weights.dtype)


def blend_arguments(features: Tensor, cells: CellWeights) -> tuple[Tensor | int, ...]:
    return (features, cells.weights, *cells.lists, *cells.shape)


def assert_near(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    assert actual.dtype == expected.dtype and actual.shape == expected.shape
    tolerance = (
        {F64: 1e-13, F32: 4e-6}[dtype] * max(1.0, float(expected.abs().max())) if expected.numel() else 0
    )
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize(
    ("matrix", "channels"),
    [
        *(("8 pixels", channels) for channels in (1, 3, 64, 130, 260, 1000)),
        *((f"{cell} pixels", channels) for cell in (4, 16) for channels in (5, 132)),
        *(("rendered", channels) for channels in (2, 28)),
        *(("long lists", channels) for channels in (1, 33)),
        *(("long lists of one cell", channels) for channels in (12, 132)),
        *(("crowded", 1), ("crowded", 300), ("no entries", 8), ("nothing", 1)),
    ],
)
class TestProducts:
    def test_same_as_on_the_cpu(self, emulated: Emulated, matrix: str, channels: int, stored: str) -> None:
        dtype, kept = STORED[stored]
        cells = MATRICES[matrix](dtype)
        features, maps = random_like(cells, channels, kept, 1)
        blend = blend_arguments(features, cells)
        assert_near(emulated.ops.blend_cells(*blend), ops.blend_cells(*blend), dtype)
        if kept == dtype:
            gather = (maps, *by_gaussian(cells), cells.count)
            assert_near(emulated.ops.gather_cells(*gather), ops.gather_cells(*gather), dtype)
        products = (features, maps, *by_gaussian(cells))
        assert_near(emulated.ops.cell_products(*products), ops.cell_products(*products), dtype)
        for floor in (-1.0, 0.0, 0.7):
            sums, expected = features.clone(), features.clone()
            emulated.ops.accumulate_cells(sums, maps, -1.5, floor, *by_gaussian(cells))
            ops.accumulate_cells(expected, maps, -1.5, floor, *by_gaussian(cells))
            if kept == F16:  # rounded once: at most to the neighbour of what the CPU's sum is rounded to
                near = 4e-6 * float(expected.abs().max()) if expected.numel() else 0
                torch.testing.assert_close(sums, expected, rtol=2**-10, atol=near)
                assert (sums != expected).sum() <= 0.01 * sums.numel()
            else:
                assert_near(sums, expected, dtype)


@pytest.mark.parametrize(("channels", "stored"), [(33, "float32"), (132, "float32"), (260, "float16")])
def test_of_many_lists_a_warp_takes_more_channels(emulated: Emulated, channels: int, stored: str) -> None:
    dtype, kept = STORED[stored]
    cells = many_lists(dtype)
    features, maps = random_like(cells, channels, kept, 2)
    blend = blend_arguments(features, cells)
    assert_near(emulated.ops.blend_cells(*blend), ops.blend_cells(*blend), dtype)
    sums, expected = torch.zeros(2, *features.shape, dtype=dtype)
    emulated.ops.accumulate_cells(sums, maps, 1.0, 0.5, *by_gaussian(cells))
    ops.accumulate_cells(expected, maps, 1.0, 0.5, *by_gaussian(cells))
    assert_near(sums, expected, dtype)


def test_half_precision_gives_the_bits_of_float32(emulated: Emulated) -> None:
    cells = long_lists(F32)
    features, maps = random_like(cells, 36, F16, 3)
    wide = features.float()
    blended = [emulated.ops.blend_cells(*blend_arguments(f, cells)) for f in (features, wide)]
    assert torch.equal(*blended)
    products = [emulated.ops.cell_products(f, maps, *by_gaussian(cells)) for f in (features, wide)]
    assert torch.equal(*products)
    emulated.ops.accumulate_cells(features, maps, 0.3, 0.1, *by_gaussian(cells))
    emulated.ops.accumulate_cells(wide, maps, 0.3, 0.1, *by_gaussian(cells))
    assert torch.equal(features, wide.half())


def test_rows_of_unseen_gaussians_are_left_alone(emulated: Emulated) -> None:
    cells = random_cells(150, (2, 5, 7), F32)
    listed = seen(cells)
    features, maps = random_like(cells, 8, F32, 5)
    features[~listed] = math.nan
    assert torch.isfinite(emulated.ops.blend_cells(*blend_arguments(features, cells))).all()
    sums = features.clone()
    emulated.ops.accumulate_cells(sums, maps, 1.0, 0.1, *by_gaussian(cells))
    assert torch.isfinite(sums[listed]).all() and sums[~listed].isnan().all()


def test_same_bits_in_any_order_and_unaligned(emulated: Emulated) -> None:
    cells = long_lists(F32)
    features, maps = random_like(cells, 8, F32, 7)
    shifted = torch.cat([torch.zeros(1), features.flatten()])[1:].view_as(features)
    assert shifted.data_ptr() % 16 and shifted.is_contiguous()
    results = []
    for order in (IN_ORDER, BACKWARDS):
        with emulated.order(order):
            sums = features.clone()
            emulated.ops.accumulate_cells(sums, maps, 0.5, 0.1, *by_gaussian(cells))
            blended = emulated.ops.blend_cells(*blend_arguments(features, cells))
            results.append((blended, sums, emulated.ops.cell_products(features, maps, *by_gaussian(cells))))
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], result, strict=True))
    assert_near(emulated.ops.blend_cells(*blend_arguments(shifted, cells)), results[0][0], F32)
    assert_near(emulated.ops.cell_products(shifted, maps, *by_gaussian(cells)), results[0][2], F32)
    emulated.ops.accumulate_cells(shifted, maps, 0.5, 0.1, *by_gaussian(cells))
    assert_near(shifted, results[0][1], F32)


def test_weights_may_cancel(emulated: Emulated) -> None:
    """Seen is who has entries, whatever they add up to."""
    cells = cells_from([torch.arange(2)], (1, 1, 2), 1, 1, F32, torch.Generator())
    cells.weights[:] = torch.tensor([[1.0], [-1.0]])
    maps = torch.tensor([3.0, 1.0]).reshape(1, 1, 2, 1)
    for kernels in (emulated.ops, ops):
        assert kernels.gather_cells(maps, *by_gaussian(cells), 1).item() == 2
        sums = torch.full((1, 1), 5.0)
        kernels.accumulate_cells(sums, maps, 1.0, 0.5, *by_gaussian(cells))
        assert sums.item() == 5 + 2 / 0.5
        kernels.accumulate_cells(sums, maps, 1.0, 0.0, *by_gaussian(cells))  # divided by nothing: left alone
        assert sums.item() == 9


FAR = (-1, 2**31 - 1)


@pytest.mark.parametrize("channels", [1, 8])
@pytest.mark.parametrize("values", [FAR, (24, -4), "the other view"])
def test_slots_of_tiles_outside_memory_are_skipped(
    emulated: Emulated, values: tuple[int, int] | str, channels: int
) -> None:
    """What stays whole is summed as if the rest were not there. So is what is in a tile of another view."""
    cells = random_cells(150, (2, 6, 8), F32)  # 24 tiles
    features, maps = random_like(cells, channels, F32, 9)
    weights, slot_tiles, offsets = by_gaussian(cells)
    broken = slot_tiles.clone()
    slots = weights.any(1).nonzero()[[0, -1], 0]  # one of each view
    broken[slots] = broken[slots].flip(0) if isinstance(values, str) else torch.tensor(values).int()
    whole = weights.clone()
    whole[slots] = 0
    expected = (whole, slot_tiles, offsets)
    gathered = emulated.ops.gather_cells(maps, weights, broken, offsets, 150)
    assert_near(gathered, ops.gather_cells(maps, *expected, 150), F32)
    products = emulated.ops.cell_products(features, maps, weights, broken, offsets)
    assert_near(products, ops.cell_products(features, maps, *expected), F32)


@pytest.mark.parametrize("channels", [1, 8])
@pytest.mark.parametrize(
    ("which", "values"), [(1, FAR), (1, (300, -(2**31))), (1, (299, 0)), (2, FAR), (2, (9999, -3))]
)
def test_pairs_that_lead_outside_memory_are_skipped(
    emulated: Emulated, which: int, values: tuple[int, int], channels: int
) -> None:
    """So are Gaussians of another view: 0 to 149 are of the first, 150 to 299 of the second."""
    cells = random_cells(150, (2, 6, 8), F32)
    lists = [tensor.clone() for tensor in cells.lists]
    pairs = cells.weights.any(1)[lists[2].long()].nonzero()[[0, -1], 0]  # one of each view
    slots = lists[2][pairs].long()
    lists[which][pairs] = torch.tensor(values).int()
    whole = cells.weights.clone()
    whole[slots] = 0
    features, _ = random_like(cells, channels, F32, 10)
    blended = emulated.ops.blend_cells(features, cells.weights, *lists, *cells.shape)
    assert_near(blended, ops.blend_cells(features, whole, *cells.lists, *cells.shape), F32)


@pytest.mark.parametrize("matrix", ["8 pixels", "long lists"])
@pytest.mark.parametrize("values", [(2**40, -(2**40)), (1, 2000)])
@pytest.mark.parametrize("which", [0, 4])
def test_broken_offsets_lead_nowhere(
    emulated: Emulated, which: int, values: tuple[int, int], matrix: str
) -> None:
    """Nothing is read or written outside, which the sanitizers see; what the sums are, nobody says."""
    cells = MATRICES[matrix](F32)
    lists = [tensor.clone() for tensor in cells.lists]
    lists[which][4], lists[which][9] = values
    features, maps = random_like(cells, 8, F32, 11)
    arguments = (cells.weights, *lists[3:])
    blended = emulated.ops.blend_cells(features, cells.weights, *lists, *cells.shape)
    assert torch.isfinite(blended).all()  # which has no parts
    assert emulated.ops.gather_cells(maps, *arguments, cells.count).shape == features.shape
    assert torch.isfinite(emulated.ops.cell_products(features, maps, *arguments)).all()


def test_weights_outside_of_the_image_are_skipped(emulated: Emulated) -> None:
    cells = random_cells(60, (2, 3, 5), F32)
    outside = cells_of_slots(cells) < 0
    assert outside.any()
    weights = cells.weights.masked_fill(outside, 7.0)
    features, maps = random_like(cells, 3, F32, 12)
    for kernels in (emulated.ops, ops):
        blended = kernels.blend_cells(features, weights, *cells.lists, *cells.shape)
        assert_near(blended.flatten(0, 2), dense(cells) @ features, F32)
        sums = torch.zeros(60, 3)
        kernels.accumulate_cells(sums, maps, 1.0, 0.5, weights, *cells.lists[3:])
        total = 0.5 + dense(cells).sum(0)[:, None]
        assert_near(sums, dense(cells).T @ maps.flatten(0, 2) / total, F32)
        products = kernels.cell_products(features, maps, weights, *cells.lists[3:])
        assert not products[outside].any() and products[cells.weights != 0].all()


def test_wrong_inputs_are_named(emulated: Emulated) -> None:
    cells = random_cells(20, (1, 3, 2), F32)
    features, maps, matrix = torch.zeros(20, 5), torch.zeros(1, 3, 2, 5), by_gaussian(cells)
    with pytest.raises(RuntimeError, match="at least one channel"):
        emulated.ops.blend_cells(*blend_arguments(torch.zeros(20, 0), cells))
    with pytest.raises(RuntimeError, match="dtype of weights"):
        emulated.ops.blend_cells(*blend_arguments(features.double(), cells))
    with pytest.raises(RuntimeError, match=r"must be less than 2\^31 cells, .* got -1 x 3 x 2"):
        emulated.ops.blend_cells(features, cells.weights, *cells.lists, -1, 3, 2)
    with pytest.raises(RuntimeError, match=r"tile_offsets must be \[tiles \+ 1\]"):
        emulated.ops.blend_cells(features, cells.weights, *cells.lists, 1, 3, 4)
    with pytest.raises(RuntimeError, match=r"gaussian_offsets must be \[B \* N \+ 1\]"):
        emulated.ops.gather_cells(maps, *matrix[:2], matrix[2][1:], 20)
    with pytest.raises(RuntimeError, match="sums must be contiguous"):
        emulated.ops.accumulate_cells(torch.zeros(5, 20).T, maps, 1.0, -1.0, *matrix)
    with pytest.raises(RuntimeError, match=r"features must be \[N, C\]"):
        emulated.ops.cell_products(features, torch.zeros(1, 3, 2, 4), *matrix)
