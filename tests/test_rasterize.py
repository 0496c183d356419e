import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from random_scenes import assert_near, assert_same_gradient, random_scene, weights_like
from splats import (
    IMAGE_NAMES,
    Images,
    Splats,
    any_in_cell,
    blend_compiled,
    blend_reference,
    fragile_pixels,
    random_splats,
)
from torch import Tensor

from feature_gs.rasterizer import rasterize
from feature_gs.rasterizer.reference import rasterize_twin

pytestmark = pytest.mark.usefixtures("one_thread")
Blend = Callable[..., Images]
FLOAT64 = torch.float64
CLAMPED = 0.99


@pytest.fixture(params=["reference", "compiled"])
def blend(request: pytest.FixtureRequest) -> Blend:
    return blend_reference if request.param == "reference" else blend_compiled


def stack(opacities: list[float], depths: list[float], x: float = 2.5, y: float = 1.5) -> Splats:
    """Splats of variance 1 on one spot of a 5 x 4 image; the k-th of colour (k + 1, 0, 0), feature (1, k)."""
    count = len(opacities)
    opacity = torch.tensor([opacities], dtype=FLOAT64)
    color = torch.zeros(1, count, 3, dtype=FLOAT64)
    color[0, :, 0] = torch.arange(count) + 1
    return Splats(
        means2d=torch.tensor([[[x, y]]], dtype=FLOAT64).repeat(1, count, 1),
        conics=torch.tensor([[[1.0, 0.0, 1.0]]], dtype=FLOAT64).repeat(1, count, 1),
        opacities=opacity,
        colors=color,
        depths=torch.tensor([depths], dtype=FLOAT64),
        radii=torch.full((1, count), 4, dtype=torch.int32),
        features=torch.stack([torch.ones(count), torch.arange(count)], dim=-1).to(FLOAT64),
        background=None,
        width=5,
        height=4,
    )


