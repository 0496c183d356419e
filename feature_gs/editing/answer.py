"""From a question to the Gaussians that it means."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from feature_gs.editing.cleanup import cleaned
from feature_gs.editing.feature3dgs import chosen_as_feature_3dgs
from feature_gs.editing.questions import Question, selection_file
from feature_gs.errors import UserError
from feature_gs.features.comparison import Patch
from feature_gs.features.field import FeatureField
from feature_gs.queries.ask import ask_box, ask_patch, ask_points
from feature_gs.queries.sam import SamDecoder
from feature_gs.queries.sam_view import is_sam
from feature_gs.queries.selection import Selection
from feature_gs.queries.similarity import cosines
from feature_gs.queries.views import Box, find_view
from feature_gs.queries.words import Words, ask_text
from feature_gs.training.trained import Trained


def answer(
    question: Question, trained: Trained, field: FeatureField | None, weights: Path | None = None
) -> Selection:
    """The part of a scene that is meant, cleaned up as asked.

    Args:
        question: What is meant.
        trained: The scene, before any edit.
        field: Its features, or None.
        weights: File of the teacher's weights, for words and for SAM's decoder; None: what the model was
            trained with, or the teacher's own.

    Raises:
        UserError: There is no such selection, or the query cannot be answered; the message says where it was
            asked.
    """
    if weights is None and trained.config.weights:
        weights = Path(trained.config.weights)
    try:
        found = _found(question.kind, question.asked, trained, field, weights)
    except UserError as error:
        raise UserError(f"{question.where}: {error}") from error
    return cleaned(found, trained, question.clean_up)


def _found(
    kind: str, asked: dict[str, Any], trained: Trained, field: FeatureField | None, weights: Path | None
) -> Selection:
    if kind == "selection":
        return Selection.load(selection_file(trained.path, asked["name"]), len(trained.model))
    if field is None:
        raise UserError(
            f"{trained.path} has no features, so it cannot be asked. Give it some: feature-gs lift -m "
            f"{trained.path} -f TEACHER"
        )
    if kind == "text":
        return ask_text(field, asked["text"], asked["negative_text"] or None, weights=weights)
    if kind == "feature_3dgs":
        words = Words.encode(
            field, [name.replace("_", " ") for name in asked["objects"]], (), weights=weights
        )
        near = cosines(field.features, words.vectors, field.decoder)
        return _of_seen(chosen_as_feature_3dgs(near, **asked), field)
    camera = find_view(trained, asked["view"])
    if kind == "patch":
        return ask_patch(trained, field, camera, Patch(*asked["patch"]))[0]
    sam = None
    if is_sam(field):
        device = trained.model.means.device
        sam = SamDecoder.load(field.teacher.partition("?")[0], weights, device=device)
    if kind == "point":
        return ask_points(trained, field, camera, asked["point"], asked["negative_point"], sam=sam)
    return ask_box(trained, field, camera, Box(*asked["box"]), sam=sam)


def _of_seen(selection: Selection, field: FeatureField) -> Selection:
    """Without the Gaussians that no view shows: their features mean nothing."""
    scores, seen = selection.scores, field.seen.to(selection.selected.device)
    return replace(selection, scores=scores * seen, selected=selection.selected & seen)
