"""What an edit.yaml asks for, checked before anything is computed.

selections:                       # optional: names for what is edited
  mug: {text: mug, negative_text: [table], smooth: 8, largest_cluster: true}
edits:                            # done in this order
  - recolour: mug                 # a name from above, a query's name, a file, `all`, or a query itself
    to: red
  - duplicate: mug
    as: second mug
  - translate: second mug
    by: [0.3, 0, 0]
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from feature_gs.editing import operations
from feature_gs.editing.cloud import Cloud
from feature_gs.editing.colours import named_colour, painted
from feature_gs.editing.questions import Question, read_question
from feature_gs.editing.reading import Entry, Reader
from feature_gs.gaussians.geometry import quaternion_about

ALL = "all"
Change = Callable[
    [Cloud, Tensor], Cloud
]  # of the Gaussians of a mask [N], which stay where they are in memory
_AXES = {"x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "z": (0.0, 0.0, 1.0)}


@dataclass(frozen=True)
class Step:
    """One operation.

    Attributes:
        kind: Its name, a key of KINDS.
        where: File and line, for messages.
        group: What it acts on: ALL, or a name in `Plan.questions` or given by an earlier step; "" for insert.
        change: What a change in place does; None for the operations that remove or add Gaussians.
        name: What later steps call the Gaussians that are added, or "".
        model: insert: a model's folder, or a PLY.
        part: insert: name of the selection of that model that is inserted, or "" for all of it.
    """

    kind: str
    where: str
    group: str
    change: Change | None = None
    name: str = ""
    model: Path | None = None
    part: str = ""


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        questions: How the selections are found, by the names that the steps use.
        steps: The operations in their order.
    """

    questions: dict[str, Question] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)


def read_edits(path: Path, content: Entry) -> Plan:
    """Checks and understands the content of an edit.yaml.

    Args:
        path: The file, for messages.
        content: What it holds.

    Raises:
        UserError: Something in the file has no meaning; the message names the line.
    """
    reader = Reader(path, content, "edit.yaml")
    plan = Plan()
    if "selections" in reader:
        _read_selections(path, reader, plan)
    edits = reader.raw("edits")
    reader.finish(["selections", "edits"])
    if not isinstance(edits, list):
        raise reader.error("edits must be a list (each begins with `- `).", "edits")
    for edit in edits:
        if not isinstance(edit, Entry):
            raise reader.error("an edit begins with `- OPERATION: SELECTION`.", "edits")
        plan.steps.append(_read_step(path, edit, plan))
    return plan


def _read_selections(path: Path, reader: Reader, plan: Plan) -> None:
    named = reader.raw("selections")
    if not isinstance(named, Entry):
        raise reader.error("selections must be names with their queries (NAME: {text: mug}).", "selections")
    for name, what in named.items():
        names = Reader(path, named, "selections")
        if name == ALL:
            raise names.error("`all` means all Gaussians; choose another name.", name)
        plan.questions[name] = read_question(names, name, what)


def _read_step(path: Path, edit: Entry, plan: Plan) -> Step:
    kind = Reader(path, edit, "an edit").one_of(KINDS)
    reader = Reader(path, edit, kind)
    step = KINDS[kind](reader, kind, plan)
    reader.finish()
    return step


def _group(reader: Reader, kind: str, plan: Plan) -> str:
    """The name of what a step acts on; a question of its own gets one."""
    what = reader.raw(kind)
    known = {ALL, *plan.questions, *(step.name for step in plan.steps if step.name)}
    if isinstance(what, str) and what.strip() in known:
        return what.strip()
    name = what.strip() if isinstance(what, str) else reader.where(kind)
    plan.questions[name] = read_question(reader, kind, what)
    return name


def _new_name(reader: Reader, plan: Plan) -> str:
    name = reader.text("as")
    if name in {ALL, *plan.questions, *(step.name for step in plan.steps)}:
        raise reader.error(f"{name} is taken: choose another name.", "as")
    return name


def _plain(reader: Reader, kind: str, plan: Plan) -> Step:
    return Step(kind, reader.where(), _group(reader, kind, plan))