class TestByHand:
    def test_one_splat(self, blend: Blend) -> None:
        splats = stack([0.8], [3.0])
        splats.background = torch.tensor([0.0, 0.5, 1.0], dtype=FLOAT64)
        color, alpha, depth, median, features = blend(splats)
        assert features is not None
        beside, diagonal = 0.8 * math.exp(-0.5), 0.8 * math.exp(-1.0)
        for (y, x), a in {(1, 2): 0.8, (1, 1): beside, (2, 2): beside, (0, 3): diagonal}.items():
            assert alpha[0, y, x].item() == pytest.approx(a)
            assert color[0, y, x].tolist() == pytest.approx([a, 0.5 * (1 - a), 1 - a])
            assert depth[0, y, x].item() == pytest.approx(3.0)
            assert median[0, y, x].item() == (3.0 if a > 0.5 else 0.0)
            assert features[0, y, x].tolist() == pytest.approx([a, 0.0])

    def test_two_splats_whatever_their_order(self, blend: Blend) -> None:
        for opacities, depths in [([0.4, 0.5], [1.0, 2.0]), ([0.5, 0.4], [2.0, 1.0])]:
            splats = stack(opacities, depths)
            near = opacities.index(0.4)
            color, alpha, depth, median, features = blend(splats)
            assert features is not None
            # weights 0.4 and 0.6 * 0.5, T = 1, 0.6, 0.3
            assert color[0, 1, 2, 0].item() == pytest.approx(0.4 * (near + 1) + 0.3 * (2 - near))
            assert alpha[0, 1, 2].item() == pytest.approx(0.7)
            assert depth[0, 1, 2].item() == pytest.approx((0.4 * 1 + 0.3 * 2) / 0.7)
            assert median[0, 1, 2].item() == 2.0
            assert features[0, 1, 2].tolist() == pytest.approx([0.7, 0.4 * near + 0.3 * (1 - near)])

    def test_equal_depths_blend_by_index(self, blend: Blend) -> None:
        color = blend(stack([0.4, 0.5], [2.0, 2.0]))[0]
        assert color[0, 1, 2, 0].item() == pytest.approx(0.4 * 1 + 0.6 * 0.5 * 2)

    def test_opaque_splats_still_let_one_percent_through_and_have_no_gradient(self, blend: Blend) -> None:
        splats = stack([1.0], [1.0])
        splats.opacities.requires_grad_()
        alpha = blend(splats)[1]
        assert alpha[0, 1, 2].item() == pytest.approx(CLAMPED)
        (gradient,) = torch.autograd.grad(alpha[0, 1, 2], splats.opacities)
        assert gradient.item() == 0.0
        beside = blend(splats)[1][0, 1, 1]
        (gradient,) = torch.autograd.grad(beside, splats.opacities)
        assert gradient.item() == pytest.approx(math.exp(-0.5))

    def test_stops_before_the_splat_that_would_leave_too_little(self, blend: Blend) -> None:
        # T = 0.02, 4e-4, and the third would leave 8e-6
        color, alpha, depth, _, features = blend(stack([0.98, 0.98, 0.98, 0.5], [1.0, 2.0, 3.0, 4.0]))
        assert features is not None
        assert alpha[0, 1, 2].item() == pytest.approx(1 - 4e-4, abs=1e-12)
        assert color[0, 1, 2, 0].item() == pytest.approx(0.98 + 0.02 * 0.98 * 2)
        assert depth[0, 1, 2].item() == pytest.approx((0.98 + 0.0196 * 2) / (1 - 4e-4))
        assert features[0, 1, 2, 1].item() == pytest.approx(0.0196)

    def test_what_is_fainter_than_one_in_255_is_skipped(self, blend: Blend) -> None:
        color, alpha, depth, median, features = blend(stack([1.01 / 255, 0.99 / 255], [1.0, 2.0]))
        assert alpha[0, 1, 2].item() == pytest.approx(1.01 / 255)
        alpha[0, 1, 2] = color[0, 1, 2] = depth[0, 1, 2] = 0
        assert not alpha.any() and not color.any() and not depth.any() and not median.any()

    def test_gradients_of_two_splats(self, blend: Blend) -> None:
        splats = stack([0.4, 0.5], [1.0, 2.0]).to(FLOAT64, requires_grad=True)
        blend(splats)[0][0, 1, 3, 0].backward()  # one pixel to the right: dx = 1
        falloff = math.exp(-0.5)
        a, b = 0.4 * falloff, 0.5 * falloff
        opacity, center, conic, color = (
            getattr(splats, n).grad[0] for n in ("opacities", "means2d", "conics", "colors")
        )
        # colour = 1 a + 2 (1 - a) b
        assert opacity.tolist() == pytest.approx([(1 - 2 * b) * falloff, 2 * (1 - a) * falloff])
        assert center.flatten().tolist() == pytest.approx([(1 - 2 * b) * a, 0, 2 * (1 - a) * b, 0])
        assert conic[0].tolist() == pytest.approx([-0.5 * (1 - 2 * b) * a, 0, 0])
        assert color[:, 0].tolist() == pytest.approx([a, (1 - a) * b])
        assert not color[:, 1:].any()

    @pytest.mark.parametrize("cell", [2, 4, 8, 16])
    def test_cells_average_their_real_pixels(self, blend: Blend, cell: int) -> None:
        splats = stack([0.8, 0.5], [1.0, 2.0])
        pixels, cells = blend(splats)[4], blend(splats, cell=cell)[4]
        assert pixels is not None and cells is not None
        assert cells.shape == (1, -(-4 // cell), -(-5 // cell), 2)
        for y in range(cells.shape[1]):
            for x in range(cells.shape[2]):
                block = pixels[0, cell * y : cell * (y + 1), cell * x : cell * (x + 1)]
                assert cells[0, y, x].tolist() == pytest.approx(block.mean(dim=(0, 1)).tolist())

    def test_absgrad_sums_what_gradients_of_opposite_sign_cancel(self, blend: Blend) -> None:
        splats = stack([0.8], [1.0])
        splats.means2d.requires_grad_()
        absgrad = torch.zeros_like(splats.means2d).requires_grad_()
        alpha = blend(splats, absgrad=absgrad)[1]
        (alpha[0, 1, 1] + alpha[0, 1, 3]).backward()
        assert splats.means2d.grad is not None and absgrad.grad is not None
        assert splats.means2d.grad.flatten().tolist() == pytest.approx([0.0, 0.0], abs=1e-12)
        assert absgrad.grad.flatten().tolist() == pytest.approx([2 * 0.8 * math.exp(-0.5), 0.0])


NO_SPLATS = random_splats(0, 33, 21, channels=3)
ONE = random_splats(1, 40, 30, channels=3, kinds=False, scale=0.3)
MIXED = random_splats(400, 69, 53, channels=7, batch=2)
SUB_PIXEL = random_splats(300, 66, 50, channels=1, scale=1e-3)
SCREEN_FILLING = random_splats(150, 70, 50, channels=3, scale=2.0)
WIDE = random_splats(150, 45, 37, channels=64)
VERY_WIDE = random_splats(100, 39, 23, channels=513, batch=2)
MANY = random_splats(5000, 80, 60, channels=3, scale=0.02)
OPAQUE = random_splats(400, 61, 47, channels=3, scale=0.3, seed=3)
TINY = random_splats(50, 1, 1, channels=3, scale=0.5)

CASES = {
    "none": (NO_SPLATS, 4, False),
    "one": (ONE, 1, True),
    "mixed, pixels": (MIXED, 1, False),
    "mixed, pixels move": (MIXED, 1, True),
    "mixed, cell 2": (MIXED, 2, True),
    "mixed, cell 4": (MIXED, 4, True),
    "mixed, cell 8": (MIXED, 8, False),
    "mixed, cell 16": (MIXED, 16, True),
    "no features, no background": (dataclasses.replace(MIXED, features=None, background=None), 1, False),
    "sub-pixel": (SUB_PIXEL, 2, True),
    "screen-filling": (SCREEN_FILLING, 8, True),
    "64 channels, pixels": (WIDE, 1, True),
    "64 channels, cell 2": (WIDE, 2, True),
    "64 channels, cell 8": (WIDE, 8, True),
    "513 channels, pixels": (VERY_WIDE, 1, True),
    "513 channels, cell 4": (VERY_WIDE, 4, False),
    "513 channels, cell 16": (VERY_WIDE, 16, True),
    "many": (MANY, 8, True),
    "opaque": (OPAQUE, 4, True),
    "one pixel": (TINY, 16, True),
}


Gradients = dict[str, Tensor | None]


def blend_with_gradients(
    blend_by: Blend, case: str, dtype: torch.dtype, doubtful: dict[str, Tensor]
) -> tuple[Images, Gradients]:
    """Images, and gradients of a weighted sum of their pixels and cells but for the doubtful ones."""
    splats, cell, move = CASES[case]
    leaves = splats.to(dtype, requires_grad=True)
    absgrad = torch.zeros_like(leaves.means2d).requires_grad_()
    images = blend_by(leaves, cell=cell, move=move, absgrad=absgrad)
    loss = torch.zeros((), dtype=dtype)
    for i, (name, image) in enumerate(zip(IMAGE_NAMES, images, strict=True)):
        if image is None or not image.requires_grad:
            continue
        weights = weights_like(image, seed=i)
        mask = doubtful[name] if weights.dim() == 3 else doubtful[name][..., None]
        loss = loss + (image * (weights * ~mask).to(dtype)).sum()
    loss.backward()
    gradients = {name: leaf.grad for name, leaf in leaves.leaves().items()}
    return images, {**gradients, "absgrad": absgrad.grad}


@functools.cache
def expected_of(case: str) -> tuple[Images, Gradients, dict[str, Tensor]]:
    """What the reference makes of the case, and where float32 may decide otherwise."""
    splats, cell, _ = CASES[case]
    fragile, fragile_median = fragile_pixels(splats, 2e-5)
    assert fragile.float().mean() < 0.05
    doubtful = dict.fromkeys(IMAGE_NAMES, fragile)
    doubtful["median_depth"] = fragile | fragile_median
    doubtful["features"] = any_in_cell(fragile, cell)
    return *blend_with_gradients(blend_reference, case, FLOAT64, doubtful), doubtful


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", CASES)
def test_compiled_agrees_with_the_reference(case: str, dtype: torch.dtype) -> None:
    single = dtype == torch.float32
    expected, expected_gradients, doubtful = expected_of(case)
    actual, actual_gradients = blend_with_gradients(blend_compiled, case, dtype, doubtful)
    for name, a, e in zip(IMAGE_NAMES, actual, expected, strict=True):
        if e is None:
            assert a is None
            continue
        assert a is not None and a.shape == e.shape
        keep = ~doubtful[name]
        assert_near(a[keep], e[keep], 1e-5 if single else 1e-10, name)
    for name, e in expected_gradients.items():
        assert_same_gradient(actual_gradients[name], e, 1e-4 if single else 1e-8, name)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("sh_bands", [1, 16])
def test_public_call_agrees_with_the_twin(dtype: torch.dtype, antialiased: bool, sh_bands: int) -> None:
    scene = random_scene(300, 61, 47, batch=2, sh_bands=sh_bands)
    features = weights_like(torch.empty(scene.means.shape[0], 5), 3).float().double()
    background = torch.tensor([0.25, 0.5, 1.0])
    single = dtype == torch.float32
    results = []
    for call, precision in ((rasterize_twin, FLOAT64), (rasterize, dtype)):
        leaves = scene.to(precision).requires_grad()
        f = features.to(precision, copy=True).requires_grad_()
        sh = (leaves.sh_dc, leaves.sh_rest if leaves.sh_rest is not None else leaves.sh_dc[:, None][:, :0])
        geometry = (
            leaves.means,
            leaves.quats,
            leaves.scales,
            leaves.opacities,
            leaves.cam_from_world,
            leaves.K,
        )
        output = call(
            *geometry,
            scene.width,
            scene.height,
            sh=sh,
            features=f,
            feature_cell=4,
            background=background.to(precision),
            antialiased=antialiased,
            near=0.2,
            features_move_geometry=True,
            absgrad=True,
        )
        output.means2d.retain_grad()
        images = (output.color, output.alpha, output.depth, output.median_depth, output.features)
        loss = torch.zeros((), dtype=precision)
        for i, image in enumerate(images):
            if image is not None and image.requires_grad and i != 2:
                loss = loss + (image * weights_like(image, i).to(precision)).mean()
        loss.backward()
        results.append((output, images, [*leaves.gaussians(), f, output.means2d, output.absgrad]))
    (expected, expected_images, expected_leaves), (actual, actual_images, actual_leaves) = results
    assert int((expected.radii - actual.radii).abs().max()) <= 1
    # In float32 the few pixels on a boundary of the rules of blending may differ.
    for name, a, e in zip(IMAGE_NAMES, actual_images, expected_images, strict=True):
        assert a is not None and e is not None and a.shape == e.shape
        error = (a.double() - e.double()).abs() / e.double().abs().clamp(min=1)
        if single:
            assert (error > 1e-4).float().mean() < 2e-3, name
        else:
            assert error.max() < 1e-9, name
    for i, (a, e) in enumerate(zip(actual_leaves, expected_leaves, strict=True)):
        assert a is not None and e is not None
        assert_same_gradient(a.grad, e.grad, 1e-2 if single else 1e-7, f"leaf {i}")


def test_gradients_are_those_of_finite_differences() -> None:
    splats = random_splats(6, 10, 9, channels=3, batch=2, kinds=False, scale=0.3)
    fragile, _ = fragile_pixels(splats, 1e-4)
    for cell in (1, 4):
        leaves = splats.to(FLOAT64, requires_grad=True)
        firm, firm_cells = ~fragile, ~any_in_cell(fragile, cell)
        covered = firm & (blend_compiled(splats)[1] > 0.02)
        assert firm_cells.float().mean() > 0.5 and covered.float().mean() > 0.2
        select = (firm, firm, covered, firm_cells)

        def outputs(
            *values: Tensor, cell: int = cell, select: tuple[Tensor, ...] = select
        ) -> tuple[Tensor, ...]:
            replaced: dict[str, Any] = dict(zip(splats.leaves(), values, strict=True))
            color, alpha, depth, _, features = blend_compiled(
                dataclasses.replace(splats, **replaced), cell=cell, move=True
            )
            assert features is not None
            images = (color, alpha, depth, features)
            return tuple(image[mask] for image, mask in zip(images, select, strict=True))

        inputs = tuple(leaves.leaves().values())
        assert torch.autograd.gradcheck(outputs, inputs, atol=1e-5, rtol=1e-4, fast_mode=True)


class TestLaws:
    @pytest.mark.parametrize("cell", [1, 2, 4, 8, 16])
    def test_features_are_linear(self, cell: int) -> None:
        f, g = (weights_like(MIXED.features, seed) for seed in (1, 2))  # type: ignore[arg-type]

        def image(features: Tensor) -> Tensor:
            result = blend_compiled(dataclasses.replace(MIXED, features=features), cell=cell)[4]
            assert result is not None
            return result

        torch.testing.assert_close(image(2 * f - 3 * g), 2 * image(f) - 3 * image(g))

    @pytest.mark.parametrize("cell", [2, 4, 8, 16])
    @pytest.mark.parametrize("splats", [MIXED, WIDE, TINY])
    def test_a_cell_is_the_average_of_its_pixels(self, splats: Splats, cell: int) -> None:
        pixels, cells = blend_compiled(splats)[4], blend_compiled(splats, cell=cell)[4]
        assert pixels is not None and cells is not None
        averages = torch.nn.functional.avg_pool2d(
            pixels.permute(0, 3, 1, 2), cell, ceil_mode=True, count_include_pad=False
        )
        torch.testing.assert_close(cells, averages.permute(0, 2, 3, 1))

    @pytest.mark.parametrize("cell", [1, 8])
    def test_features_of_ones_give_alpha(self, cell: int) -> None:
        ones = torch.ones(MIXED.means2d.shape[1], 1, dtype=FLOAT64)
        _, alpha, _, _, features = blend_compiled(dataclasses.replace(MIXED, features=ones), cell=cell)
        assert features is not None
        expected = torch.nn.functional.avg_pool2d(alpha[:, None], cell, ceil_mode=True)[:, 0]
        torch.testing.assert_close(features[..., 0], expected)

    def test_background_shines_through_what_is_left(self) -> None:
        bare = blend_compiled(dataclasses.replace(MIXED, background=None))
        lit = blend_compiled(MIXED)
        assert MIXED.background is not None
        torch.testing.assert_close(lit[0], bare[0] + (1 - bare[1])[..., None] * MIXED.background)
        for a, b in zip(lit[1:], bare[1:], strict=True):
            assert a is not None and b is not None and torch.equal(a, b)

    def test_depth_as_a_colour_over_alpha_is_the_expected_depth(self) -> None:
        colors = MIXED.depths[..., None].expand(-1, -1, 3)
        color, alpha, depth, *_ = blend_compiled(dataclasses.replace(MIXED, colors=colors, background=None))
        torch.testing.assert_close(depth * alpha, color[..., 0])

    def test_the_front_covers_the_back(self) -> None:
        splats = dataclasses.replace(OPAQUE, opacities=OPAQUE.opacities * 0.1, features=None, background=None)
        middle = splats.depths[splats.radii > 0].median()

        def part(keep: Tensor) -> Images:
            return blend_compiled(dataclasses.replace(splats, radii=splats.radii * keep))

        front, back = part(splats.depths < middle), part(splats.depths >= middle)
        color, alpha, *_ = blend_compiled(splats)
        clear = alpha < 0.999  # where neither stopped early
        assert clear.float().mean() > 0.5
        left = (1 - front[1])[..., None]
        torch.testing.assert_close(color[clear], (front[0] + left * back[0])[clear])

    def test_order_of_the_gaussians_does_not_matter(self) -> None:
        count = MIXED.means2d.shape[1]
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
        assert MIXED.features is not None
        names = ("means2d", "conics", "opacities", "colors", "depths", "radii")
        shuffled = dataclasses.replace(
            MIXED, features=MIXED.features[order], **{name: getattr(MIXED, name)[:, order] for name in names}
        )
        for a, b in zip(blend_compiled(MIXED), blend_compiled(shuffled), strict=True):
            torch.testing.assert_close(a, b)

    def test_moving_all_splats_by_whole_pixels_moves_the_image(self) -> None:
        shift = torch.tensor([7.0, -5.0], dtype=FLOAT64)
        moved = blend_compiled(dataclasses.replace(MIXED, means2d=MIXED.means2d + shift))
        for a, b in zip(moved, blend_compiled(MIXED), strict=True):
            assert a is not None and b is not None
            torch.testing.assert_close(a[:, :-5, 7:], b[:, 5:, :-7])

    def test_batch_is_the_cameras_one_by_one(self) -> None:
        together = blend_compiled(MIXED, cell=4)
        names = ("means2d", "conics", "opacities", "colors", "depths", "radii")
        for b in range(2):
            one = dataclasses.replace(MIXED, **{name: getattr(MIXED, name)[b : b + 1] for name in names})
            for name, images, image in zip(IMAGE_NAMES, together, blend_compiled(one, cell=4), strict=True):
                assert images is not None and image is not None
                if name == "features":  # summed in an order that all views share
                    torch.testing.assert_close(images[b : b + 1], image, atol=1e-13, rtol=1e-13)
                else:
                    assert torch.equal(images[b : b + 1], image), name

    @pytest.mark.parametrize("cell", [1, 4, 16])
    def test_features_leave_geometry_alone_unless_asked(self, cell: int) -> None:
        for move in (False, True):
            splats = MIXED.to(FLOAT64, requires_grad=True)
            features = blend_compiled(splats, cell=cell, move=move)[4]
            assert features is not None and splats.features is not None
            (features * weights_like(features, 0)).sum().backward()
            assert splats.features.grad is not None and splats.features.grad.any()
            for tensor in (splats.means2d, splats.conics, splats.opacities):
                moved = tensor.grad is not None and bool(tensor.grad.any())
                assert moved == move

    @pytest.mark.parametrize("move", [False, True])
    @pytest.mark.parametrize("cell", [1, 2])
    def test_features_get_the_same_gradient_where_nothing_else_wants_one(self, cell: int, move: bool) -> None:
        gradients = []
        for alone in (False, True):
            splats = MIXED.to(FLOAT64, requires_grad=True)
            assert splats.features is not None
            if alone:
                for name in ("means2d", "conics", "opacities", "colors", "depths"):
                    getattr(splats, name).requires_grad_(False)
            outputs = blend_compiled(splats, cell=cell, move=move)
            total = sum((image * weights_like(image, k)).sum() for k, image in enumerate(outputs[:3]))
            assert outputs[4] is not None
            total = total + (outputs[4] * weights_like(outputs[4], 7)).sum()
            wanted = [t for t in (splats.features, splats.background) if t is not None]
            gradients.append(torch.autograd.grad(total, wanted))
        for both, one in zip(*gradients, strict=True):
            assert torch.equal(both, one) and both.any()

    def test_gradient_of_features_is_the_transpose_of_blending(self) -> None:
        # <blend(F), G> = <F, backward(G)>, which is what lifting features onto Gaussians relies on
        for cell in (1, 2, 4, 16):
            splats = MIXED.to(FLOAT64, requires_grad=True)
            image = blend_compiled(splats, cell=cell)[4]
            assert image is not None and splats.features is not None
            upstream = weights_like(image, 5)
            (gradient,) = torch.autograd.grad(image, splats.features, upstream)
            torch.testing.assert_close((image * upstream).sum(), (splats.features * gradient).sum())


@pytest.mark.parametrize("cell", [1, 8])
def test_repeats_and_thread_counts_are_bit_equal(cell: int) -> None:
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            splats = MANY.to(torch.float32, requires_grad=True)
            absgrad = torch.zeros_like(splats.means2d).requires_grad_()
            images = blend_compiled(splats, cell=cell, move=True, absgrad=absgrad)
            used = [image for image in images if image is not None and image.requires_grad]
            torch.stack([(image * weights_like(image, 1).float()).sum() for image in used]).sum().backward()
            results.append([*images, *(leaf.grad for leaf in splats.leaves().values()), absgrad.grad])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert a is not None and b is not None and torch.equal(a, b)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["means2d", "conics", "opacities", "depths"])
def test_splats_that_are_not_finite_harm_no_tile_but_their_own(field: str, value: float) -> None:
    splats = MIXED.to(torch.float32)
    getattr(splats, field)[0, 5].fill_(value)
    for image in blend_compiled(splats, cell=4):
        assert image is not None and torch.isfinite(image[1]).all()
