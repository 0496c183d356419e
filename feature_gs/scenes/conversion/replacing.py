"""What lies in a scene's folder already: what may be replaced, and what may not."""

import os
import shlex
from collections.abc import Callable

from feature_gs.errors import UserError
from feature_gs.scenes.colmap import find_colmap_model, is_pinhole
from feature_gs.scenes.conversion.layout import Layout
from feature_gs.scenes.conversion.models import model_folders, read_models
from feature_gs.scenes.conversion.photos import read_photos
from feature_gs.scenes.conversion.record import Record
from feature_gs.scenes.conversion.settings import ConvertConfig
from feature_gs.scenes.conversion.sizes import FACTORS
from feature_gs.scenes.conversion.undistortion import check_sizes

_OVERWRITE = "overwrite"  # a stage of the record: --overwrite was given, and its run is not at its end


def may_replace(config: ConvertConfig, record: Record) -> bool:
    """Whether the user has agreed to lose what is there: now, or in a run that was interrupted."""
    return config.overwrite or record.started(_OVERWRITE)


def begin_anew(config: ConvertConfig, record: Record) -> None:
    """Forgets what was done, once per run with --overwrite; what is there is replaced as the new comes in."""
    if not config.overwrite or record.started(_OVERWRITE):
        return
    record.forget("undistorted", "installing")
    if not config.skip_matching:
        record.forget("features", "matches", "models")
    record.start(_OVERWRITE, "")


def end(record: Record) -> None:
    """Notes that all is made: what is there now is not to be replaced."""
    record.forget(_OVERWRITE)


def check_foreign(place: Layout, config: ConvertConfig, record: Record) -> None:
    """Checks that nothing in the way was made by somebody else.

    Raises:
        UserError: Something was, and --overwrite was not given.
    """
    if may_replace(config, record):
        return
    if not record.started("undistorted"):
        refuse_outputs(place, "which this program has not made")
    if config.resize:
        for factor in FACTORS:
            if place.smaller(factor).exists() and not record.started(f"images_{factor}"):
                raise UserError(
                    f"--resize: {place.smaller(factor)} is there already. Move it away, or give --overwrite."
                )
    if not config.skip_matching:
        if place.database.exists() and not record.started("features"):
            raise UserError(_not_ours(place, "a database of features"))
        if model_folders(place.models) and not record.started("models"):
            raise UserError(_not_ours(place, "a model"))


def refuse_outputs(place: Layout, why: str) -> None:
    """Refuses to replace images/ and sparse/, where there are any.

    Raises:
        UserError: There are; names what can be done.
    """
    there = [folder for folder in (place.images, place.sparse) if folder.exists()]
    if not there:
        return
    scene = shlex.quote(str(place.source))
    ready = find_colmap_model(place.source) is not None and place.images.exists()
    advice = f"To train on it as it is: python train.py -s {scene}. " if ready else ""
    raise UserError(
        f"{place.source} holds {' and '.join(folder.name for folder in there)} already, {why}. {advice}"
        "To make them anew: --overwrite."
    )


def adopt_distorted_scene(place: Layout, say: Callable[[str], None]) -> None:
    """Moves photos and model of a scene that was never undistorted to where --skip_matching looks for them.

    That is: images/ and sparse/ with lens distortion, no input/ and no distorted/. They become input/ and
    distorted/sparse/.

    Raises:
        UserError: The model has no distortion, or does not fit the photos.
    """
    if place.input.exists() or not place.images.is_dir():
        return
    moved = bool(model_folders(place.models))  # and then this was interrupted
    old = place.models if moved else place.sparse
    if (moved and place.sparse.exists()) or not model_folders(old):
        return
    models = read_models(old)
    if all(is_pinhole(camera) for model in models for camera in model.reconstruction.cameras.values()):
        raise UserError(
            f"the cameras in {old} have no distortion: there is nothing to undistort. Train on it "
            f"as it is: python train.py -s {shlex.quote(str(place.source))}"
        )
    photos = read_photos(place.images, models[0].registered, quiet=True)
    check_sizes(models[0], {photo.name: photo for photo in photos})
    if not moved:
        place.distorted.mkdir(exist_ok=True)
        os.rename(place.sparse, place.models)
    os.rename(place.images, place.input)
    say("images and sparse, which have lens distortion, are now input and distorted/sparse")


def _not_ours(place: Layout, what: str) -> str:
    return (
        f"{place.distorted} holds {what} that this program has not made. To start from its model: "
        "--skip_matching. To make everything anew from the photos: --overwrite."
    )
