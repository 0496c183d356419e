"""Masks of single views merged into things in 3D: of one thing are masks that show the same Gaussians."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

_SAME = 0.5  # intersection over union from which a mask shows a known thing
_FEWEST = 2  # views that must show a thing, if so many were looked at


@dataclass(eq=False)
class _Thing:
    """A thing as its masks show it.

    Attributes:
        inside: How much of each Gaussian its masks show, pixels. [N]
        seen: How much of it the views of those masks show. [N]
        views: How many masks it has.
    """

    inside: Tensor
    seen: Tensor
    views: int = 1

    def share(self) -> Tensor:
        """How much each Gaussian belongs to it, in [0, 1]. [N]"""
        return self.inside / self.seen.clamp_min(1e-12)


@dataclass(eq=False)
class MaskMerger:
    """Collects the masks of one view after the other.

    A mask is compared with every known thing on the Gaussians that both its view and the thing's views show:
    the sums of the smaller and of the larger shares, weighted by visible area, are intersection and union. It
    joins the thing with the largest quotient if that is above one half, and is a thing of its own otherwise.
    """

    _things: list[_Thing] = field(default_factory=list)
    _views: int = 0

    def add(self, inside: Tensor, seen: Tensor) -> None:  # [N, k], [N]
        """The masks of one more view.

        Args:
            inside: How much of each Gaussian each mask shows, pixels (`votes` of the masks). [N, k]
            seen: How much of each Gaussian the view shows. [N]
        """
        self._views += 1
        known = list(self._things)
        shares = inside / seen[:, None].clamp_min(1e-12)
        joined: dict[int, Tensor] = {}
        for column in range(inside.shape[1]):
            overlaps = [self._overlap(thing, shares[:, column], seen) for thing in known]
            best = max(range(len(known)), key=lambda index: overlaps[index], default=-1)
            if best >= 0 and overlaps[best] > _SAME:
                # Several masks of a view may show one thing, parts of it even: together they are its mask.
                before = joined.get(best, torch.zeros_like(seen))
                joined[best] = torch.maximum(before, inside[:, column])
            else:
                self._things.append(_Thing(inside[:, column].clone(), seen.clone()))
        for index, mask in joined.items():
            known[index].inside += mask
            known[index].seen += seen
            known[index].views += 1

    def shares(self) -> Tensor:
        """How much each Gaussian belongs to each thing that two views or more show, the larger things first.

        Of things that became the same while their masks came in, the one with more masks stays.

        Returns:
            In [0, 1]. [N, K]
        """
        ordered = sorted(self._things, key=lambda thing: -thing.views)
        kept: list[_Thing] = []
        for thing in ordered:
            if thing.views < min(_FEWEST, self._views):
                continue
            if all(self._overlap(other, thing.share(), thing.seen) <= _SAME for other in kept):
                kept.append(thing)
        if not kept:
            count = len(self._things[0].inside) if self._things else 0
            return torch.zeros(count, 0)
        shares = torch.stack([thing.share() for thing in kept], dim=1)
        return shares[:, (shares > 0.5).sum(dim=0).argsort(descending=True, stable=True)]

    @staticmethod
    def _overlap(thing: _Thing, share: Tensor, seen: Tensor) -> float:
        """Intersection over union of a thing and a mask, where both have been seen."""
        both = torch.minimum(seen, thing.seen)
        known = thing.share()
        union = float((both * torch.maximum(share, known)).sum())
        return float((both * torch.minimum(share, known)).sum()) / union if union > 0 else 0.0
