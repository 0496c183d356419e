"""From the few channels that a Gaussian carries to the teacher's many, and back."""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from feature_gs.errors import UserError
from feature_gs.features.pca import Pca, fit_pca, thinned

DECODERS = ("none", "linear", "conv3x3")


class Decoder(nn.Module):
    """Decodes rendered features of `features` channels to the `channels` of a teacher.

    Its state (`state_dict`) is `weight` and `bias` for linear, `weight` for conv3x3, nothing for none.

    Attributes:
        kind: One of DECODERS.
        features: Channels that a Gaussian carries, c.
        channels: Channels of the teacher, C.
    """

    kind: str

    def __init__(self, features: int, channels: int) -> None:
        super().__init__()
        if min(features, channels) < 1:
            raise ValueError(f"a decoder needs at least one channel each, got {features} and {channels}")
        self.features = features
        self.channels = channels

    @abstractmethod
    def forward(self, maps: Tensor) -> Tensor:  # [B, h, w, c]
        """Decodes rendered maps, [B, h, w, c] -> [B, h, w, C]."""

    def decode_gaussians(self, features: Tensor) -> Tensor:  # [N, c]
        """Decodes the features of single Gaussians, [N, c] -> [N, C].

        Raises:
            UserError: The decoder is conv3x3, which looks at neighbouring cells.
        """
        return self(features[None, None])[0, 0]


class NoDecoder(Decoder):
    """Gaussians carry the teacher's own channels."""

    kind = "none"

    def __init__(self, features: int, channels: int) -> None:
        super().__init__(features, channels)
        if features != channels:
            raise ValueError(f"without a decoder Gaussians carry all {channels} channels, got {features}")

    def forward(self, maps: Tensor) -> Tensor:  # [B, h, w, c]
        """The maps themselves."""
        return maps


class LinearDecoder(Decoder):
    """A 1x1 convolution with bias: one matrix product, for a cell as for a single Gaussian."""

    kind = "linear"

    def __init__(self, features: int, channels: int) -> None:
        super().__init__(features, channels)
        self.weight = nn.Parameter(torch.zeros(channels, features))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, maps: Tensor) -> Tensor:  # [B, h, w, c]
        """Decodes rendered maps, [B, h, w, c] -> [B, h, w, C]."""
        rows = torch.addmm(self.bias, maps.reshape(-1, self.features), self.weight.t())
        return rows.view(*maps.shape[:-1], self.channels)


class Conv3x3Decoder(Decoder):
    """A 3x3 convolution over neighbouring cells, padded with zeros, without bias (as FiT3D trains)."""

    kind = "conv3x3"

    def __init__(self, features: int, channels: int) -> None:
        super().__init__(features, channels)
        self.weight = nn.Parameter(torch.zeros(channels, features, 3, 3))

    def forward(self, maps: Tensor) -> Tensor:  # [B, h, w, c]
        """Decodes rendered maps, [B, h, w, c] -> [B, h, w, C]."""
        return F.conv2d(maps.permute(0, 3, 1, 2), self.weight, padding=1).permute(0, 2, 3, 1)

    def decode_gaussians(self, features: Tensor) -> Tensor:  # [N, c]
        """Always raises a UserError: a single Gaussian has no neighbouring cells."""
        raise UserError(
            "a conv3x3 decoder mixes neighbouring cells of a rendered map, so it cannot decode a single "
            "Gaussian. Decode rendered maps, or train with --decoder linear or --decoder none."
        )


_KINDS: dict[str, type[Decoder]] = {cls.kind: cls for cls in (NoDecoder, LinearDecoder, Conv3x3Decoder)}


def check_channels(kind: str, features: int, channels: int, *, pca: bool = False) -> None:
    """Raises UserError where a Gaussian's channels do not fit the teacher's.

    Args:
        kind: One of DECODERS.
        features: Channels that a Gaussian carries, c.
        channels: Channels of the teacher, C.
        pca: Whether a linear decoder is to start from principal components.
    """
    if kind == "none" and features != channels:
        raise UserError(
            f"--feature_dim {features} with --decoder none: without a decoder Gaussians carry all "
            f"{channels} channels of the teacher. Choose --decoder linear, or leave out --feature_dim."
        )
    if kind == "linear" and pca and features > channels:
        raise UserError(
            f"--feature_dim {features}: the teacher has only {channels} channels to be decoded from fewer. "
            f"Choose at most {channels}, or --decoder none."
        )


