"""The CUDA kernels of rasterize, emulated, against the CPU twin: images, weights and all gradients."""

import dataclasses
from typing import Any

import pytest
import torch
from cuda_host.emulated import BACKWARDS, IN_ORDER, SHUFFLED, Emulated
from random_scenes import weights_like
from splats import Splats, intersect_arguments, random_splats, rasterize_arguments
from torch import Tensor

from feature_gs.rasterizer.ops import ops

pytestmark = pytest.mark.usefixtures("one_thread")

OUTPUTS = ("color", "alpha", "depth", "median_depth", "features", "transmittance", "last", "weights")
GRADIENTS = ("means2d", "conics", "opacities", "colors", "depths", "features", "absgrad")
Tensors = tuple[Tensor, ...]


def arguments_of(
    splats: Splats, cell: int, move: bool = False, tensor_cores: bool = False
) -> tuple[Any, ...]:
    """What `rasterize` takes; `tensor_cores` stands last."""
    lists = ops.intersect(*intersect_arguments(splats))
    return rasterize_arguments(splats, lists, cell, move, None, tensor_cores)


def backward_arguments(args: tuple[Any, ...], outputs: Tensors, absgrad: bool = True) -> tuple[Any, ...]:
    """What `rasterize_backward` takes for some gradient of every output that has one."""
    grads = [
        weights_like(outputs[k], k).to(outputs[k].dtype) if outputs[k].numel() else None
        for k in (0, 1, 2, 4, 7)
    ]
    saved = (*args[:7], *args[8:12], outputs[1], outputs[2], outputs[5], outputs[6])
    return (*grads, *saved, *args[12:], absgrad, True)


def assert_close(actual: Tensor, expected: Tensor, name: str, bound: Tensor | float | None = None) -> None:
    """Near everywhere in float64. In float32 a pixel in a thousand may be on the other side of 1/255 or 1e-4.

    Without `bound`, differences are seen relative to the largest expected value.
    """
    assert actual.shape == expected.shape and actual.dtype == expected.dtype, name
    if not expected.numel():
        return
    if bound is None:
        tolerance = 1e-12 if expected.dtype == torch.float64 else 2e-5
        bound = tolerance * max(float(expected.abs().max()), 1e-30)
    off = ~((actual - expected).abs() <= bound)  # NaN is off, too
    allowed = 1e-3 if expected.dtype == torch.float32 else 0.0
    assert off.float().mean() <= allowed, f"{name}: {int(off.sum())} of {off.numel()} differ"
    assert torch.isfinite(actual.float()).all(), name


def assert_same(emulated: Emulated, args: tuple[Any, ...], absgrad: bool = True) -> Tensors:
    """Images and gradients are those of the CPU; the CPU's images."""
    expected = ops.rasterize(*args)
    for name, a, e in zip(OUTPUTS, emulated.ops.rasterize(*args), expected, strict=True):
        assert_close(a, e, name)
    backward = backward_arguments(args, expected, absgrad)
    gradients = ops.rasterize_backward(*backward)
    for name, a, e in zip(GRADIENTS, emulated.ops.rasterize_backward(*backward), gradients, strict=True):
        assert_close(a, e, f"gradient of {name}")
    return expected


def single_tile(count: int, channels: int, **scene: object) -> Splats:
    return random_splats(count, 15, 13, channels=channels, **scene)


def faint(count: int, channels: int) -> Splats:
    """Splats that cover the whole tile and hide nothing: every pixel blends most of them."""
    splats = single_tile(count, channels, scale=2.0, kinds=False)
    return dataclasses.replace(splats, opacities=(0.03 * splats.opacities).float().double())


