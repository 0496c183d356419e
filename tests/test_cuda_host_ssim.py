"""The CUDA kernels of ssim, emulated, against the CPU twin."""

import pytest
import torch
from cuda_host.emulated import BACKWARDS, IN_ORDER, SHUFFLED, Emulated

from feature_gs.rasterizer.ops import ops

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-11}  # of derivatives of size up to 200


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 37, 45, 3), (1, 16, 64, 5), (3, 33, 7, 1), (0, 5, 5, 3)])
def test_same_as_on_the_cpu(emulated: Emulated, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    image, target = torch.rand(2, *shape, generator=generator, dtype=dtype)
    expected = ops.ssim(image, target)
    actual = emulated.ops.ssim(image, target)
    torch.testing.assert_close(actual[0], expected[0])
    for a, e in zip(actual[1:], expected[1:], strict=True):
        torch.testing.assert_close(a, e, atol=TOLERANCE[dtype], rtol=1e-5)
    grad = torch.rand(shape[0], generator=generator, dtype=dtype)
    torch.testing.assert_close(
        emulated.ops.ssim_backward(grad, image, target, *expected[1:]),
        ops.ssim_backward(grad, image, target, *expected[1:]),
    )


def test_as_much_shared_memory_as_the_smallest_device_has(emulated: Emulated) -> None:
    image, target = torch.rand(2, 1, 12, 40, 5, dtype=torch.float64)
    with emulated.capability(75):
        maps = emulated.ops.ssim(image, target)
        emulated.ops.ssim_backward(torch.ones(1, dtype=torch.float64), image, target, *maps[1:])
    torch.testing.assert_close(maps[0], ops.ssim(image, target)[0])


def test_same_bits_in_any_order(emulated: Emulated) -> None:
    image, target = torch.rand(2, 2, 21, 34, 3)
    results = []
    for order in (IN_ORDER, BACKWARDS, SHUFFLED, SHUFFLED + 1):
        with emulated.order(order):
            maps = emulated.ops.ssim(image, target)
            results.append((*maps, emulated.ops.ssim_backward(torch.ones(2), image, target, *maps[1:])))
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], result, strict=True))


def test_wrong_inputs_are_named(emulated: Emulated) -> None:
    with pytest.raises(RuntimeError, match=r"target must be \[B, H, W, C\]"):
        emulated.ops.ssim(torch.rand(1, 4, 4, 3), torch.rand(1, 4, 5, 3))
    with pytest.raises(RuntimeError, match="float32 or float64"):
        emulated.ops.ssim(torch.rand(1, 4, 4, 3).half(), torch.rand(1, 4, 4, 3).half())
