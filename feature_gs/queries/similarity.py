"""How near features are to what is looked for, in the teacher's space."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from feature_gs.features.decoders import Decoder, LinearDecoder, NoDecoder

_NUMBERS = 1 << 22  # decoded at a time: they stay in the cache
_TINY = 1e-12  # as `normalize`


@torch.no_grad()
def cosines(features: Tensor, queries: Tensor, decoder: Decoder | None = None) -> Tensor:  # [n, c], [k, C]
    """Cosines of features with unit vectors; of a feature that is zero they are 0.

    Args:
        features: As the Gaussians carry them. [n, c]
        queries: Unit vectors in the teacher's space. [k, C]
        decoder: From c to C channels, for single Gaussians; None: the features are the teacher's already.

    Returns:
        In [-1, 1]. [n, k] float32

    Raises:
        UserError: The decoder is conv3x3, which does not decode single Gaussians.
    """
    across = queries.t().to(features.device, torch.float32).contiguous()
    if isinstance(decoder, LinearDecoder):
        return _cosines_behind(features, across, decoder)
    parts = []
    for rows in _decoded_parts(features, decoder):
        lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        parts.append((rows @ across) / lengths.clamp_min(_TINY))
    if not parts:
        return features.new_zeros(0, len(queries))
    return torch.cat(parts).clamp(-1, 1)


def _cosines_behind(features: Tensor, across: Tensor, decoder: LinearDecoder) -> Tensor:
    """`cosines` without decoding: products and lengths of `W f + b` follow from f and small matrices.

    `q (W f + b) = (q W) f + q b` and `|W f + b| = |R f + p|` with [W b] = Q [R p], Q orthonormal.
    """
    weight, bias = (part.detach().to(features.device).double() for part in (decoder.weight, decoder.bias))
    triangle = torch.linalg.qr(torch.cat([weight, bias[:, None]], dim=1), mode="r")[1].float()
    turned, moved = triangle[:, :-1].t().contiguous(), triangle[:, -1]
    products, constant = (weight.t() @ across.double()).float(), (bias @ across.double()).float()
    parts = []
    for rows in features.split(max(1, _NUMBERS // features.shape[1])):
        lengths = torch.linalg.vector_norm(torch.addmm(moved, rows.float(), turned), dim=1, keepdim=True)
        parts.append(torch.addmm(constant, rows.float(), products) / lengths.clamp_min(_TINY))
    return torch.cat(parts).clamp(-1, 1) if parts else features.new_zeros(0, across.shape[1])


@torch.no_grad()
def evened(
    features: Tensor,  # [n, c]
    seen: Tensor,  # [n]
    decoder: Decoder | None = None,
) -> tuple[Tensor, Decoder | None]:
    """Features whose decoded channels have mean 0 over a scene and spreads that differ less.

    What all of a scene has in common tells nothing apart, and keeps cosines near 1; so do channels that vary
    much more than others. Every channel is divided by the square root of its standard deviation: to divide by
    the whole of it would make the noise of channels that hardly vary as large as what the others say.

    Args:
        features: As the Gaussians carry them. [n, c]
        seen: Rows that count; the others become 0 or, behind a decoder, stay as they are. [n] bool
        decoder: "linear" or "none"; None: the features are the teacher's already.

    Returns:
        Features [n, c] and a decoder for them, None where they need none.

    Raises:
        UserError: The decoder is conv3x3.
    """
    if not bool(seen.any()):
        return features, decoder
    known = (features if bool(seen.all()) else features[seen]).float()
    if decoder is None or isinstance(decoder, NoDecoder):
        variance, mean = torch.var_mean(known, dim=0, correction=0)
        factors = _evening(variance.sqrt())
        even = torch.addcmul(-mean * factors, features.float(), factors)
        even[~seen] = 0
        return even, None
    mean = known.mean(dim=0)
    carried = torch.eye(features.shape[1]).to(known)
    decoder = decoder.to(known.device)
    matrix = decoder.decode_gaussians(carried) - decoder.decode_gaussians(torch.zeros_like(carried[:1]))
    covariance = (known - mean).t() @ (known - mean) / len(known)  # [c, c]
    factors = _evening(((covariance @ matrix) * matrix).sum(dim=0).clamp_min(0).sqrt())
    result = LinearDecoder(*matrix.shape).to(features.device)
    result.weight.copy_((matrix * factors).t())
    result.bias.copy_(-(mean @ matrix) * factors)
    return features, result


def _evening(spread: Tensor) -> Tensor:  # [C]
    """One over the square root of standard deviations; 0 for those next to nothing beside the largest."""
    return torch.where(spread > 1e-4 * spread.max().clamp_min(_TINY), spread.rsqrt(), 0)


def distance_of(cosine: Tensor) -> Tensor:  # [...]
    """The distance of unit vectors, d² = 2 - 2 cos, in [0, 2]."""
    return (2 - 2 * cosine).clamp_min(0).sqrt()


@torch.no_grad()
def mean_direction(
    features: Tensor, weights: Tensor, decoder: Decoder | None = None
) -> Tensor:  # [n, c], [n]
    """The weighted mean of unit features in the teacher's space, of length 1. [C]

    Args:
        features: As the Gaussians carry them. [n, c]
        weights: >= 0. [n]
        decoder: As for `cosines`.

    Raises:
        UserError: The decoder is conv3x3.
    """
    chosen = weights.nonzero()[:, 0]
    shares = weights[chosen].float()
    total: Tensor | None = None
    start = 0
    for rows in _decoded_parts(features[chosen], decoder):
        part = shares[start : start + len(rows)] @ F.normalize(rows, dim=1)
        total = part if total is None else total + part
        start += len(rows)
    if total is None:
        return features.new_zeros(features.shape[1] if decoder is None else decoder.channels)
    return F.normalize(total, dim=0)


@torch.no_grad()
def common_direction(
    features: Tensor,  # [n, c]
    weights: Tensor,  # [n]
    decoder: Decoder | None = None,
) -> tuple[Tensor, Tensor]:
    """What most of some features have in common: those that look otherwise hardly count.

    At the border of a thing the Gaussians under a pixel belong to two things. Every feature counts with the
    square of its cosine with the one that agrees most with all.

    Args:
        features: As the Gaussians carry them. [n, c]
        weights: >= 0, some above. [n]
        decoder: As for `cosines`.

    Returns:
        The direction, of length 1 [C], and the weights that remain [n].

    Raises:
        UserError: The decoder is conv3x3.
    """
    chosen = weights.nonzero()[:, 0]
    if len(chosen) > _HITS:
        chosen = chosen[weights[chosen].topk(_HITS).indices]
    unit = F.normalize(torch.cat(list(_decoded_parts(features[chosen], decoder))), dim=1)
    cosine = (unit @ unit.t()).clamp_min(0)
    middle = int((cosine @ weights[chosen].float()).argmax())
    kept = weights[chosen].float() * cosine[middle].square()
    remaining = torch.zeros_like(weights, dtype=torch.float32)
    remaining[chosen] = kept
    return F.normalize(kept @ unit, dim=0), remaining


_HITS = 512  # Gaussians under a pixel that are compared with each other


def _decoded_parts(features: Tensor, decoder: Decoder | None) -> Iterator[Tensor]:
    """Rows in the teacher's space, float32, some thousands at a time."""
    channels = features.shape[1] if decoder is None else decoder.channels
    for rows in features.split(max(1, _NUMBERS // channels)):
        rows = rows.float()
        if decoder is None or isinstance(decoder, NoDecoder):
            yield rows
        else:
            yield decoder.to(rows.device).decode_gaussians(rows)
