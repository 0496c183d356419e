"""The edit files of Feature 3DGS: what they ask for, as a plan.

edit:
  objects: ["car", "tree", "road"]     # words for all that is in the scene
  targets: "car"                       # those of them that are edited
  operations: "extraction"             # deletion, extraction, color_func; several with commas
  threshold: 0.24                      # of the targets' probability; left empty: the likeliest object
  colorFunc: "lambda color: color[..., [2,1,0]]"

Its text is never run: a colorFunc that swaps channels is understood, any other is refused.
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from feature_gs.editing.plan import Plan, Step, swap_channels
from feature_gs.editing.questions import Question
from feature_gs.editing.reading import Entry, Reader
from feature_gs.queries.selection import Selection

# Their names, in the order in which Feature 3DGS carries them out, and ours.
_OPERATIONS = {"deletion": "delete", "extraction": "extract", "color_func": "recolour"}
_SWAP = re.compile(r"lambda(\w+):\1\[\.\.\.,\[([012]),([012]),([012])\]\]")


def read_feature_3dgs(path: Path, content: Entry) -> Plan:
    """The plan that a file of Feature 3DGS amounts to.

    As there, deletion comes first, then extraction, then color_func, and deletion takes all that the others
    take and what is likeliest a target besides. Unlike there, colours are changed in all SH bands, and
    targets are found by their names wherever they stand in the list.

    Args:
        path: The file, for messages.
        content: What it holds.

    Raises:
        UserError: Something is missing, unknown, or a colorFunc that cannot be translated.
    """
    outer = Reader(path, content, "edit.yaml")
    edit = outer.raw("edit")
    outer.finish()
    if not isinstance(edit, Entry):
        raise outer.error("edit must hold objects, targets and operations.", "edit")
    reader = Reader(path, edit, "edit")
    objects, targets = reader.texts("objects"), reader.texts("targets")
    lost = [target for target in targets if target not in objects]
    if lost:
        raise reader.error(f"the target {lost[0]!r} is none of the objects {', '.join(objects)}.", "targets")
    operations = reader.texts("operations")
    unknown = [name for name in operations if name not in _OPERATIONS]
    if unknown:
        listed = ", ".join(_OPERATIONS)
        raise reader.error(f"there is no operation {unknown[0]!r}; there are {listed}.", "operations")
    threshold = None
    if "threshold" in reader and reader.raw("threshold") is not None:
        threshold = reader.number("threshold", -1, 1)
    if threshold is None and len(objects) == 1:
        raise reader.error("one object alone needs a threshold, or name others it is not.", "objects")
    channels = _color_func(reader) if "colorFunc" in reader else None
    reader.finish(["threshold", "colorFunc"])
    if "color_func" in operations and channels is None:
        raise reader.error("the operation color_func needs a colorFunc.", "operations")
    plan = Plan()
    for theirs, ours in _OPERATIONS.items():
        if theirs not in operations:
            continue
        generous = theirs == "deletion"
        group = f"{', '.join(targets)} ({theirs})"
        asked: dict[str, Any] = {"objects": objects, "targets": targets, "threshold": threshold}
        where = reader.where("targets")
        plan.questions[group] = Question(where, "feature_3dgs", {**asked, "generous": generous})
        change = swap_channels(channels) if theirs == "color_func" and channels is not None else None
        plan.steps.append(Step(ours, reader.where("operations"), group, change))
    return plan


def _color_func(reader: Reader) -> list[int]:
    """The order of channels that a colorFunc makes."""
    text = reader.text("colorFunc")
    found = _SWAP.fullmatch(re.sub(r"\s", "", text))
    if found is None:
        raise reader.error(
            "colorFunc is a program, and programs are not run. Swapped channels are understood "
            '("lambda color: color[..., [2,1,0]]"); write anything else as\n'
            "  edits: [{recolour: {text: car}, to: red}]\n"
            "with `channels: [2, 1, 0]`, or with `matrix:` and `offset:`, in place of `to: red`.",
            "colorFunc",
        )
    return [int(digit) for digit in found.groups()[1:]]


def chosen_as_feature_3dgs(
    cosines: Tensor,  # [N, n]
    objects: list[str],
    targets: list[str],
    threshold: float | None,
    generous: bool,
) -> Selection:
    """What Feature 3DGS selects, given how near each Gaussian is to each word.

    Several objects: the softmax of the plain cosines, the targets' probabilities summed; selected is what
    reaches the threshold or, without one, has no likelier object. One object: the cosine itself.

    Args:
        cosines: Of the Gaussians' features with the words. [N, n]
        objects: The n words.
        targets: Those that are meant.
        threshold: Of the probability, or None.
        generous: Select also what is likeliest a target but below the threshold (deletion).

    Returns:
        The selection; its scores are the probabilities (or the cosine, below 0 cut).
    """
    wanted = torch.tensor([name in targets for name in objects], device=cosines.device)
    if len(objects) == 1:
        scores, likeliest = cosines[:, 0].clamp_min(0), torch.zeros_like(cosines[:, 0], dtype=torch.bool)
        generous = False
    else:
        shares = cosines.float().softmax(dim=1)
        scores = shares[:, wanted].sum(dim=1).clamp(max=1)
        others = shares[:, ~wanted]
        likeliest = scores > (others.amax(dim=1) if others.shape[1] else -1)
    selected = likeliest if threshold is None else scores >= threshold
    if generous:
        selected = selected | likeliest
    query = {"objects": objects, "targets": targets, "threshold": threshold, "kind": "feature_3dgs"}
    return Selection(scores.float(), selected, query)
