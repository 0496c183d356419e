import pytest
import torch
from random_scenes import assert_same_gradient
from torch import Tensor

from feature_gs.rasterizer import ssim
from feature_gs.rasterizer.reference import ssim_reference

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = [
    (1, 220, 394, 3),
    (2, 37, 41, 3),
    (3, 11, 11, 1),
    (1, 4, 3, 5),
    (2, 1, 1, 2),
    (1, 1, 40, 3),
    (1, 40, 1, 7),
]


def images(size: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two images that resemble each other, with a flat dark half, where SSIM is most sensitive."""
    rng = torch.Generator().manual_seed(seed)
    image = torch.rand(size, generator=rng, dtype=torch.float64)
    image[:, size[1] // 2 :] = 0.02 + 0.001 * image[:, size[1] // 2 :]
    target = 0.8 * image + 0.2 * image.square() + 0.05 * torch.rand(size, generator=rng, dtype=torch.float64)
    return image.float().double(), target.float().double()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_values_and_gradients_agree_with_the_reference(size: tuple[int, ...], dtype: torch.dtype) -> None:
    image, target = images(size)
    weights = torch.linspace(0.5, -1.5, size[0], dtype=torch.float64)
    image.requires_grad_()
    expected = ssim_reference(image, target)
    (expected * weights).sum().backward()
    actual_image = image.detach().to(dtype).requires_grad_()
    actual = ssim(actual_image, target.to(dtype))
    (actual * weights.to(dtype)).sum().backward()
    assert actual.dtype == dtype
    torch.testing.assert_close(
        actual.double(), expected, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-12
    )
    tolerance = 1e-4 if dtype == torch.float32 else 1e-10
    assert_same_gradient(actual_image.grad, image.grad, tolerance, "image")


def test_an_image_resembles_itself_completely() -> None:
    image, _ = images((2, 30, 20, 3))
    image.requires_grad_()
    value = ssim(image, image.detach())
    torch.testing.assert_close(value, torch.ones(2, dtype=torch.float64))
    value.sum().backward()
    assert image.grad is not None and image.grad.abs().max() < 1e-9  # it is the maximum


def test_flat_images_differ_by_their_means_alone() -> None:
    # S = (2 a b + C1) / (a² + b² + C1) where the window lies inside the image. Wider and taller images have
    # more such pixels but the same borders, which the difference of differences removes.
    a, b = 0.6, 0.2

    def total(height: int, width: int) -> float:
        image = torch.full((1, height, width, 1), a, dtype=torch.float64)
        return ssim(image, torch.full_like(image, b)).item() * height * width

    inside = (total(22, 30) - total(22, 20) - total(15, 30) + total(15, 20)) / (7 * 10)
    assert inside == pytest.approx((2 * a * b + 1e-4) / (a * a + b * b + 1e-4))


def test_single_pixel() -> None:
    # only the window's centre w = 0.266011...² meets the pixel: means w a and w b, E[x²] = w a²
    a, b = 0.7, 0.4
    w = 0.2660117248617943**2
    c1, c2 = 1e-4, 9e-4
    luminance = (2 * w * w * a * b + c1) / (w * w * (a * a + b * b) + c1)
    contrast = (2 * (w - w * w) * a * b + c2) / ((w - w * w) * (a * a + b * b) + c2)
    pixel = torch.full((1, 1, 1, 1), a, dtype=torch.float64)
    assert ssim(pixel, torch.full_like(pixel, b)).item() == pytest.approx(luminance * contrast, abs=1e-12)


def test_symmetric_in_its_arguments_and_under_flips() -> None:
    image, target = images((1, 23, 31, 3))
    value = ssim(image, target)
    torch.testing.assert_close(ssim(target, image), value)
    torch.testing.assert_close(ssim(image.flip(1), target.flip(1)), value)
    torch.testing.assert_close(ssim(image.transpose(1, 2), target.transpose(1, 2)), value)


def test_images_and_channels_are_independent() -> None:
    image, target = images((3, 17, 19, 4))
    value = ssim(image, target)
    for b in range(3):
        assert torch.equal(ssim(image[b : b + 1], target[b : b + 1])[0], value[b])
    planes = [ssim(image[..., c : c + 1], target[..., c : c + 1]) for c in range(4)]
    torch.testing.assert_close(torch.stack(planes).mean(0), value)


def test_gradient_is_that_of_finite_differences() -> None:
    image, target = images((2, 9, 7, 2))
    assert torch.autograd.gradcheck(ssim, (image.requires_grad_(), target))


def test_target_gets_no_gradient() -> None:
    image, target = images((1, 9, 7, 2))
    target.requires_grad_()
    ssim(image.requires_grad_(), target).sum().backward()
    assert target.grad is None or not target.grad.any()


def test_repeats_and_thread_counts_are_bit_equal() -> None:
    image, target = (x.float() for x in images((2, 150, 123, 3)))
    image.requires_grad_()
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            value = ssim(image, target)
            results.append((value, *torch.autograd.grad(value.sum(), image)))
    finally:
        torch.set_num_threads(threads)
    for value, gradient in results[1:]:
        assert torch.equal(value, results[0][0]) and torch.equal(gradient, results[0][1])


def test_no_images_have_no_similarities() -> None:
    empty = torch.zeros(0, 5, 5, 3, requires_grad=True)
    value = ssim(empty, empty.detach())
    assert value.shape == (0,)
    value.sum().backward()
    assert empty.grad is not None and empty.grad.shape == empty.shape


@pytest.mark.parametrize(
    ("image", "target", "message"),
    [
        (torch.zeros(5, 5, 3), torch.zeros(5, 5, 3), r"image must be \[B, H, W, C\]"),
        (torch.zeros(1, 5, 5, 3), torch.zeros(1, 5, 4, 3), "target must be"),
        (torch.zeros(1, 5, 5, 3), torch.zeros(1, 5, 5, 3).double(), "target must have the dtype"),
        (torch.zeros(1, 5, 5, 3).half(), torch.zeros(1, 5, 5, 3).half(), "image must be float32 or float64"),
        (torch.zeros(1, 5, 5, 3, dtype=torch.uint8),) * 2 + ("image must be float32 or float64",),
        (torch.zeros(1, 0, 5, 3), torch.zeros(1, 0, 5, 3), "must have pixels"),
    ],
)
def test_wrong_inputs_are_named(image: Tensor, target: Tensor, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        ssim(image, target)
