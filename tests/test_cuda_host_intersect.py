"""The CUDA kernels of intersect, emulated: the very lists of the CPU twin."""

import math

import pytest
import torch
from cuda_host.emulated import BACKWARDS, IN_ORDER, SHUFFLED, Emulated
from splats import intersect_arguments, random_splats
from torch import Tensor

from feature_gs.rasterizer.ops import ops

pytestmark = pytest.mark.usefixtures("one_thread")

SPLATS = {
    "none": random_splats(0, 40, 30),
    "one": random_splats(1, 40, 30, kinds=False),
    "three views of odd size": random_splats(300, 101, 77, batch=3),
    "sub-pixel": random_splats(300, 100, 80, scale=1e-3),
    "screen-filling": random_splats(60, 130, 70, scale=2.0),
    "more than a block": random_splats(1500, 97, 50, scale=0.03, batch=2),
    "one pixel": random_splats(100, 1, 1),
    "one tile": random_splats(100, 16, 16),
}


def assert_same_lists(emulated: Emulated, arguments: tuple[object, ...]) -> int:
    """Every list is that of the CPU, bit by bit; how many pairs there are."""
    expected, actual = ops.intersect(*arguments), emulated.ops.intersect(*arguments)
    names = ("tile_offsets", "pair_gaussians", "pair_slots", "slot_tiles", "gaussian_offsets")
    for name, a, e in zip(names, actual, expected, strict=True):
        assert a.dtype == e.dtype and torch.equal(a, e), name
    return expected[1].numel()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", SPLATS)
def test_same_lists_as_on_the_cpu(emulated: Emulated, case: str, dtype: torch.dtype) -> None:
    assert_same_lists(emulated, intersect_arguments(SPLATS[case].to(dtype)))


def test_ties_in_depth_are_by_index(emulated: Emulated) -> None:
    arguments = list(intersect_arguments(SPLATS["three views of odd size"].to(torch.float32)))
    arguments[3] = (arguments[3] * 4).round() / 4
    assert arguments[3].unique().numel() < 100
    assert_same_lists(emulated, tuple(arguments))


def test_all_invisible(emulated: Emulated) -> None:
    arguments = list(intersect_arguments(SPLATS["three views of odd size"].to(torch.float32)))
    arguments[4] = torch.zeros_like(arguments[4])
    assert assert_same_lists(emulated, tuple(arguments)) == 0


def one_size(count: int, scale: float, width: int, height: int) -> tuple[object, ...]:
    """Round splats of standard deviation `scale` px in the middle of the image, the last one nearest."""
    middle = torch.tensor([width / 2, height / 2])
    conic = torch.tensor([scale**-2, 0, scale**-2])
    depths = torch.arange(count, 0, -1).float()[None]
    radii = torch.full((1, count), math.ceil(4 * scale), dtype=torch.int32)
    means2d, conics = middle.expand(1, count, 2).contiguous(), conic.expand(1, count, 3).contiguous()
    return means2d, conics, torch.full((1, count), 0.9), depths, radii, width, height


@pytest.mark.parametrize("count", [1, 3])
def test_splats_over_everything(emulated: Emulated, count: int) -> None:
    """More rows than a block has threads, more pairs than a block lists."""
    pairs = assert_same_lists(emulated, one_size(count, 1e5, 64, 16 * 700))
    assert pairs == count * 4 * 700


def test_many_splats_of_one_tile_each(emulated: Emulated) -> None:
    assert assert_same_lists(emulated, one_size(3000, 0.5, 16 * 9, 16 * 9)) == 3000


def test_same_bits_in_any_order(emulated: Emulated) -> None:
    arguments = intersect_arguments(SPLATS["more than a block"].to(torch.float32))
    for order in (IN_ORDER, BACKWARDS, SHUFFLED + 1):
        with emulated.order(order):
            assert_same_lists(emulated, arguments)


def test_too_many_pairs_are_refused(emulated: Emulated) -> None:
    with pytest.raises(RuntimeError, match=r"2214592512 tile-Gaussian pairs are more than 2\^31 - 1"):
        emulated.ops.intersect(*one_size(33, 1e7, 2**17 - 1, 2**17 - 1))


@pytest.mark.parametrize(
    ("position", "broken", "message"),
    [
        (0, torch.zeros(1, 5, 3), "means2d must be"),
        (3, torch.zeros(1, 5).double(), "depths must have the dtype"),
        (4, torch.zeros(1, 5), "radii must have the dtype"),
        (5, 0, "at least one pixel, got 0 x 30"),
    ],
)
def test_wrong_inputs_are_named(
    emulated: Emulated, position: int, broken: Tensor | int, message: str
) -> None:
    arguments: list[object] = [*one_size(5, 1.0, 40, 30)]
    arguments[position] = broken
    with pytest.raises(RuntimeError, match=message):
        emulated.ops.intersect(*arguments)
