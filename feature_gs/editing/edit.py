"""A whole edit: from edit.yaml and a model to the changed scene."""

from collections.abc import Callable
from pathlib import Path

from feature_gs.editing.answer import answer
from feature_gs.editing.apply import Stage, apply
from feature_gs.editing.cloud import Cloud, features_fit
from feature_gs.editing.feature3dgs import read_feature_3dgs
from feature_gs.editing.plan import Plan, Step, read_edits
from feature_gs.editing.questions import selection_file
from feature_gs.editing.reading import read_yaml
from feature_gs.errors import UserError
from feature_gs.features.field import FeatureField, field_path
from feature_gs.gaussians import GaussianModel
from feature_gs.queries.selection import Selection
from feature_gs.training.trained import Trained, load_trained

Say = Callable[[str], None]


def read_plan(path: Path) -> Plan:
    """Reads edit.yaml; a file of Feature 3DGS (key `edit`) is read as what it means.

    Raises:
        UserError: Something in the file has no meaning; the message names the line.
    """
    content = read_yaml(path)
    return read_feature_3dgs(path, content) if "edit" in content else read_edits(path, content)


def edited(
    trained: Trained,
    field: FeatureField | None,
    plan: Plan,
    say: Say = print,
    weights: Path | None = None,
) -> Cloud:
    """Carries out a plan; the model stays as it is.

    What is inserted is read first, and queries are answered, all about the scene before any edit; then the
    operations follow in their order.

    Args:
        trained: The model.
        field: Its features, or None.
        plan: What is to be done.
        say: Told what each step did.
        weights: File of the teacher's weights, for words and for SAM's decoder; None: as `answer` finds it.

    Returns:
        The changed scene.

    Raises:
        UserError: Something to be inserted or selected is not there, or a step would leave nothing.
    """
    guests = {id(step): _opened(step) for step in plan.steps if step.kind == "insert"}
    groups = {}
    for name, question in plan.questions.items():
        found = answer(question, trained, field, weights)
        groups[name] = found.selected.to(trained.model.means.device)
        say(f"{name}: {int(found.selected.sum()):,} of {len(found):,} Gaussians")
    stage = Stage(Cloud(trained.model, field), groups)
    for step in plan.steps:
        before = len(stage.cloud)
        stage = apply(stage, step, lambda wanted: guests[id(wanted)])
        say(f"{step.kind} {step.group or step.model}: {before:,} -> {len(stage.cloud):,} Gaussians")
        if step.kind == "insert" and field is not None and not features_fit(field, guests[id(step)].field):
            say(f"  {step.model} has no features of {field.teacher}: queries will not find it.")
    return stage.cloud


def _opened(step: Step) -> Cloud:
    """What an insert step inserts: a model, the selected part of one, or the Gaussians of a PLY."""
    path = step.model
    assert path is not None
    try:
        if path.is_dir():
            trained = load_trained(path)
            cloud = Cloud(trained.model, trained.field())
        else:
            model = GaussianModel.load_ply(path)
            beside = field_path(path)
            cloud = Cloud(model, FeatureField.load(beside, len(model)) if beside.is_file() else None)
        if step.part:
            selection = Selection.load(selection_file(path, step.part), len(cloud))
            cloud = cloud.take(selection.selected)
    except UserError as error:
        raise UserError(f"{step.where}: insert: {error}") from error
    if not len(cloud):
        raise UserError(f"{step.where}: insert: {path} holds no Gaussian to insert.")
    return cloud
