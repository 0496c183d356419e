"""Laws of editing: others keep every bit, there and back is where it was, pictures turn with the scene."""

import math

import pytest
import torch
from edited import make_cloud, make_field, picture, some_of, turned
from torch import Tensor

from feature_gs.editing import Cloud
from feature_gs.editing.cloud import PARAMETERS, features_fit
from feature_gs.editing.colours import named_colour, painted
from feature_gs.editing.operations import centre, delete, extract, fade, recolour, rotate, scale, translate
from feature_gs.evaluation import psnr
from feature_gs.features.decoders import LinearDecoder
from feature_gs.features.field import FeatureField
from feature_gs.gaussians.geometry import quaternion_about
from feature_gs.gaussians.sh import SH_C0
from feature_gs.rasterizer.reference import rotation_matrices

pytestmark = pytest.mark.usefixtures("one_thread")

QUAT = quaternion_about(torch.tensor([0.3, -1.0, 0.6]), 73)
POINT = torch.tensor([0.4, -0.2, 0.7])
SWAP = torch.eye(3)[[2, 1, 0]]
EDITS = {
    "recolour": lambda cloud, some: recolour(cloud, some, SWAP * 0.7, torch.tensor([0.1, 0, 0.2])),
    "translate": lambda cloud, some: translate(cloud, some, POINT),
    "rotate": lambda cloud, some: rotate(cloud, some, QUAT, POINT),
    "scale": lambda cloud, some: scale(cloud, some, 1.7, POINT),
    "fade": lambda cloud, some: fade(cloud, torch.where(some, 0.5, 1.0)),
}


def same(one: Cloud, other: Cloud, rows: Tensor | slice = slice(None)) -> bool:
    pairs = [(getattr(one.model, name)[rows], getattr(other.model, name)[rows]) for name in PARAMETERS]
    assert one.field is not None and other.field is not None
    pairs += [(one.field.features[rows], other.field.features[rows])]
    pairs += [(one.field.seen[rows], other.field.seen[rows])]
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_changes_what_is_selected_and_no_bit_of_the_rest(name: str) -> None:
    cloud, _ = make_cloud()
    before, some = make_cloud()[0], some_of(cloud)
    after = EDITS[name](cloud, some)
    assert same(after, cloud, ~some)
    assert not same(after, cloud, some)
    assert same(cloud, before)  # the cloud that was given stays as it is
    assert after.field is cloud.field


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_of_nothing_is_nothing(name: str) -> None:
    cloud, camera = make_cloud()
    after = EDITS[name](cloud, torch.zeros(len(cloud), dtype=torch.bool))
    assert same(after, cloud)
    assert torch.equal(picture(after, camera), picture(cloud, camera))


def test_edits_that_change_nothing_keep_every_bit() -> None:
    cloud, camera = make_cloud()
    logits = cloud.model.logit_opacities.detach().clone()
    logits[:3] = torch.tensor([30.0, -30.0, 17.3])  # beyond what an opacity in single precision can say
    cloud = cloud.changed(logit_opacities=logits)
    everything = torch.ones(len(cloud), dtype=torch.bool)
    for after in (
        fade(cloud, torch.ones(len(cloud))),
        recolour(cloud, everything, torch.eye(3), torch.zeros(3)),
        recolour(recolour(cloud, everything, SWAP, torch.zeros(3)), everything, SWAP, torch.zeros(3)),
        translate(cloud, everything, torch.zeros(3)),
        extract(cloud, everything),
        delete(cloud, ~everything),
    ):
        assert same(after, cloud)
        assert torch.equal(picture(after, camera), picture(cloud, camera))


def test_there_and_back_is_where_it_was() -> None:
    cloud, _ = make_cloud()
    some = some_of(cloud)
    about = centre(cloud, some)
    back = QUAT * torch.tensor([1.0, -1, -1, -1])
    for after in (
        translate(translate(cloud, some, 3 * POINT), some, -3 * POINT),
        rotate(rotate(cloud, some, QUAT, about), some, back, about),
        rotate(rotate(cloud, some, QUAT, POINT), some, 5 * back, POINT),
        scale(scale(cloud, some, 3.1, POINT), some, 1 / 3.1, POINT),
    ):
        for name in PARAMETERS:
            error = (getattr(after.model, name) - getattr(cloud.model, name)).abs().max()
            assert error <= 1e-5, name


