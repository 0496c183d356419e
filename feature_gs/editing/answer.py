"""From a question to the Gaussians that it means."""

from dataclasses import replace
from typing import Any

from feature_gs.editing.cleanup import above, largest_cluster, smoothed
from feature_gs.editing.questions import Question, selection_file
from feature_gs.errors import UserError
from feature_gs.features.comparison import Patch
from feature_gs.features.field import FeatureField
from feature_gs.queries.ask import ask_box, ask_patch, ask_points
from feature_gs.queries.selection import Selection
from feature_gs.queries.views import Box, find_view
from feature_gs.training.trained import Trained


def answer(question: Question, trained: Trained, field: FeatureField | None) -> Selection:
    """The part of a scene that is meant, cleaned up as asked.

    Args:
        question: What is meant.
        trained: The scene, before any edit.
        field: Its features, or None.

    Raises:
        UserError: There is no such selection, or the query cannot be answered; the message names the line.
    """
    try:
        found = _found(question.kind, question.asked, trained, field)
    except UserError as error:
        raise UserError(f"{question.where}: {error}") from error
    if question.smooth:
        found = smoothed(found, trained.model, question.smooth)
    if question.threshold is not None:
        found = above(found, question.threshold)
    if question.largest_cluster:
        found = largest_cluster(found, trained.model)
    return replace(found, query={**found.query, "from": question.where})


def _found(kind: str, asked: dict[str, Any], trained: Trained, field: FeatureField | None) -> Selection:
    if kind == "selection":
        return Selection.load(selection_file(trained.path, asked["name"]), len(trained.model))
    if field is None:
        raise UserError(
            f"{trained.path} has no features, so it cannot be asked. Give it some: feature-gs lift -m "
            f"{trained.path} -f TEACHER"
        )
    if kind == "point":
        camera = find_view(trained, asked["view"])
        return ask_points(trained, field, camera, asked["point"], asked["negative_point"])
    if kind == "box":
        return ask_box(trained, field, find_view(trained, asked["view"]), Box(*asked["box"]))
    if kind == "patch":
        return ask_patch(trained, field, find_view(trained, asked["view"]), Patch(*asked["patch"]))[0]
    raise UserError(f"{kind} cannot be asked here.")
