"""Turned Gaussians: quaternions multiply, and spherical harmonics turn along."""

import math

import pytest
import torch
from torch import Tensor

from feature_gs.gaussians.geometry import multiply_quaternions, quaternion_about, rotate
from feature_gs.gaussians.sh_rotation import rotate_sh, wigner_matrix
from feature_gs.rasterizer.reference import rotation_matrices, sh_basis


def random_quaternion(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(4, generator=generator, dtype=torch.float64), dim=0)


def rotation_of(quat: Tensor) -> Tensor:
    return rotation_matrices(quat[None])[0]


def directions(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    vectors = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(vectors, dim=1)


@pytest.mark.parametrize("bands", [3, 8, 15])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_seen_from_a_turned_direction_turned_coefficients_look_the_same(bands: int, seed: int) -> None:
    rotation = rotation_of(random_quaternion(seed))
    coefficients = torch.randn(
        5, bands, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    seen_from = directions(40)
    before = torch.einsum("dk,nkc->dnc", sh_basis(seen_from, bands + 1)[:, 1:], coefficients)
    turned = rotate_sh(coefficients, rotation)
    after = torch.einsum("dk,nkc->dnc", sh_basis(seen_from @ rotation.T, bands + 1)[:, 1:], turned)
    assert torch.allclose(after, before, rtol=0, atol=1e-13)
    assert (turned - coefficients).abs().max() > 0.1


def test_wigner_matrices_are_orthogonal_keep_to_their_bands_and_multiply_as_rotations_do() -> None:
    one, other = rotation_of(random_quaternion(3)), rotation_of(random_quaternion(4))
    matrix = wigner_matrix(one)
    assert torch.allclose(matrix @ matrix.T, torch.eye(15, dtype=torch.float64), rtol=0, atol=1e-14)
    band = torch.tensor([1] * 3 + [2] * 5 + [3] * 7)
    assert matrix[band[:, None] != band].abs().max() < 1e-14
    assert torch.allclose(wigner_matrix(other @ one), wigner_matrix(other) @ matrix, rtol=0, atol=1e-14)


def test_a_quarter_turn_about_z_takes_x_to_y() -> None:
    quat = quaternion_about(torch.tensor([0.0, 0.0, 2.0]), 90)
    assert quat.tolist() == pytest.approx([math.sqrt(0.5), 0, 0, math.sqrt(0.5)])
    assert rotate(quat[None], torch.tensor([[1.0, 0, 0]]).double())[0].tolist() == pytest.approx([0, 1, 0])
    # Of band 1 the coefficients are of -y, z, -x: what was -x becomes -y.
    turned = rotate_sh(torch.tensor([0.0, 0.5, 1.0])[None, :, None], rotation_of(quat))
    assert turned.flatten().tolist() == pytest.approx([1, 0.5, 0])


def test_quaternions_multiply_in_the_order_of_the_turns() -> None:
    first, then = random_quaternion(5), random_quaternion(6)
    vectors = directions(7)
    both = multiply_quaternions(3 * first.expand(7, 4), then)
    one_by_one = rotate(then.expand(7, 4), rotate(first.expand(7, 4), vectors))
    assert torch.allclose(rotate(both, vectors), one_by_one, rtol=0, atol=1e-14)
    assert torch.allclose(both.norm(dim=1), torch.full((7,), 3.0, dtype=torch.float64))
