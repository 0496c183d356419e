"""Views of a model with what the teacher says of them, beside what the Gaussians learnt."""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from feature_gs.errors import UserError
from feature_gs.features.field import FeatureField
from feature_gs.features.maps import TeacherMap
from feature_gs.features.rendering import decoded
from feature_gs.features.teacher import TeacherStore, find_teacher
from feature_gs.scenes import View
from feature_gs.training.trained import SPLITS, Trained

Views = Literal["test", "train", "all"]


def field_of(trained: Trained) -> FeatureField:
    """The features of a model.

    Raises:
        UserError: It has none.
    """
    field = trained.field()
    if field is None:
        raise UserError(
            f"{trained.path} has no features. Give it some: feature-gs lift -m {trained.path} -f TEACHER"
        )
    return field


def views_of(trained: Trained, which: Views, source_path: str, at_least: int = 1) -> list[View]:
    """The views of some splits whose photos are there.

    Raises:
        UserError: The scene cannot be read, or there are fewer views than needed.
    """
    splits = SPLITS if which == "all" else (which,)
    cameras = [camera for split in splits for camera in trained.cameras[split]]
    photos = trained.views(source_path)
    views = [photos[camera.name] for camera in cameras if camera.name in photos]
    if len(views) < at_least:
        raise UserError(
            f"too few views: {at_least} needed, {len(views)} there ({which}). Choose others: --views all."
        )
    return views


def teacher_of(trained: Trained, field: FeatureField, source_path: str, views: list[View]) -> TeacherStore:
    """The maps of the teacher that taught the features, one for every view.

    Raises:
        UserError: There are none, they have other channels, or some are missing.
    """
    source = source_path or trained.config.source_path
    folder = find_teacher(Path(source), field.teacher)
    make = f'feature-gs encode -s "{source}" -f {field.teacher}'
    if folder is None:
        raise UserError(
            f"{source} has no maps of the teacher {field.teacher}. Make them: {make}\n"
            "  If the scene is elsewhere now, name its folder with -s."
        )
    store = TeacherStore.open(folder)
    if store.channels != field.decoder.channels:
        raise UserError(
            f"the maps in {folder} have {store.channels} channels, the model was taught "
            f"{field.decoder.channels}: they are not its teacher's."
        )
    missing = store.missing(views)
    if missing:
        raise UserError(
            f"{folder} lacks the maps of {len(missing)} photos, {missing[0]} the first. Make them: {make}"
        )
    return store


@torch.no_grad()
def distilled(trained: Trained, field: FeatureField, view: View, teacher_map: TeacherMap) -> Tensor:
    """The rendered, decoded features of a view at the teacher's own cells. [h, w, C]"""
    camera = view.camera
    cell = camera.width / teacher_map.cells_x, camera.height / teacher_map.cells_y
    rows, columns = teacher_map.features.shape[1:]
    rendered = decoded(field, trained.render_features(field, camera, cell))
    whole = rendered.new_zeros(rows, columns, rendered.shape[2])  # the map may have a sliver more
    here = rendered[:rows, :columns]
    whole[: here.shape[0], : here.shape[1]] = here
    return whole
