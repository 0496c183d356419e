"""A changed scene as a model folder of its own, which every verb takes."""

from dataclasses import replace
from pathlib import Path
from typing import Literal, cast

from torch import nn

from feature_gs.editing.cloud import Cloud
from feature_gs.errors import UserError
from feature_gs.features.field import field_path
from feature_gs.scenes import write_cameras_json
from feature_gs.training.folder import check_vacant, make_folder
from feature_gs.training.trained import SPLITS, Trained, ply_path


def check_output(out: Path, trained: Trained, overwrite: bool) -> None:
    """Raises UserError where a model cannot be written to: a folder in use, or the model's own."""
    if out.resolve() == trained.path.resolve():
        raise UserError(f"{out} is the model itself: name another folder, so that both are kept.")
    if not overwrite:
        check_vacant(out)


def write_model(out: Path, trained: Trained, cloud: Cloud, *, overwrite: bool = False) -> Path:
    """Writes config.json, cameras.json, the PLY and the features of changed Gaussians.

    The folder says the same iteration as the model that was changed. config.json comes last: where it is,
    the model is whole.

    Args:
        out: The folder.
        trained: The model it was made of: settings and cameras are taken over.
        cloud: The Gaussians and their features.
        overwrite: Replace the model that is in the folder.

    Returns:
        The PLY.

    Raises:
        UserError: The folder cannot be written to, or is the model's own.
    """
    check_output(out, trained, overwrite)
    make_folder(out, clear=overwrite)
    (out / "config.json").unlink(missing_ok=True)
    ply = ply_path(out, trained.iteration)
    columns = trained.config.ply_features and cloud.field is not None
    model = cloud.changed().model  # another object, so that the cloud stays as it is
    if columns and cloud.field is not None:
        model.features = nn.Parameter(cloud.field.features, requires_grad=False)
    model.save_ply(ply, features=columns)
    if cloud.field is not None:
        cloud.field.save(field_path(ply))
    write_cameras_json(out / "cameras.json", *(trained.cameras[split] for split in SPLITS))
    degree = cast(Literal[0, 1, 2, 3], model.sh_degree)
    replace(trained.config, sh_degree=degree, ply_features=columns).save(out / "config.json")
    return ply
