"""Carrying out a plan: one operation after the other, selections moving along with their Gaussians."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from feature_gs.editing import operations
from feature_gs.editing.cloud import Cloud
from feature_gs.editing.plan import ALL, Step
from feature_gs.errors import UserError

Opener = Callable[[Step], Cloud]  # finds what an insert step inserts

_MOST_GAUSSIANS = 100_000_000  # `duplicate: all` a dozen times is soon written


@dataclass(frozen=True)
class Stage:
    """A scene between two operations.

    Attributes:
        cloud: The N Gaussians as they are by now.
        groups: The members of each selection; copies belong only to the name they were given. [N] bool each
    """

    cloud: Cloud
    groups: Mapping[str, Tensor]

    def members(self, step: Step) -> Tensor:
        """What a step acts on. [N] bool

        Raises:
            UserError: There is nothing (any more).
        """  # noqa: D415
        if step.group == ALL:
            found = torch.ones(len(self.cloud), dtype=torch.bool, device=self.cloud.model.means.device)
        else:
            found = self.groups[step.group]
        if not bool(found.any()):
            raise UserError(
                f"{step.where}: {step.kind}: the selection {step.group} holds no Gaussian (any more). Lower "
                "its threshold, or look at the operations before."
            )
        return found

    def take(self, rows: Tensor) -> "Stage":  # [N] bool
        """Some of the Gaussians."""
        return Stage(self.cloud.take(rows), {name: group[rows] for name, group in self.groups.items()})

    def check_room(self, step: Step, further: int) -> None:
        """Refuses further Gaussians before they take memory.

        Raises:
            UserError: There would be too many.
        """
        if len(self.cloud) + further > _MOST_GAUSSIANS:
            raise UserError(
                f"{step.where}: {step.kind}: {len(self.cloud):,} Gaussians and {further:,} more would be "
                f"above {_MOST_GAUSSIANS:,}. Duplicate or insert less."
            )

    def added(self, other: Cloud, name: str) -> "Stage":
        """With further Gaussians behind, called `name` unless that is empty."""
        behind = len(other)
        groups = {key: torch.cat([group, group.new_zeros(behind)]) for key, group in self.groups.items()}
        joined = self.cloud.joined(other)
        if name:
            new = torch.zeros(len(joined), dtype=torch.bool, device=joined.model.means.device)
            new[len(self.cloud) :] = True
            groups[name] = new
        return Stage(joined, groups)


def apply(stage: Stage, step: Step, open_model: Opener) -> Stage:
    """The scene after one more operation.

    Args:
        stage: The scene before.
        step: The operation.
        open_model: Called for an insert step; returns what is inserted.

    Returns:
        The scene after it; `stage` stays as it is.

    Raises:
        UserError: The operation has nothing to act on, or would leave nothing or too much.
    """
    if step.kind == "insert":
        guest = open_model(step)
        stage.check_room(step, len(guest))
        return stage.added(guest, step.name)
    selected = stage.members(step)
    if step.change is not None:
        changed = step.change(stage.cloud, selected)
        if not changed.model.is_finite():
            raise UserError(f"{step.where}: {step.kind}: numbers grow beyond what a PLY can hold.")
        return Stage(changed, stage.groups)
    if step.kind == "duplicate":
        stage.check_room(step, int(selected.sum()))
        return stage.added(operations.extract(stage.cloud, selected), step.name)
    kept = ~selected if step.kind == "delete" else selected
    if not bool(kept.any()):
        raise UserError(f"{step.where}: delete: nothing would be left of the scene.")
    return stage.take(kept)
