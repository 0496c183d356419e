"""Gaussians together with their features: what edits are made of."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from feature_gs.features.decoders import encoder_of
from feature_gs.features.field import FeatureField
from feature_gs.gaussians import GaussianModel

PARAMETERS = ("means", "quats", "log_scales", "logit_opacities", "sh_dc", "sh_rest")


@dataclass(frozen=True, eq=False)
class Cloud:
    """N Gaussians and what they carry. Its methods return new clouds and leave this one as it is.

    Attributes:
        model: The Gaussians.
        field: Their features, in the same order, or None.
    """

    model: GaussianModel
    field: FeatureField | None = None

    def __post_init__(self) -> None:
        if self.field is not None and len(self.field) != len(self.model):
            raise ValueError(f"features of {len(self.field)} Gaussians, but {len(self.model)} Gaussians")

    def __len__(self) -> int:
        return len(self.model)

    def take(self, rows: Tensor) -> "Cloud":  # [N] bool or [M] int64
        """Some of the Gaussians, their features with them.

        Args:
            rows: Which: a mask [N], or row numbers [M] in the order wanted.
        """
        parts = {name: getattr(self.model, name).detach()[rows] for name in PARAMETERS}
        field = self.field
        if field is not None:
            there = rows.to(field.features.device)
            field = replace(field, features=field.features.detach()[there], seen=field.seen[there])
        return Cloud(GaussianModel(**parts, sh_degree=self.model.sh_degree), field)

    def changed(self, **parts: Tensor) -> "Cloud":
        """The same Gaussians with other parameters, named as those of `GaussianModel`."""
        kept = {name: getattr(self.model, name).detach() for name in PARAMETERS}
        return Cloud(GaussianModel(**{**kept, **parts}, sh_degree=self.model.sh_degree), self.field)

    def joined(self, other: "Cloud") -> "Cloud":
        """These Gaussians, then those of another cloud.

        Colours get the higher SH degree of the two. Features keep this cloud's decoder; the other's are
        brought into its space where both learnt from the same teacher (`features_fit`), else they are zero
        and marked as not seen.
        """
        first, second = self.model, other.model
        bands = max(first.sh_rest.shape[1], second.sh_rest.shape[1])
        parts = {
            name: torch.cat([getattr(first, name).detach(), getattr(second, name).detach().to(first.means)])
            for name in PARAMETERS[:-1]
        }
        sh_rest = (_padded(model.sh_rest, bands).to(first.means) for model in (first, second))
        parts["sh_rest"] = torch.cat(list(sh_rest))
        degree = max(first.sh_degree, second.sh_degree)
        field = None if self.field is None else _joined_field(self.field, other)
        return Cloud(GaussianModel(**parts, sh_degree=degree), field)


def features_fit(field: FeatureField, other: FeatureField | None) -> bool:
    """Whether the features of another cloud can be brought into the space of `field`."""
    if other is None or (other.teacher, other.decoder.channels) != (field.teacher, field.decoder.channels):
        return False
    return _same_decoder(field, other) or "conv3x3" not in (field.decoder.kind, other.decoder.kind)


@torch.no_grad()
def _joined_field(field: FeatureField, other: Cloud) -> FeatureField:
    guest = other.field
    if guest is None or not features_fit(field, guest):
        features = field.features.new_zeros(len(other), field.features.shape[1])
        seen = field.seen.new_zeros(len(other))
    else:
        features, seen = guest.features.to(field.features), guest.seen.to(field.seen.device)
        if not _same_decoder(field, guest):
            decoder = guest.decoder.to(features.device)
            features = encoder_of(field.decoder)(decoder.decode_gaussians(features))
    return replace(
        field,
        features=torch.cat([field.features.detach(), features]),
        seen=torch.cat([field.seen, seen]),
    )


def _same_decoder(one: FeatureField, other: FeatureField) -> bool:
    first, second = one.decoder.state_dict(), other.decoder.state_dict()
    return (
        one.decoder.kind == other.decoder.kind
        and one.decoder.features == other.decoder.features
        and all(torch.equal(first[name], second[name].to(first[name])) for name in first)
    )


def _padded(sh_rest: Tensor, bands: int) -> Tensor:  # [N, K - 1, 3] -> [N, bands, 3]
    zeros = sh_rest.new_zeros(len(sh_rest), bands - sh_rest.shape[1], 3)
    return torch.cat([sh_rest.detach(), zeros], dim=1)
