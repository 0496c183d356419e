"""Feature images as a sparse matrix A [cells, N]: what it holds, and the products with it."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from random_cells import (
    by_gaussian,
    cells_from,
    cells_of_slots,
    dense,
    gaussians_of_slots,
    random_cells,
    seen,
)
from random_scenes import assert_near, random_scene, weights_like
from splats import (
    Splats,
    any_in_cell,
    blend_compiled,
    cells_compiled,
    fragile_pixels,
    random_splats,
    splats_of,
)
from torch import Tensor

from feature_gs.rasterizer import RenderOutput, rasterize
from feature_gs.rasterizer.ops import ops
from feature_gs.rasterizer.reference import cell_weights_reference

pytestmark = pytest.mark.usefixtures("one_thread")
FLOAT64 = torch.float64
CELLS = (4, 8, 16)
CHANNELS = (1, 3, 17, 64, 130, 1000)

CASES = {
    "odd sizes, two views": random_splats(300, 69, 53, batch=2),
    "whole cells": random_splats(200, 64, 48),
    "narrower than a cell": random_splats(100, 3, 37, scale=0.3),
    "one pixel": random_splats(50, 1, 1, scale=0.5),
    "one Gaussian": random_splats(1, 40, 30, kinds=False, scale=0.3),
    "none": random_splats(0, 33, 21),
}


class TestMatrix:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    @pytest.mark.parametrize("cell", CELLS)
    @pytest.mark.parametrize("case", CASES)
    def test_is_that_of_the_reference(self, case: str, cell: int, dtype: torch.dtype) -> None:
        splats = CASES[case]
        geometry = (splats.means2d, splats.conics, splats.opacities, splats.depths, splats.radii)
        expected = cell_weights_reference(*geometry, splats.width, splats.height, cell)
        cells = cells_compiled(splats.to(dtype), cell)
        firm = ~any_in_cell(fragile_pixels(splats, 2e-5)[0], cell).flatten()
        assert firm.float().mean() > 0.5
        batch, count = splats.radii.shape
        assert cells.shape == (batch, -(-splats.height // cell), -(-splats.width // cell))
        assert cells.count == count and cells.weights.dtype == dtype
        tolerance = 1e-12 if dtype == FLOAT64 else 1e-5
        assert_near(dense(cells)[firm], expected[firm], tolerance, "A")

    @pytest.mark.parametrize("cell", CELLS)
    def test_holds_each_entry_once_and_nothing_outside_of_the_image(self, cell: int) -> None:
        cells = cells_compiled(CASES["odd sizes, two views"], cell)
        rows, columns = cells_of_slots(cells), gaussians_of_slots(cells)[:, None]
        assert (cells.weights >= 0).all() and not cells.weights[rows < 0].any()
        entries = (rows * cells.count + columns)[cells.weights > 0]
        assert entries.unique().numel() == entries.numel() == int((dense(cells) != 0).sum())

    def test_of_two_splats_that_cover_the_image_evenly(self) -> None:
        splats = Splats(
            means2d=torch.zeros(1, 2, 2, dtype=FLOAT64),
            conics=torch.tensor([[[1e-12, 0, 1e-12]]], dtype=FLOAT64).repeat(1, 2, 1),
            opacities=torch.tensor([[0.4, 0.5]], dtype=FLOAT64),
            colors=torch.zeros(1, 2, 3, dtype=FLOAT64),
            depths=torch.tensor([[2.0, 1.0]], dtype=FLOAT64),
            radii=torch.full((1, 2), 1000, dtype=torch.int32),
            features=None,
            background=None,
            width=21,
            height=18,
        )
        for cell in CELLS:  # also those at the border, of one or two columns or rows of pixels
            expected = torch.tensor([0.5 * 0.4, 0.5], dtype=FLOAT64).expand(
                -(-21 // cell) * -(-18 // cell), 2
            )
            torch.testing.assert_close(dense(cells_compiled(splats, cell)), expected, rtol=0, atol=1e-8)

    @pytest.mark.parametrize("cell", CELLS)
    def test_sums_to_the_alpha_of_the_cells(self, cell: int) -> None:
        splats = CASES["odd sizes, two views"]
        alpha = blend_compiled(splats)[1]
        averages = torch.nn.functional.avg_pool2d(alpha[:, None], cell, ceil_mode=True)
        torch.testing.assert_close(dense(cells_compiled(splats, cell)).sum(1), averages.flatten())

    def test_of_one_pixel_cells_is_not_made(self) -> None:
        with pytest.raises(ValueError, match="cell_weights needs a feature_cell of 4, 8 or 16, got 2"):
            scene_render(cell=2, cell_weights=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("channels", CHANNELS)
class TestProducts:
    def test_are_those_of_the_dense_matrix(self, channels: int, dtype: torch.dtype) -> None:
        tolerance = 1e-12 if dtype == FLOAT64 else 1e-5
        for cells in (
            *(random_cells(150, (2, 5, 7), dtype, across=across) for across in (1, 2, 4)),
            cells_compiled(CASES["whole cells"].to(dtype), 8),
        ):
            matrix = dense(cells).double()
            features = weights_like(torch.empty(cells.count, channels), 1).to(dtype)
            maps = weights_like(torch.empty(*cells.shape, channels), 2).to(dtype)
            blended = cells.blend(features)
            assert blended.shape == maps.shape and blended.dtype == dtype
            assert_near(blended.flatten(0, 2), matrix @ features.double(), tolerance, "A F")
            gathered = cells.gather(maps)
            assert gathered.shape == features.shape and gathered.dtype == dtype
            assert_near(gathered, matrix.T @ maps.flatten(0, 2).double(), tolerance, "Aᵀ M")
            products = ops.cell_products(features, maps, *by_gaussian(cells))
            assert products.shape == cells.weights.shape and not products[cells.weights == 0].any()
            ones = cells.weights != 0
            columns = gaussians_of_slots(cells)[:, None].expand(ones.shape)[ones]
            expected = features[columns].double() * maps.flatten(0, 2)[cells_of_slots(cells)[ones]].double()
            assert_near(products[ones] / channels, expected.sum(-1) / channels, tolerance, "F · M")

    def test_blending_and_gathering_are_adjoint(self, channels: int, dtype: torch.dtype) -> None:
        cells = random_cells(90, (1, 6, 11), dtype)
        features = weights_like(torch.empty(cells.count, channels), 3).to(dtype)
        maps = weights_like(torch.empty(*cells.shape, channels), 4).to(dtype)
        there = (cells.blend(features).double() * maps.double()).sum()
        back = (features.double() * cells.gather(maps).double()).sum()
        torch.testing.assert_close(there, back, rtol=1e-12 if dtype == FLOAT64 else 1e-5, atol=0)

    @pytest.mark.parametrize("floor", [None, 0.0, 0.7])
    def test_accumulating_leaves_unseen_rows_alone(
        self, channels: int, dtype: torch.dtype, floor: float | None
    ) -> None:
        cells = random_cells(150, (2, 5, 7), dtype)
        maps = weights_like(torch.empty(*cells.shape, channels), 5).to(dtype)
        before = weights_like(torch.empty(cells.count, channels), 7).to(dtype)
        listed = seen(cells)
        assert listed.any() and not listed.all()
        before[~listed] = math.nan
        sums = before.clone()
        cells.accumulate(sums, maps, -1.5, floor)
        bits = torch.int64 if dtype == FLOAT64 else torch.int32
        assert torch.equal(sums[~listed].view(bits), before[~listed].view(bits))
        share = -1.5 * cells.gather(maps)[listed]
        if floor is not None:
            weight = floor + cells.totals()[listed]
            share /= torch.where(weight > 0, weight, 1.0)[:, None]
        assert_near(sums[listed], before[listed] + share, 1e-13 if dtype == FLOAT64 else 1e-5, "sums")


class TestCellWeights:
    def test_totals_are_the_sums_of_columns(self) -> None:
        cells = cells_compiled(CASES["odd sizes, two views"], 8)
        torch.testing.assert_close(cells.totals(), dense(cells).sum(0))

    def test_features_of_unseen_gaussians_are_not_read(self) -> None:
        cells = random_cells(60, (1, 4, 4), torch.float32)
        features = torch.full((60, 5), math.nan)
        features[seen(cells)] = 1.0
        assert torch.isfinite(cells.blend(features)).all()

    def test_half_precision_is_blended_as_float32(self) -> None:
        cells = random_cells(60, (1, 4, 4), torch.float32)
        for dtype in (torch.float16, torch.bfloat16):
            stored = torch.randn(60, 5).to(dtype).requires_grad_()
            image = cells.blend(stored)
            assert image.dtype == torch.float32 and torch.equal(image, cells.blend(stored.float()))
            image.sum().backward()
            assert stored.grad is not None and stored.grad.dtype == dtype and stored.grad.any()

    @pytest.mark.parametrize("channels", CHANNELS)
    def test_sums_in_half_precision_are_rounded_once(self, channels: int) -> None:
        cells = random_cells(60, (1, 4, 4), torch.float32)
        maps = weights_like(torch.empty(1, 4, 4, channels), 8).float()
        exact = weights_like(torch.empty(60, channels), 9).half().float()
        sums = exact.half()
        cells.accumulate(sums, maps, 0.3, 0.1)
        cells.accumulate(exact, maps, 0.3, 0.1)
        assert torch.equal(sums, exact.half())
        products = ops.cell_products(sums, maps, *by_gaussian(cells))
        widened = ops.cell_products(sums.float(), maps, *by_gaussian(cells))
        assert torch.equal(products, widened)

    def test_every_half_number_survives(self) -> None:
        """Also those below the normal range, infinities, and both zeros; NaN stays NaN."""
        every = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(torch.float16)[:, None]
        rng, tile = torch.Generator(), torch.zeros(1, dtype=torch.int64)
        all_in_one = cells_from([tile] * 2**16, (1, 1, 1), 2**16, 1, torch.float32, rng)
        all_in_one.weights[:] = 1
        sums = every.clone()
        all_in_one.accumulate(sums, torch.zeros(1, 1, 1, 1))
        assert torch.equal(sums.nan_to_num(7.0, 1e4, -1e4), every.nan_to_num(7.0, 1e4, -1e4))
        assert torch.equal(sums.isnan(), every.isnan())
        halfway = torch.tensor([[65519.0], [65520.0], [2.0**-25], [2.0**-24 * 1.5], [1 + 2.0**-11], [1e-9]])
        one = cells_from([torch.tensor([n]) for n in range(6)], (1, 1, 6), 6, 1, torch.float32, rng)
        one.weights[:] = 1
        rounded = torch.zeros(6, 1, dtype=torch.float16)
        one.accumulate(rounded, halfway[None, None])
        assert torch.equal(rounded, halfway.half())

    def test_strides_do_not_matter(self) -> None:
        cells = random_cells(60, (1, 4, 4), torch.float32)
        features, maps = torch.randn(5, 60).T, torch.randn(1, 5, 4, 4).permute(0, 2, 3, 1)
        assert torch.equal(cells.blend(features), cells.blend(features.contiguous()))
        assert torch.equal(cells.gather(maps), cells.gather(maps.contiguous()))
        one = torch.ones(()).expand(1, 4, 4, 1)
        assert torch.equal(cells.gather(one)[:, 0], cells.totals())

    def test_nothing_visible(self) -> None:
        splats = dataclasses.replace(
            CASES["whole cells"], radii=torch.zeros(1, 200, dtype=torch.int32)[:, :190]
        )
        count = CASES["whole cells"].radii.shape[1]
        splats.radii = torch.zeros(1, count, dtype=torch.int32)
        cells = cells_compiled(splats, 8)
        assert cells.weights.shape == (0, 4)
        assert not cells.blend(torch.ones(count, 3, dtype=FLOAT64)).any()
        assert not cells.gather(torch.ones(*cells.shape, 3, dtype=FLOAT64)).any() and not cells.totals().any()

    @pytest.mark.parametrize("count", [0, 60])
    def test_no_views(self, count: int) -> None:
        scene = random_scene(60, 40, 30, kinds=False).select(torch.arange(60) < count)
        geometry = (scene.means, scene.quats, scene.scales, scene.opacities)
        cameras = (scene.cam_from_world[:0], scene.K[:0])
        features = torch.ones(count, 3, dtype=FLOAT64)
        output = rasterize(*geometry, *cameras, 40, 30, features=features, feature_cell=8, cell_weights=True)
        assert output.cells is not None and output.cells.count == count
        assert output.features is not None and output.features.shape == (0, 4, 5, 3)
        assert output.cells.gather(output.features).shape == (count, 3)

    def test_wrong_shapes_are_named(self) -> None:
        cells = random_cells(60, (2, 3, 4), torch.float32)
        with pytest.raises(ValueError, match=r"features must be \[60, C\], got \[61, 5\]"):
            cells.blend(torch.zeros(61, 5))
        with pytest.raises(ValueError, match=r"maps must be \[2, 3, 4, C\], got \[2, 4, 4, 5\]"):
            cells.gather(torch.zeros(2, 4, 4, 5))
        with pytest.raises(ValueError, match=r"maps must be \[2, 3, 4, C\], got \[3, 4, 5\]"):
            cells.accumulate(torch.zeros(60, 5), torch.zeros(3, 4, 5))
        with pytest.raises(ValueError, match=r"sums must be \[60, C\], got \[59, 5\]"):
            cells.accumulate(torch.zeros(59, 5), torch.zeros(2, 3, 4, 5))
        maps = torch.zeros(2, 3, 4, 5)
        with pytest.raises(RuntimeError, match="sums must be"):
            cells.accumulate(torch.zeros(60, 4), maps)
        with pytest.raises(RuntimeError, match="sums must be contiguous"):
            cells.accumulate(torch.zeros(5, 60).T, maps)
        with pytest.raises(RuntimeError, match="sums must have the dtype"):
            cells.accumulate(torch.zeros(60, 5).double(), maps)
        with pytest.raises(ValueError, match="floor must be at least 0, got -1"):
            cells.accumulate(torch.zeros(60, 5), maps, 1.0, -1.0)
        with pytest.raises(RuntimeError, match="maps must have the dtype"):
            cells.gather(maps.double())
        with pytest.raises(RuntimeError, match="at least one channel"):
            cells.blend(torch.zeros(60, 0))


def scene_render(cell: int, dtype: torch.dtype = torch.float32, **options: Any) -> RenderOutput:
    scene = random_scene(60, 40, 30, kinds=False).to(dtype)
    geometry = (scene.means, scene.quats, scene.scales, scene.opacities, scene.cam_from_world, scene.K)
    return rasterize(*geometry, 40, 30, sh=(scene.sh_dc, scene.sh_rest), feature_cell=cell, **options)  # type: ignore[arg-type]


class TestGradients:
    def test_of_blending_are_those_of_finite_differences(self) -> None:
        cells = random_cells(12, (1, 2, 3), FLOAT64)
        entries = cells.weights != 0
        values = cells.weights[entries].requires_grad_()
        features = weights_like(torch.empty(12, 9), 0).requires_grad_()

        def blend(values: Tensor, features: Tensor) -> Tensor:
            weights = torch.zeros_like(cells.weights).masked_scatter(entries, values)
            return dataclasses.replace(cells, weights=weights).blend(features)

        assert torch.autograd.gradcheck(blend, (values, features))

    @pytest.mark.parametrize("cell", CELLS)
    def test_of_geometry_are_those_of_finite_differences(self, cell: int) -> None:
        scene = random_scene(6, 21, 18, batch=2, kinds=False, scale=0.3, seed=1)
        firm = ~any_in_cell(fragile_pixels(splats_of(scene), 1e-4)[0], cell)
        assert firm.any()
        features = weights_like(torch.empty(scene.means.shape[0], 3), 0)
        inputs = (scene.means, scene.quats, scene.scales, scene.opacities, features)

        def image(
            means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, features: Tensor
        ) -> Tensor:
            output = rasterize(
                *(means, quats, scales, opacities, scene.cam_from_world, scene.K, 21, 18),
                features=features,
                feature_cell=cell,
                features_move_geometry=True,
            )
            assert output.features is not None
            return output.features[firm]

        leaves = tuple(tensor.clone().requires_grad_() for tensor in inputs)
        assert torch.autograd.gradcheck(image, leaves, atol=1e-6, rtol=1e-4)

    @pytest.mark.parametrize("cell", CELLS)
    def test_reach_geometry_only_when_asked(self, cell: int) -> None:
        scene = random_scene(60, 40, 30, batch=2, kinds=False)
        for move in (False, True):
            leaves = scene.to(FLOAT64).requires_grad()
            geometry = (leaves.means, leaves.quats, leaves.scales, leaves.opacities)
            features = weights_like(torch.empty(leaves.means.shape[0], 5), 0).requires_grad_()
            output = rasterize(
                *(*geometry, leaves.cam_from_world, leaves.K, 40, 30),
                sh=(leaves.sh_dc, leaves.sh_rest) if leaves.sh_rest is not None else None,
                features=features,
                feature_cell=cell,
                features_move_geometry=move,
                cell_weights=True,
            )
            assert output.cells is not None and output.features is not None
            assert output.cells.weights.requires_grad == move
            (output.features.square().sum() + 0 * output.color.sum()).backward()
            assert features.grad is not None and features.grad.any()
            for leaf in geometry:
                assert leaf.grad is not None and bool(leaf.grad.any()) == move

    @pytest.mark.parametrize("cell", CELLS)
    def test_and_images_of_colour_do_not_notice_the_weights(self, cell: int) -> None:
        plain, weighed = scene_render(cell), scene_render(cell, cell_weights=True)
        features = torch.randn(60, 7)
        full = scene_render(cell, features=features, cell_weights=True)
        assert plain.cells is None and weighed.features is None
        assert weighed.cells is not None and full.cells is not None and full.features is not None
        for name in ("color", "alpha", "depth", "median_depth"):
            assert torch.equal(getattr(plain, name), getattr(weighed, name)), name
            assert torch.equal(getattr(plain, name), getattr(full, name)), name
        assert torch.equal(full.features, weighed.cells.blend(features))

    def test_through_kept_weights_are_those_through_the_feature_image(self) -> None:
        gradients = []
        for direct in (False, True):
            splats = random_splats(60, 40, 30, channels=5).to(FLOAT64, requires_grad=True)
            assert splats.features is not None
            image = blend_compiled(splats, cell=8, move=True)[4] if direct else None
            if image is None:
                image = cells_compiled(splats, 8, move=True).blend(splats.features)
            gradients.append(torch.autograd.grad(image.square().sum(), (splats.means2d, splats.features)))
        for a, b in zip(*gradients, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("channels", [1, 130])
def test_repeats_and_thread_counts_are_bit_equal(channels: int) -> None:
    splats = random_splats(5000, 80, 60, batch=2, scale=0.02).to(torch.float32)
    features = torch.randn(splats.radii.shape[1], channels, generator=torch.Generator().manual_seed(0))
    results = []
    for threads in (1, 2, 3, 2):
        torch.set_num_threads(threads)
        cells = cells_compiled(splats, 4)
        weights = cells.weights.clone().requires_grad_()
        image = dataclasses.replace(cells, weights=weights).blend(features)
        image.square().sum().backward()
        sums = features.clone()
        cells.accumulate(sums, image, 0.5, 0.1)
        results.append([cells.weights, image, weights.grad, cells.gather(image), sums, cells.totals()])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert a is not None and b is not None and torch.equal(a, b)