def test_scene_and_camera_moved_together_show_the_same() -> None:
    for seed in range(3):
        cloud, camera = make_cloud(seed)
        everything = torch.ones(len(cloud), dtype=torch.bool)
        moved = translate(rotate(cloud, everything, QUAT, torch.zeros(3)), everything, POINT)
        camera_there = turned(camera, rotation_matrices(QUAT[None])[0], POINT.double())
        first, second = picture(cloud, camera), picture(moved, camera_there)
        assert first.std() > 0.1
        assert psnr(first, second) >= 50
        # The colours do depend on the direction: without their turn the picture would be another.
        unturned = moved.changed(sh_rest=cloud.model.sh_rest.detach())
        assert psnr(first, picture(unturned, camera_there)) < 35


def test_scene_scaled_and_camera_moved_away_show_the_same() -> None:
    cloud, camera = make_cloud()
    larger = scale(cloud, torch.ones(len(cloud), dtype=torch.bool), 2.5, torch.zeros(3))
    pose = camera.cam_from_world.clone()
    pose[:3, 3] *= 2.5
    farther = type(camera)(camera.name, camera.width, camera.height, camera.K, pose)
    assert psnr(picture(cloud, camera), picture(larger, farther)) >= 50


def test_delete_and_extract_partition_the_scene() -> None:
    cloud, camera = make_cloud()
    some = some_of(cloud)
    without, only = delete(cloud, some), extract(cloud, some)
    assert len(without) + len(only) == len(cloud)
    assert only.field is not None and cloud.field is not None
    assert torch.equal(only.model.means, cloud.model.means[some])
    assert torch.equal(only.field.features, cloud.field.features[some])
    assert torch.equal(only.field.seen, cloud.field.seen[some])
    order = torch.cat([torch.nonzero(~some), torch.nonzero(some)])[:, 0]
    assert same(without.joined(only), cloud.take(order))
    # Put together again they show what was there: Gaussians are drawn by depth, not by their number.
    assert torch.equal(picture(without.joined(only), camera), picture(cloud, camera))


def test_recolour_maps_what_is_seen_from_every_side() -> None:
    cloud, camera = make_cloud()
    matrix = torch.tensor([[0.2, 0.5, 0.1], [0.0, 0.3, 0.1], [0.4, 0.1, 0.3]])
    offset = torch.tensor([0.05, 0.3, 0.1])
    # Colours that no clamping at 0 touches, seen before black: over alpha the map is affine.
    pale = cloud.changed(sh_dc=cloud.model.sh_dc * 0.2 + 0.5, sh_rest=cloud.model.sh_rest * 0.2)
    after = recolour(pale, torch.ones(len(pale), dtype=torch.bool), matrix, offset)
    with torch.no_grad():
        alpha = picture(
            pale.changed(
                sh_dc=torch.full_like(pale.model.sh_dc, 0.5 / SH_C0),
                sh_rest=torch.zeros_like(pale.model.sh_rest),
            ),
            camera,
        )[..., :1]
    expected = picture(pale, camera) @ matrix.T + alpha * offset
    assert torch.allclose(picture(after, camera), expected, atol=1e-5)


def test_a_channel_swap_swaps_channels_in_all_bands() -> None:
    cloud, camera = make_cloud()
    after = recolour(cloud, torch.ones(len(cloud), dtype=torch.bool), SWAP, torch.zeros(3))
    assert torch.equal(picture(after, camera), picture(cloud, camera).flip(2))


