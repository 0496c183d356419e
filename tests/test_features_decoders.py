"""Decoders: hand-computed cases, gradients, their start from a PCA, their inverse, their state."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from feature_gs.errors import UserError
from feature_gs.features.decoders import (
    DECODERS,
    Conv3x3Decoder,
    LinearDecoder,
    decoder_from_state,
    encoder_of,
    make_decoder,
    start_from_pca,
)


@dataclass
class Basis:
    """The two members of a PCA that a decoder starts from."""

    mean: Tensor
    components: Tensor


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed))


def orthonormal(rows: int, columns: int) -> Tensor:
    return torch.linalg.qr(draw(rows, columns, seed=rows).double())[0].float()


def test_none_hands_the_features_through() -> None:
    decoder = make_decoder("none", 3, 3)
    maps = draw(1, 4, 5, 3)
    assert torch.equal(decoder(maps), maps)
    assert torch.equal(decoder.decode_gaussians(maps[0, 0]), maps[0, 0])
    assert list(decoder.parameters()) == []


def test_linear_by_hand() -> None:
    decoder = decoder_from_state(
        "linear",
        2,
        3,
        {
            "weight": torch.tensor([[1.0, 2.0], [0.0, -1.0], [3.0, 0.0]]),
            "bias": torch.tensor([0.5, 0.0, -1.0]),
        },
    )
    maps = torch.tensor([[[[1.0, 10.0], [2.0, 0.0]]]])
    expected = torch.tensor([[[[21.5, -10.0, 2.0], [2.5, 0.0, 5.0]]]])
    assert torch.equal(decoder(maps), expected)
    assert torch.equal(decoder.decode_gaussians(maps[0, 0]), expected[0, 0])


def test_linear_decodes_a_blend_as_the_blend_of_decoded_gaussians() -> None:
    """The law behind queries of single Gaussians: weights that sum to 1 commute with the decoder."""
    decoder = make_decoder("linear", 4, 9, generator=generator())
    gaussians, weights = draw(6, 4), draw(6, seed=1).softmax(0)
    blended = decoder((weights @ gaussians)[None, None, None])[0, 0, 0]
    assert torch.allclose(blended, weights @ decoder.decode_gaussians(gaussians), atol=1e-6)


def test_conv3x3_by_hand() -> None:
    """One output channel that adds channel 0 of the cell above and twice channel 1 of the cell itself."""
    weight = torch.zeros(1, 2, 3, 3)
    weight[0, 0, 0, 1] = 1
    weight[0, 1, 1, 1] = 2
    decoder = decoder_from_state("conv3x3", 2, 1, {"weight": weight})
    maps = torch.tensor([[[[1.0, 5.0], [2.0, 6.0]], [[3.0, 7.0], [4.0, 8.0]]]])
    assert decoder(maps)[0, ..., 0].tolist() == [[10.0, 12.0], [15.0, 18.0]]
    assert decoder(maps).shape == (1, 2, 2, 1)


def test_conv3x3_refuses_single_gaussians_and_says_why() -> None:
    decoder = make_decoder("conv3x3", 2, 3)
    with pytest.raises(UserError, match="mixes neighbouring cells.*--decoder linear"):
        decoder.decode_gaussians(torch.zeros(5, 2))
    with pytest.raises(UserError, match="mixes neighbouring cells"):
        encoder_of(decoder)(torch.zeros(5, 3))


@pytest.mark.parametrize("kind", ["linear", "conv3x3"])
def test_gradients_are_exact(kind: str) -> None:
    decoder = make_decoder(kind, 2, 3, generator=generator()).double()
    maps = draw(2, 3, 4, 2).double().requires_grad_()
    assert torch.autograd.gradcheck(decoder, (maps,))
    names = [name for name, _ in decoder.named_parameters()]

    def of_parameters(*values: Tensor) -> Tensor:
        result = torch.func.functional_call(decoder, dict(zip(names, values, strict=True)), (maps,))
        assert isinstance(result, Tensor)
        return result

    assert torch.autograd.gradcheck(of_parameters, tuple(decoder.parameters()))


@pytest.mark.parametrize(("kind", "inputs"), [("linear", 16), ("conv3x3", 9 * 16)])
def test_random_start_is_that_of_torch_and_follows_the_generator(kind: str, inputs: int) -> None:
    one, two = (make_decoder(kind, 16, 50, generator=generator(3)) for _ in range(2))
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
    largest = one.get_parameter("weight").abs().max().item()
    assert 0.95 / inputs**0.5 < largest <= 1 / inputs**0.5


def test_start_from_a_pca_reproduces_rank_k_maps() -> None:
    basis = Basis(mean=draw(12), components=orthonormal(12, 4))
    features = draw(1, 5, 6, 4, seed=2)
    maps = features @ basis.components.t() + basis.mean
    decoder = make_decoder("linear", 4, 12, generator=generator())
    start_from_pca(decoder, basis)  # type: ignore[arg-type]
    assert torch.allclose(decoder(features), maps, atol=1e-6)
    projected = (maps - basis.mean) @ basis.components
    assert torch.allclose(encoder_of(decoder)(maps), projected, atol=1e-5)
    assert torch.allclose(decoder(encoder_of(decoder)(maps)), maps, atol=1e-5)


def test_start_from_a_pca_refuses_what_does_not_fit() -> None:
    basis = Basis(mean=torch.zeros(12), components=orthonormal(12, 4))
    with pytest.raises(ValueError, match=r"\[12, 5\], got \[12, 4\]"):
        start_from_pca(make_decoder("linear", 5, 12), basis)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="only a linear decoder"):
        start_from_pca(make_decoder("conv3x3", 4, 12), basis)  # type: ignore[arg-type]


def test_encoding_is_least_squares_and_smallest_where_it_is_not_unique() -> None:
    decoder = make_decoder("linear", 3, 8, generator=generator())
    targets = draw(10, 8)
    residual = decoder.decode_gaussians(encoder_of(decoder)(targets)) - targets
    weight = decoder.get_parameter("weight")
    assert (residual @ weight).abs().max() < 1e-5, "the residual is orthogonal to what can be decoded"

    twice = torch.tensor([[1.0, 1.0], [0.0, 0.0]])  # both features decode to the same
    decoder = decoder_from_state("linear", 2, 2, {"weight": twice, "bias": torch.zeros(2)})
    assert torch.allclose(encoder_of(decoder)(torch.tensor([4.0, 9.0])), torch.tensor([2.0, 2.0]))

    targets = draw(3, 4, 5)
    assert torch.equal(encoder_of(make_decoder("none", 5, 5))(targets), targets)


@pytest.mark.parametrize("kind", DECODERS)
def test_state_makes_the_same_decoder(kind: str) -> None:
    decoder = make_decoder(kind, 4, 4, generator=generator())
    again = decoder_from_state(kind, 4, 4, decoder.state_dict())
    maps = draw(1, 3, 3, 4)
    assert again.kind == kind and torch.equal(again(maps), decoder(maps))


def test_damaged_states_are_refused() -> None:
    state = make_decoder("linear", 4, 6).state_dict()
    for kind, features, channels, broken, message in (
        ("cubic", 4, 6, state, "unknown decoder"),
        ("conv3x3", 4, 6, state, "conv3x3 decoder 4 -> 6"),
        ("linear", 5, 6, state, "linear decoder 5 -> 6"),
        ("linear", 4, 6, {"weight": state["weight"]}, "linear decoder"),
        ("linear", 4, 6, {**state, "bias": torch.full((6,), torch.nan)}, "NaN"),
        ("none", 4, 6, {}, "all 6 channels"),
    ):
        with pytest.raises(ValueError, match=message):
            decoder_from_state(kind, features, channels, broken)


def test_impossible_requests_name_the_flag() -> None:
    with pytest.raises(UserError, match="--decoder takes none, linear, conv3x3"):
        make_decoder("mlp", 4, 4)
    with pytest.raises(UserError, match="--feature_dim 64 with --decoder none.*384"):
        make_decoder("none", 64, 384)


def test_decoders_are_torch_layers() -> None:
    """Against torch's own: linear as nn.functional.linear, conv3x3 as conv2d on channels first."""
    linear, conv = LinearDecoder(3, 5), Conv3x3Decoder(3, 5)
    for decoder in (linear, conv):
        for parameter in decoder.parameters():
            parameter.data.normal_(generator=generator())
    maps = draw(2, 4, 6, 3)
    assert torch.allclose(linear(maps), F.linear(maps, linear.weight, linear.bias), atol=1e-6)
    first = F.conv2d(maps.movedim(-1, 1).contiguous(), conv.weight, padding=1).movedim(1, -1)
    assert torch.allclose(conv(maps), first, atol=1e-5)
