"""What torch asks of ops: shapes without data, gradients, compilation; and errors instead of crashes."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from random_scenes import random_scene, weights_like
from splats import Splats, intersect_arguments, random_splats
from splats import rasterize_arguments as splat_arguments
from torch import Tensor

from feature_gs.rasterizer import RenderOutput, rasterize, ssim

ops = torch.ops.feature_gs
FORWARD_OPS = ("project", "intersect", "rasterize", "ssim")


def project_arguments(requires_grad: bool, sh_bands: int = 4) -> tuple[Any, ...]:
    scene = random_scene(30, 37, 21, batch=2, sh_bands=sh_bands)
    if requires_grad:
        scene.requires_grad()
    gaussians = (scene.means, scene.quats, scene.scales, scene.opacities, scene.sh_dc, scene.sh_rest)
    return (*gaussians, scene.cam_from_world, scene.K, scene.width, scene.height, 0.2, math.inf, True)


def rasterize_arguments(splats: Splats, cell: int, absgrad: bool = True) -> tuple[Any, ...]:
    lists = ops.intersect(*intersect_arguments(splats))
    stand_in = torch.zeros_like(splats.means2d).requires_grad_() if absgrad else None
    return splat_arguments(splats, lists, cell, True, stand_in)


def tiny_splats(requires_grad: bool = True) -> Splats:
    splats = random_splats(20, 21, 18, channels=3, batch=2, kinds=False, scale=0.2)
    return splats.to(torch.float64, requires_grad=requires_grad)


class TestOpcheck:
    @pytest.mark.parametrize("requires_grad", [False, True])
    @pytest.mark.parametrize("sh_bands", [1, 4])
    def test_project(self, opcheck: Callable[..., Any], requires_grad: bool, sh_bands: int) -> None:
        opcheck(ops.project.default, project_arguments(requires_grad, sh_bands))

    @pytest.mark.parametrize("sh_bands", [1, 4])
    def test_project_backward(self, opcheck: Callable[..., Any], sh_bands: int) -> None:
        args = project_arguments(False, sh_bands)
        outputs = ops.project(*args)
        grads = [weights_like(output, i) for i, output in enumerate(outputs[:5])]
        opcheck(ops.project_backward.default, (*grads, *args, outputs[3], outputs[5]))

    def test_intersect(self, opcheck: Callable[..., Any]) -> None:
        opcheck(ops.intersect.default, intersect_arguments(tiny_splats()))

    @pytest.mark.parametrize("requires_grad", [False, True])
    @pytest.mark.parametrize("cell", [1, 2, 4, 16])
    def test_rasterize(self, opcheck: Callable[..., Any], requires_grad: bool, cell: int) -> None:
        opcheck(ops.rasterize.default, rasterize_arguments(tiny_splats(requires_grad), cell, requires_grad))

    def test_rasterize_without_features_and_background(self, opcheck: Callable[..., Any]) -> None:
        splats = tiny_splats()
        splats.features = splats.background = None
        opcheck(ops.rasterize.default, rasterize_arguments(splats, 1, absgrad=False))

    @pytest.mark.parametrize("cell", [1, 4])
    def test_rasterize_backward(self, opcheck: Callable[..., Any], cell: int) -> None:
        args = rasterize_arguments(tiny_splats(requires_grad=False), cell, absgrad=False)
        color, alpha, depth, _, features, transmittance, last, weights = ops.rasterize(*args)
        grads: list[Tensor | None] = [
            weights_like(output, i) for i, output in enumerate((color, alpha, depth))
        ]
        grads += [weights_like(features, 3), None] if cell == 1 else [None, weights_like(weights, 3)]
        saved = (*args[:7], *args[8:12], alpha, depth, transmittance, last)
        opcheck(ops.rasterize_backward.default, (*grads, *saved, *args[12:], True, cell == 1))

    @pytest.mark.parametrize("requires_grad", [False, True])
    def test_ssim(self, opcheck: Callable[..., Any], requires_grad: bool) -> None:
        image, target = torch.rand(2, 2, 13, 9, 3, dtype=torch.float64)
        opcheck(ops.ssim.default, (image.requires_grad_(requires_grad), target))

    def test_ssim_backward(self, opcheck: Callable[..., Any]) -> None:
        image, target = torch.rand(2, 2, 13, 9, 3)
        _, *maps = ops.ssim(image, target)
        opcheck(ops.ssim_backward.default, (torch.rand(2), image, target, *maps))


def scene_arguments(dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    scene = random_scene(60, 40, 30, kinds=False).to(dtype)
    return {
        "means": scene.means,
        "quats": scene.quats,
        "scales": scene.scales,
        "opacities": scene.opacities,
        "cam_from_world": scene.cam_from_world,
        "K": scene.K,
        "width": scene.width,
        "height": scene.height,
        "sh": (scene.sh_dc, scene.sh_rest),
        "features": weights_like(torch.empty(scene.means.shape[0], 5), 2).to(dtype),
    }


def test_compiles_without_graph_breaks() -> None:
    args = scene_arguments()
    target = torch.rand(1, 30, 40, 3)

    def step(means: Tensor, features: Tensor) -> Tensor:
        output = rasterize(**{**args, "means": means, "features": features, "feature_cell": 4})
        assert output.features is not None
        similarity = ssim(output.color, target).mean()
        return output.color.mean() + output.depth.mean() + output.features.square().mean() - similarity

    results = []
    for call in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        means = args["means"].clone().requires_grad_()
        features = args["features"].clone().requires_grad_()
        loss = call(means, features)
        results.append((loss, *torch.autograd.grad(loss, (means, features))))
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(eager, compiled)


@pytest.mark.parametrize("name", FORWARD_OPS)
def test_shapes_are_known_without_data(name: str) -> None:
    splats = tiny_splats(requires_grad=False)
    args: dict[str, tuple[Any, ...]] = {
        "project": project_arguments(False),
        "rasterize": rasterize_arguments(splats, 4),
        "ssim": (torch.rand(2, 9, 8, 3), torch.rand(2, 9, 8, 3)),
        "intersect": intersect_arguments(splats),
    }
    op = getattr(ops, name)
    if name == "intersect":  # the number of pairs depends on the data
        with pytest.raises(Exception, match="[Dd]ynamic|data-dependent|get_ctx|symint|ShapeEnv"):
            op(*(x.to("meta") if isinstance(x, Tensor) else x for x in args[name]))
        return
    expected = op(*args[name])
    actual = op(*(x.to("meta") if isinstance(x, Tensor) else x for x in args[name]))
    for a, e in zip(actual, expected, strict=True):
        assert a.shape == e.shape and a.dtype == e.dtype and a.device.type == "meta"


def test_sh_may_be_one_tensor_or_a_pair() -> None:
    args = scene_arguments()
    dc, rest = args["sh"]
    whole = torch.cat([dc[:, None], rest], dim=1)
    assert torch.equal(rasterize(**{**args, "sh": whole}).color, rasterize(**args).color)
    no_rest = rasterize(**{**args, "sh": (dc, rest[:, :0])}).color
    assert torch.equal(no_rest, rasterize(**{**args, "sh": dc[:, None]}).color)


def test_colours_are_used_as_they_are() -> None:
    args = scene_arguments(torch.float64)
    del args["sh"]
    colors = weights_like(torch.empty(args["means"].shape[0], 3), 1) * 5  # some negative, some above 1
    output = rasterize(**args, colors=colors)
    as_features = rasterize(**{**args, "features": colors})
    torch.testing.assert_close(output.color, as_features.features)
    assert not as_features.color.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_features_stored_in_half_precision_are_blended_as_float32(dtype: torch.dtype) -> None:
    args = scene_arguments()
    stored = args["features"].to(dtype).requires_grad_()
    output = rasterize(**{**args, "features": stored}, feature_cell=4)
    expected = rasterize(**{**args, "features": stored.detach().float()}, feature_cell=4)
    assert output.features is not None and expected.features is not None
    assert output.features.dtype == torch.float32 and torch.equal(output.features, expected.features)
    output.features.sum().backward()
    assert stored.grad is not None and stored.grad.dtype == dtype and stored.grad.any()


def test_strides_do_not_matter() -> None:
    args = scene_arguments()
    expected = rasterize(**args, feature_cell=2)
    strided = dict(args)
    for name in ("means", "quats", "scales", "features", "cam_from_world", "K"):
        strided[name] = args[name].transpose(0, -1).contiguous().transpose(0, -1)
    strided["opacities"] = args["opacities"].repeat_interleave(3)[::3]
    actual = rasterize(**strided, feature_cell=2)
    assert expected.features is not None and actual.features is not None
    assert torch.equal(actual.color, expected.color) and torch.equal(actual.features, expected.features)


def test_gradients_of_expanded_outputs_are_followed() -> None:
    # sum() sends back a gradient without memory of its own
    args = scene_arguments(torch.float64)
    gradients = []
    for reduce in (lambda x: x.sum(), lambda x: (x * torch.ones_like(x)).sum()):
        means = args["means"].clone().requires_grad_()
        output = rasterize(**{**args, "means": means})
        assert output.features is not None
        (reduce(output.color) + reduce(output.depth)).backward()
        gradients.append(means.grad)
    torch.testing.assert_close(*gradients)


def test_nothing_to_draw() -> None:
    args = scene_arguments()
    empty: dict[str, Any] = {
        name: tuple(part[:0] for part in value) if name == "sh" else value for name, value in args.items()
    }
    for name in ("means", "quats", "scales", "opacities", "features"):
        empty[name] = args[name][:0].clone().requires_grad_()
    background = torch.tensor([0.1, 0.2, 0.3])
    for cell in (1, 2, 4, 16):
        output = rasterize(**empty, background=background, feature_cell=cell, absgrad=True)
        assert output.features is not None and output.features.shape == (1, -(-30 // cell), -(-40 // cell), 5)
        assert not output.alpha.any() and not output.depth.any() and not output.features.any()
        assert torch.equal(output.color, background.expand(1, 30, 40, 3))
        (output.color.sum() + output.features.sum()).backward()
    no_cameras = {**args, "cam_from_world": args["cam_from_world"][:0], "K": args["K"][:0]}
    assert rasterize(**no_cameras).color.shape == (0, 30, 40, 3)


@pytest.mark.parametrize("field", ["means", "quats", "scales", "opacities", "sh"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_gaussians_that_are_not_finite_are_as_if_absent(field: str, value: float) -> None:
    args = scene_arguments()
    victim = int(rasterize(**args).radii[0].argmax())
    broken: dict[str, Any] = {k: v.clone() if isinstance(v, Tensor) else v for k, v in args.items()}
    broken["sh"] = tuple(part.clone() for part in args["sh"])
    (broken["sh"][1] if field == "sh" else broken[field])[victim].view(-1)[0] = value
    leaves = [broken[k] for k in ("means", "quats", "scales", "opacities")] + list(broken["sh"])
    for leaf in leaves:
        leaf.requires_grad_()
    absent = {**args, "opacities": args["opacities"].clone()}
    absent["opacities"][victim] = 0
    output, expected = rasterize(**broken), rasterize(**absent)
    assert torch.equal(output.color, expected.color) and torch.equal(output.radii, expected.radii)
    (output.color.sum() + output.depth.sum()).backward()
    for leaf in leaves:
        assert leaf.grad is not None and torch.isfinite(leaf.grad).all() and not leaf.grad[victim].any()


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "means of two coordinates": ({"means": torch.zeros(60, 2)}, r"means must be \[60, 3\], got \[60, 2\]"),
    "too few quaternions": ({"quats": torch.zeros(59, 4)}, r"quats must be \[60, 4\], got \[59, 4\]"),
    "isotropic scales": ({"scales": torch.zeros(60)}, r"scales must be \[60, 3\], got \[60\]"),
    "opacities as a column": ({"opacities": torch.zeros(60, 1)}, r"opacities must be \[60\], got \[60, 1\]"),
    "one pose": ({"cam_from_world": torch.eye(4)}, "cam_from_world must be"),
    "poses of three rows": ({"cam_from_world": torch.zeros(1, 3, 4)}, "cam_from_world must be"),
    "more intrinsics than poses": ({"K": torch.zeros(2, 3, 3)}, r"K must be \[1, 3, 3\], got \[2, 3, 3\]"),
    "other precision": ({"scales": torch.zeros(60, 3).double()}, "scales must be torch.float32"),
    "half precision": ({"means": torch.zeros(60, 3).half()}, "means must be float32 or float64"),
    "whole numbers": ({"opacities": torch.zeros(60).int()}, "opacities must be float32 or float64"),
    "other device": ({"quats": torch.zeros(60, 4, device="meta")}, "quats must be torch.float32 on cpu"),
    "features of another scene": (
        {"features": torch.zeros(61, 5)},
        r"features must be \[60, 5\], got \[61, 5\]",
    ),
    "features without channels": ({"features": torch.zeros(60, 0)}, "at least one channel"),
    "features of one channel, flat": ({"features": torch.zeros(60)}, "features must be"),
    "cell of 3": ({"feature_cell": 3}, "feature_cell must be one of"),
    "cell of 32": ({"feature_cell": 32}, "feature_cell must be one of"),
    "grey background": ({"background": torch.zeros(1)}, r"background must be \[3\]"),
    "no columns": ({"width": 0}, "at least one pixel"),
    "negative height": ({"height": -1}, "at least one pixel"),
    "colours and harmonics": ({"colors": torch.zeros(60, 3)}, "colors or sh"),
    "wrong colours": ({"colors": torch.zeros(60, 4), "sh": None}, r"colors must be \[60, 3\]"),
    "five harmonics": ({"sh": torch.zeros(60, 5, 3)}, "1, 4, 9 or 16"),
    "flat harmonics": ({"sh": torch.zeros(60, 12)}, "sh must be"),
    "harmonics of another scene": ({"sh": torch.zeros(61, 4, 3)}, r"sh .* must be \[60, 3\]"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_inputs_are_named(case: str) -> None:
    changes, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        rasterize(**{**scene_arguments(), **changes})


@pytest.mark.usefixtures("checked_lists")
@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("damage", ["huge", "negative", "short", "float"])
def test_lists_that_lead_outside_memory_are_refused(which: int, damage: str) -> None:
    args = list(rasterize_arguments(tiny_splats(requires_grad=False), 4))
    broken = args[8 + which].clone()
    if damage == "huge":
        broken[broken.numel() // 2] = 2**31 - 1
    elif damage == "negative":
        broken[broken.numel() // 2] = -1
    elif damage == "short":
        broken = broken[:-1]
    else:
        broken = broken.double()
    args[8 + which] = broken
    with pytest.raises(RuntimeError, match="must"):
        ops.rasterize(*args)


@pytest.mark.parametrize("cell", [4, 8, 16])
def test_features_of_large_cells_are_left_to_blend_cells(cell: int) -> None:
    args = list(rasterize_arguments(tiny_splats(requires_grad=False), cell))
    args[5] = torch.ones(20, 3, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="features must be absent for cells of 4 pixels or more"):
        ops.rasterize(*args)


@pytest.mark.parametrize("size", [(2**62, 8), (8, 2**62), (2**24, 2**24), (2**24 + 1, 1)])
def test_images_of_more_tiles_than_numbers_are_refused(size: tuple[int, int]) -> None:
    splats = tiny_splats(requires_grad=False)
    with pytest.raises(RuntimeError, match="must have"):
        ops.intersect(*intersect_arguments(splats)[:5], *size)
    args = rasterize_arguments(splats, 4)
    with pytest.raises(RuntimeError, match="must have"):
        ops.rasterize(*args[:12], *size, *args[14:])


def test_output_is_documented() -> None:
    output = rasterize(**scene_arguments(), feature_cell=8, absgrad=True, cell_weights=True)
    assert isinstance(output, RenderOutput)
    assert output.cells is not None and output.cells.shape == (1, 4, 5) and output.cells.count == 60
    count = 60
    shapes = {
        "color": (1, 30, 40, 3),
        "alpha": (1, 30, 40),
        "depth": (1, 30, 40),
        "median_depth": (1, 30, 40),
        "features": (1, 4, 5, 5),
        "radii": (1, count),
        "means2d": (1, count, 2),
        "absgrad": (1, count, 2),
    }
    for name, shape in shapes.items():
        assert getattr(output, name).shape == shape, name