def make_decoder(
    kind: str, features: int, channels: int, *, generator: torch.Generator | None = None
) -> Decoder:
    """A decoder with a random start, uniform in +-1 / sqrt(inputs of one output) as torch's own layers.

    Args:
        kind: One of DECODERS.
        features: Channels that a Gaussian carries, c.
        channels: Channels of the teacher, C; equal to `features` for none.
        generator: Source of the random numbers; torch's global one when None.

    Raises:
        UserError: There is no such kind, or the channels do not fit it.
    """
    if kind not in _KINDS:
        raise UserError(f"there is no decoder {kind!r}: --decoder takes {', '.join(DECODERS)}.")
    check_channels(kind, features, channels)
    decoder = _KINDS[kind](features, channels)
    limit = 1 / math.sqrt(features * (9 if kind == "conv3x3" else 1))
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.uniform_(-limit, limit, generator=generator)
    return decoder


def decoder_from_state(kind: str, features: int, channels: int, state: Mapping[str, Tensor]) -> Decoder:
    """The decoder whose `state_dict` was stored.

    Args:
        kind: One of DECODERS.
        features: Channels that a Gaussian carries, c.
        channels: Channels of the teacher, C.
        state: What `state_dict()` gave; any floating type.

    Raises:
        ValueError: Kind, names or shapes do not fit each other, or a value is not finite.
    """
    if kind not in _KINDS:
        raise ValueError(f"unknown decoder {kind!r}")
    shapes: dict[str, dict[str, tuple[int, ...]]] = {
        "none": {},
        "linear": {"weight": (channels, features), "bias": (channels,)},
        "conv3x3": {"weight": (channels, features, 3, 3)},
    }
    expected, got = shapes[kind], {name: tuple(tensor.shape) for name, tensor in state.items()}
    if got != expected:
        raise ValueError(f"a {kind} decoder {features} -> {channels} holds {expected}, got {got}")
    if not all(bool(torch.isfinite(tensor).all()) for tensor in state.values()):
        raise ValueError(f"the {kind} decoder holds a NaN or an infinity")
    decoder = _KINDS[kind](features, channels)
    decoder.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return decoder


@torch.no_grad()
def start_from_pca(decoder: Decoder, pca: Pca) -> None:
    """Sets a linear decoder to reconstruct what the PCA projected: weight = components, bias = mean.

    Raises:
        ValueError: The decoder is not linear, or PCA and decoder have other channels.
    """
    if not isinstance(decoder, LinearDecoder):
        raise ValueError(f"only a linear decoder can start from a PCA, got {decoder.kind}")
    if pca.components.shape != decoder.weight.shape:
        expected, got = list(decoder.weight.shape), list(pca.components.shape)
        raise ValueError(f"the PCA's components must be {expected}, got {got}")
    decoder.weight.copy_(pca.components)
    decoder.bias.copy_(pca.mean)


def pca_decoder(maps: Iterable[Tensor], features: int, channels: int) -> LinearDecoder:
    """A linear decoder at the principal components of a teacher's maps.

    Args:
        maps: The maps [C, h, w], looked at one after the other; a few thousand cells of each are enough.
        features: Channels that a Gaussian carries, c.
        channels: Channels of the teacher, C.

    Raises:
        UserError: There are more components than channels.
    """
    check_channels("linear", features, channels, pca=True)
    decoder = LinearDecoder(features, channels)
    start_from_pca(decoder, fit_pca(map(thinned, maps), features))
    return decoder


@torch.no_grad()
def encoder_of(decoder: Decoder) -> Callable[[Tensor], Tensor]:
    """What leads from the teacher's space to that of the Gaussians.

    It gives the features whose decoding comes nearest (least squares; the smallest such). For a decoder
    started from a PCA this is the projection onto its components.

    Args:
        decoder: none or linear, as it is now.

    Returns:
        A function from the teacher's features [..., C] to those that Gaussians carry [..., c].

    Raises:
        UserError: The decoder is conv3x3, which has no inverse for a single cell.
    """
    if isinstance(decoder, NoDecoder):
        return lambda targets: targets
    if isinstance(decoder, LinearDecoder):
        bias, weight = decoder.bias.detach(), decoder.weight.detach().double()
        inverse = weight @ torch.linalg.pinv(weight.t() @ weight, hermitian=True)  # [C, c]
        return lambda targets: (targets - bias.to(targets)) @ inverse.to(targets)
    raise UserError(
        f"teacher maps cannot be brought into the space of a {decoder.kind} decoder, which mixes "
        "neighbouring cells. Lift with --decoder linear or none, or train with --features joint."
    )