def test_painting_gives_the_mean_the_colour_and_keeps_the_texture() -> None:
    cloud, _ = make_cloud()
    some = some_of(cloud)
    cloud = cloud.changed(sh_dc=cloud.model.sh_dc * 0.2)
    rgb = named_colour("orange")
    assert rgb.tolist() == pytest.approx([1, 165 / 255, 0])
    after = recolour(cloud, some, *painted(cloud, some, rgb))
    colours = 0.5 + SH_C0 * after.model.sh_dc.detach()[some]
    weights = cloud.model.opacities.detach()[some][:, None]
    mean = (weights * colours).sum(0) / weights.sum()
    assert torch.allclose(mean.double(), rgb, atol=1e-4)
    before = (0.5 + SH_C0 * cloud.model.sh_dc.detach()[some]) @ torch.tensor([0.2126, 0.7152, 0.0722])
    assert torch.corrcoef(torch.stack([before, colours[:, 0]]))[0, 1] > 0.999
    assert colours[:, 0].std() > 0.02
    black = recolour(cloud, some, *painted(cloud, some, named_colour("black")))
    assert (0.5 + SH_C0 * black.model.sh_dc[some]).abs().max() < 1e-6
    with pytest.raises(ValueError, match="reddish"):
        named_colour("reddish")


def test_fading_multiplies_opacities() -> None:
    cloud, _ = make_cloud()
    factors = torch.linspace(0, 3, len(cloud))
    after = fade(cloud, factors).model.opacities
    expected = (cloud.model.opacities * factors).clamp(max=1 - 1e-7)
    assert torch.allclose(after, expected, atol=1e-6)
    assert after[0] < 1e-9


def test_the_centre_is_weighted_by_opacity() -> None:
    cloud, _ = make_cloud()
    some = torch.zeros(len(cloud), dtype=torch.bool)
    some[:2] = True
    means = torch.zeros(len(cloud), 3)
    means[1, 0] = 1
    logits = torch.full((len(cloud),), math.log(1 / 3))  # opacity 1 / 4
    logits[1] = math.log(3)  # 3 / 4
    assert centre(cloud.changed(means=means, logit_opacities=logits), some)[0].item() == pytest.approx(0.75)


def test_clouds_of_other_sh_degrees_join() -> None:
    one, camera = make_cloud(0, bands=4)
    other, _ = make_cloud(1, bands=16)
    joined = one.joined(other)
    assert joined.model.sh_degree == joined.model.active_sh_degree == 3
    assert torch.equal(joined.model.sh_rest[: len(one), :3], one.model.sh_rest)
    assert not joined.model.sh_rest[: len(one), 3:].any()
    rows = torch.arange(len(joined)) < len(one)
    assert torch.equal(picture(joined.take(rows), camera), picture(one, camera))


def replace_field(cloud: Cloud, field: FeatureField | None) -> Cloud:
    return Cloud(cloud.model, field)


def test_joined_features_come_into_the_space_of_the_first() -> None:
    one, other = make_cloud(0)[0], make_cloud(1)[0]
    assert one.field is not None and other.field is not None
    joined = one.joined(other).field
    assert joined is not None
    assert torch.equal(joined.features, torch.cat([one.field.features, other.field.features]))
    assert torch.equal(joined.seen, torch.cat([one.field.seen, other.field.seen]))

    # 5 channels carried as 3: what they decode to is what the other says, where it can be said.
    linear = make_field(len(one), 5, 2, "linear")
    guest = make_field(len(other), 5, 3, "linear")
    joined = replace_field(one, linear).joined(replace_field(other, guest)).field
    assert joined is not None and isinstance(joined.decoder, LinearDecoder)
    said = guest.decoder.decode_gaussians(guest.features)
    weight, bias = joined.decoder.weight.detach(), joined.decoder.bias.detach()
    best = torch.linalg.lstsq(weight, (said - bias).T).solution.T
    assert torch.allclose(joined.features[len(one) :], best, atol=1e-4)
    assert torch.equal(joined.features[: len(one)], linear.features)


def test_features_of_another_teacher_are_not_believed() -> None:
    one, other = make_cloud(0)[0], make_cloud(1, channels=6)[0]
    assert one.field is not None and not features_fit(one.field, other.field)
    for guest in (other, replace_field(other, None)):
        joined = one.joined(guest).field
        assert joined is not None and joined.features.shape == (len(one) + len(guest), 5)
        assert not joined.features[len(one) :].any() and not joined.seen[len(one) :].any()
    assert replace_field(one, None).joined(other).field is None