def _recolour(reader: Reader, kind: str, plan: Plan) -> Step:
    group = _group(reader, kind, plan)
    how = reader.one_of(("to", "channels", "matrix"))
    if how == "to":
        name = reader.text("to")
        try:
            rgb = named_colour(name)
        except ValueError:
            raise reader.error(f"there is no colour {name!r}: take a CSS name or '#rrggbb'.", "to") from None
        change: Change = partial(_paint, rgb=rgb)
    elif how == "channels":
        channels = reader.numbers("channels", 3)
        if not set(channels) <= {0, 1, 2}:
            raise reader.error("channels must be 0, 1 or 2 (red, green, blue), as in [2, 1, 0].", "channels")
        change = swap_channels([int(channel) for channel in channels])
    else:
        matrix = torch.tensor(reader.rows("matrix", 3, 3), dtype=torch.float64)
        offset = reader.numbers("offset", 3) if "offset" in reader else [0.0, 0.0, 0.0]
        offset_of = torch.tensor(offset, dtype=torch.float64)
        change = partial(operations.recolour, matrix=matrix, offset=offset_of)
    return Step(kind, reader.where(), group, change)


def swap_channels(channels: list[int]) -> Change:
    """The change that takes red, green and blue from these channels."""
    matrix = torch.eye(3, dtype=torch.float64)[channels]
    return partial(operations.recolour, matrix=matrix, offset=matrix.new_zeros(3))


def _paint(cloud: Cloud, selected: Tensor, rgb: Tensor) -> Cloud:  # [N] bool, [3]
    return operations.recolour(cloud, selected, *painted(cloud, selected, rgb))


def _opacity(reader: Reader, kind: str, plan: Plan) -> Step:
    group, factor = _group(reader, kind, plan), reader.number("factor", 0, 1000)

    def change(cloud: Cloud, selected: Tensor) -> Cloud:
        factors = torch.ones(len(cloud), dtype=torch.float64, device=selected.device)
        factors[selected] = factor
        return operations.fade(cloud, factors)

    return Step(kind, reader.where(), group, change)


def _translate(reader: Reader, kind: str, plan: Plan) -> Step:
    group, by = _group(reader, kind, plan), torch.tensor(reader.numbers("by", 3), dtype=torch.float64)
    return Step(kind, reader.where(), group, partial(operations.translate, by=by))


def _rotate(reader: Reader, kind: str, plan: Plan) -> Step:
    group = _group(reader, kind, plan)
    axis = reader.raw("axis")
    numbers = list(_AXES[axis]) if isinstance(axis, str) and axis in _AXES else reader.numbers("axis", 3)
    if not any(numbers):
        raise reader.error("axis must not be zero; it is x, y, z or a list of 3 numbers.", "axis")
    quat = quaternion_about(torch.tensor(numbers, dtype=torch.float64), reader.number("degrees"))
    about = _point(reader)

    def change(cloud: Cloud, selected: Tensor) -> Cloud:
        point = operations.centre(cloud, selected) if about is None else about
        return operations.rotate(cloud, selected, quat, point)

    return Step(kind, reader.where(), group, change)


def _scale(reader: Reader, kind: str, plan: Plan) -> Step:
    group, factor, about = _group(reader, kind, plan), reader.number("factor", 1e-6, 1e6), _point(reader)

    def change(cloud: Cloud, selected: Tensor) -> Cloud:
        point = operations.centre(cloud, selected) if about is None else about
        return operations.scale(cloud, selected, factor, point)

    return Step(kind, reader.where(), group, change)


def _point(reader: Reader) -> Tensor | None:
    """The point that stays, world units [3]; None: the middle of what is selected."""
    return torch.tensor(reader.numbers("about", 3), dtype=torch.float64) if "about" in reader else None


def _duplicate(reader: Reader, kind: str, plan: Plan) -> Step:
    group = _group(reader, kind, plan)
    return Step(kind, reader.where(), group, name=_new_name(reader, plan))


def _insert(reader: Reader, kind: str, plan: Plan) -> Step:
    model = Path(reader.text(kind))
    name = _new_name(reader, plan) if "as" in reader else ""
    part = reader.text("selection") if "selection" in reader else ""
    return Step(kind, reader.where(), "", name=name, model=model, part=part)


KINDS: dict[str, Callable[[Reader, str, Plan], Step]] = {
    "delete": _plain,
    "extract": _plain,
    "recolour": _recolour,
    "opacity": _opacity,
    "translate": _translate,
    "rotate": _rotate,
    "scale": _scale,
    "duplicate": _duplicate,
    "insert": _insert,
}