# splats, side of a cell, features_move_geometry
CASES: dict[str, tuple[Splats, int, bool]] = {
    "none": (random_splats(0, 33, 21, channels=3), 1, True),
    "one pixel": (random_splats(30, 1, 1, channels=1, scale=0.5), 2, True),
    "no features": (random_splats(80, 37, 29, batch=3), 1, False),
    "1 channel": (random_splats(80, 37, 29, channels=1, batch=3), 1, False),
    "3 channels move": (random_splats(80, 37, 29, channels=3), 1, True),
    "3 channels, cell 2": (random_splats(80, 37, 29, channels=3), 2, False),
    "17 channels": (random_splats(80, 37, 29, channels=17), 1, False),
    "17 channels, cell 2, move": (random_splats(80, 37, 29, channels=17, batch=2), 2, True),
    "64 channels move": (random_splats(60, 20, 18, channels=64), 1, True),
    "200 channels": (random_splats(60, 20, 18, channels=200), 1, False),
    "200 channels, cell 2": (random_splats(60, 20, 18, channels=200), 2, True),
    "cell 4": (random_splats(80, 37, 29), 4, True),
    "cell 8": (random_splats(80, 37, 29, batch=2), 8, True),
    "cell 16": (random_splats(80, 37, 29), 16, True),
    "long list": (single_tile(700, 3, scale=0.02), 1, True),
    "long list, cell 8": (single_tile(700, 0, scale=0.02), 8, True),
    "every patch sees every splat": (single_tile(120, 3, scale=2.0), 1, True),
    "faint": (faint(250, 3), 1, False),
    "opaque": (single_tile(300, 3, scale=0.3, seed=3), 2, True),
    "opaque, cell 4": (single_tile(300, 0, scale=0.3, seed=3), 4, True),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
def test_same_as_on_the_cpu(emulated: Emulated, case: str, dtype: torch.dtype) -> None:
    splats, cell, move = CASES[case]
    assert_same(emulated, arguments_of(splats.to(dtype), cell, move), absgrad=move)


def test_splats_over_many_tiles(emulated: Emulated) -> None:
    """Runs of slots so long that several threads share them."""
    splats = random_splats(3, 112, 90, channels=5, scale=3.0, kinds=False, batch=2).to(torch.float32)
    args = arguments_of(splats, 1)
    runs = args[11].diff()
    assert runs.max() > 32
    assert_same(emulated, args)


def stack(opacities: list[float]) -> Splats:
    """Splats of variance 9 on one spot of a 9 x 7 image, one behind the other."""
    count = len(opacities)
    features = weights_like(torch.empty(count, 3), 1)
    return Splats(
        means2d=torch.tensor([[[4.5, 3.5]]]).double().repeat(1, count, 1),
        conics=torch.tensor([[[1 / 9, 0.0, 1 / 9]]]).double().repeat(1, count, 1),
        opacities=torch.tensor([opacities]).double(),
        colors=features[None],
        depths=torch.arange(1, count + 1)[None].double(),
        radii=torch.full((1, count), 15, dtype=torch.int32),
        features=features,
        background=torch.tensor([0.2, 0.4, 0.6]).double(),
        width=9,
        height=7,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cell", [1, 4])
def test_pixels_stop_where_little_light_is_left(emulated: Emulated, cell: int, dtype: torch.dtype) -> None:
    """Each leaves 2 %, where it is not clamped at 0.99: in the middle two are blended, at the edge more."""
    args = arguments_of(stack([0.98, 0.98, 1.0, 1.0, 0.98, 0.98, 0.5, 0.5]).to(dtype), cell)
    last = assert_same(emulated, args)[6]
    assert last.min() == 2 and last.max() > 4


@pytest.mark.parametrize(
    ("channels", "cell", "capability"),
    [
        *((channels, cell, 90) for channels in (3, 17, 64, 200) for cell in (1, 2)),
        *((17, 1, capability) for capability in (80, 120)),
    ],
)
def test_tensor_cores_round_the_operands_only(
    emulated: Emulated, channels: int, cell: int, capability: int
) -> None:
    """Both factors of every product lose 2^-11 of their size at most, nothing else is lost."""
    splats = random_splats(60, 21, 18, channels=channels, batch=2).to(torch.float32)
    assert splats.features is not None
    args = arguments_of(splats, cell, move=True, tensor_cores=True)
    outputs = ops.rasterize(*args)
    sizes = ops.rasterize(*args[:5], splats.features.abs(), *args[6:])[4]
    with emulated.capability(capability):
        actual = emulated.ops.rasterize(*args)
        assert_close(actual[4], outputs[4], "features", 1.01 * 2**-10 * sizes + 1e-5)
        assert not torch.equal(actual[4], emulated.ops.rasterize(*args[:-1], False)[4])

        backward = list(backward_arguments(args, outputs))
        gradients = emulated.ops.rasterize_backward(*backward)
        plain = emulated.ops.rasterize_backward(*backward[:24], False, *backward[25:])
    for name, a, e in zip(GRADIENTS, gradients, ops.rasterize_backward(*backward), strict=True):
        if name != "features":
            assert_close(a, e, f"gradient of {name}")
            continue
        assert not torch.equal(a, plain[5])
        assert backward[3] is not None
        backward[3] = backward[3].abs()
        sizes = ops.rasterize_backward(*backward)[5]
        assert_close(a, e, f"gradient of {name}", 1.01 * 2**-10 * sizes + 1e-5)


@pytest.mark.parametrize("cell", [1, 2])
@pytest.mark.parametrize(
    ("channels", "capability", "hidden"), [(70, 90, 7), (20, 90, 23), (70, 80, 23), (70, 120, 15)]
)
def test_tensor_cores_with_more_splats_than_a_warp_lists(
    emulated: Emulated, channels: int, capability: int, hidden: int, cell: int
) -> None:
    """One pixel alone sees the first `hidden`: elsewhere 32 more do not fit, by one, when the list is cut."""
    splats = stack([0.02] * 250)
    splats.conics[:, hidden:] = torch.tensor([1e-3, 0.0, 1e-3])
    splats.conics[:, :hidden] = torch.tensor([10.0, 0.0, 10.0])
    splats.means2d[:, :hidden] = torch.tensor([8.5, 6.5])
    splats = dataclasses.replace(splats, features=weights_like(torch.empty(250, channels), 1))
    splats = splats.to(torch.float32)
    args = arguments_of(splats, cell, tensor_cores=True)
    assert splats.features is not None
    outputs = ops.rasterize(*args)
    assert outputs[6].min() == 250
    sizes = ops.rasterize(*args[:5], splats.features.abs(), *args[6:])[4]
    with emulated.capability(capability):
        features = emulated.ops.rasterize(*args)[4]
    assert_close(features, outputs[4], "features", 1.01 * 2**-10 * sizes + 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_tensor_cores_where_there_are_none(emulated: Emulated, dtype: torch.dtype) -> None:
    """And with the 64 KB of shared memory that such devices have."""
    splats = random_splats(60, 21, 18, channels=17).to(dtype)
    args = arguments_of(splats, 1, tensor_cores=True)
    plain = (*args[:-1], False)
    backward = backward_arguments(plain, ops.rasterize(*plain))
    expected = (emulated.ops.rasterize(*plain)[4], emulated.ops.rasterize_backward(*backward)[5])
    with emulated.capability(75):
        assert torch.equal(emulated.ops.rasterize(*args)[4], expected[0])
        gradients = emulated.ops.rasterize_backward(*backward[:24], True, *backward[25:])
    assert torch.equal(gradients[5], expected[1])


@pytest.mark.parametrize("begin", [1, 2, 4])
def test_features_may_lie_anywhere_in_memory(emulated: Emulated, begin: int) -> None:
    splats = random_splats(40, 20, 18, channels=8).to(torch.float32)
    assert splats.features is not None
    memory = torch.empty(splats.features.numel() + begin)
    features = memory[begin:].view_as(splats.features).copy_(splats.features)
    expected = emulated.ops.rasterize(*arguments_of(splats, 1, tensor_cores=True))[4]
    shifted = arguments_of(dataclasses.replace(splats, features=features), 1, tensor_cores=True)
    assert torch.equal(emulated.ops.rasterize(*shifted)[4], expected)


@pytest.mark.parametrize(("cell", "tensor_cores"), [(1, False), (2, True), (4, False)])
def test_same_bits_in_any_order(emulated: Emulated, cell: int, tensor_cores: bool) -> None:
    channels = 0 if cell == 4 else 19
    splats = random_splats(150, 37, 21, channels=channels).to(torch.float32)
    args = arguments_of(splats, cell, True, tensor_cores)
    results = []
    for order in (IN_ORDER, BACKWARDS, SHUFFLED, SHUFFLED + 1):
        with emulated.order(order):
            outputs = emulated.ops.rasterize(*args)
            results.append((*outputs, *emulated.ops.rasterize_backward(*backward_arguments(args, outputs))))
    for result in results[1:]:
        for name, a, b in zip((*OUTPUTS, *GRADIENTS), results[0], result, strict=True):
            assert torch.equal(a, b), name


@pytest.mark.parametrize("which", [8, 9, 10, 11])
@pytest.mark.parametrize("cell", [1, 4])
def test_lists_that_lead_outside_memory_are_not_followed(emulated: Emulated, which: int, cell: int) -> None:
    splats = random_splats(60, 37, 21, channels=3, batch=2).to(torch.float32)
    args = list(arguments_of(splats, cell, move=True))
    expected = emulated.ops.rasterize(*args)
    backward = list(backward_arguments(tuple(args), expected))
    rng = torch.Generator().manual_seed(which)
    for low, high in ((-(2**31), 2**31), (-3, args[which].numel() + 3)):
        args[which] = torch.randint(low, high, args[which].shape, generator=rng).to(args[which].dtype)
        emulated.ops.rasterize(*args)
        backward[which + 4] = args[which]
        emulated.ops.rasterize_backward(*backward)


def test_a_pair_that_is_not_there_is_left_out(emulated: Emulated) -> None:
    splats = random_splats(60, 37, 21, channels=3).to(torch.float64)
    args = list(arguments_of(splats, 1))
    victim = int(args[9][args[9].numel() // 2])
    absent = arguments_of(
        dataclasses.replace(splats, radii=splats.radii.clone().index_fill_(1, torch.tensor(victim), 0)), 1
    )
    assert absent[9].numel() < args[9].numel()
    args[9] = torch.where(args[9] == victim, 2**31 - 1, args[9]).to(torch.int32)
    for name, a, e in zip(OUTPUTS, emulated.ops.rasterize(*args), ops.rasterize(*absent), strict=True):
        if name != "last":
            assert_close(a, e, name)


@pytest.mark.parametrize("tensor_cores", [False, True])
def test_many_pairs_take_features_in_rounds(emulated: Emulated, tensor_cores: bool) -> None:
    """So many pairs, most in no list, that the working memory holds 32 of the 70 channels at a time."""
    splats = random_splats(20, 15, 13, channels=70).to(torch.float32)
    args = list(arguments_of(splats, 1, tensor_cores=tensor_cores))
    expected = emulated.ops.rasterize_backward(*backward_arguments(tuple(args), ops.rasterize(*args)))[5]
    for which in (9, 10):
        args[which] = torch.nn.functional.pad(args[which], (0, 2_000_000))
    actual = emulated.ops.rasterize_backward(*backward_arguments(tuple(args), emulated.ops.rasterize(*args)))[
        5
    ]
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("cell", [1, 2])
def test_where_only_features_want_a_gradient(emulated: Emulated, cell: int) -> None:
    args = arguments_of(random_splats(60, 21, 18, channels=5), cell)
    given = backward_arguments(args, ops.rasterize(*args))
    given = (None, None, None, *given[3:])
    for name, a, e in zip(
        GRADIENTS, emulated.ops.rasterize_backward(*given), ops.rasterize_backward(*given), strict=True
    ):
        assert_close(a, e, name)
        assert bool(e.any()) == (name == "features"), name


def test_more_channels_than_a_grid_has_slices(emulated: Emulated) -> None:
    """What nobody sees takes no time, but its gradient is launched all the same."""
    splats = dataclasses.replace(
        stack([0.5]).to(torch.float32),
        features=torch.ones(1, 65536 * 32 + 4),
        radii=torch.zeros(1, 1, dtype=torch.int32),
        width=1,
        height=1,
    )
    args = arguments_of(splats, 1)
    gradients = emulated.ops.rasterize_backward(*backward_arguments(args, ops.rasterize(*args)))
    assert gradients[5].shape == (1, 65536 * 32 + 4) and not gradients[5].any()


def test_nothing_to_do(emulated: Emulated) -> None:
    splats = random_splats(20, 21, 18, channels=3, batch=2).to(torch.float32)
    invisible = dataclasses.replace(splats, radii=torch.zeros_like(splats.radii))
    for cell in (1, 4):
        assert not assert_same(emulated, arguments_of(invisible, cell))[1].any()
    no_views: dict[str, Any] = {
        name: getattr(splats, name)[:0]
        for name in ("means2d", "conics", "opacities", "colors", "depths", "radii")
    }
    assert assert_same(emulated, arguments_of(dataclasses.replace(splats, **no_views), 1))[0].numel() == 0


def test_wrong_inputs_are_named(emulated: Emulated) -> None:
    args = arguments_of(random_splats(20, 21, 18, channels=3).to(torch.float32), 1)
    with pytest.raises(RuntimeError, match=r"conics must be \[B, N, 3\]"):
        emulated.ops.rasterize(args[0], args[1][:, :-1], *args[2:])
    with pytest.raises(RuntimeError, match="features must be absent for cells of 4"):
        emulated.ops.rasterize(*args[:14], 4, *args[15:])
