"""A changed scene as a model folder of its own, which every verb takes."""

from dataclasses import replace
from pathlib import Path
from typing import Literal, cast

from torch import nn

from feature_gs.editing.cloud import Cloud
from feature_gs.errors import UserError
from feature_gs.features.field import field_path
from feature_gs.scenes import write_cameras_json
from feature_gs.training.folder import check_vacant, model_written_whole
from feature_gs.training.trained import SPLITS, Trained, ply_path


def check_output(out: Path, trained: Trained, overwrite: bool) -> None:
    """Raises UserError where a model cannot be written to: a folder in use, or the model's own."""
    if out.resolve() == trained.path.resolve():
        raise UserError(f"{out} is the model itself: name another folder, so that both are kept.")
    if not overwrite:
        check_vacant(out)


def write_model(out: Path, trained: Trained, cloud: Cloud, *, overwrite: bool = False) -> Path:
    """Writes config.json, cameras.json, the PLY and the features of changed Gaussians.

    The folder says the same iteration as the model that was changed. A model that was there is replaced when
    all is written.

    Args:
        out: The folder.
        trained: The model it was made of: settings and cameras are taken over.
        cloud: The Gaussians and their features.
        overwrite: Replace the model that is in the folder, and what came of it.

    Returns:
        The PLY.

    Raises:
        UserError: The folder cannot be written to or is the model's own, or there is no Gaussian.
    """
    check_output(out, trained, overwrite)
    if not len(cloud):
        raise UserError(f"nothing is left of the scene: there is no Gaussian to write to {out}.")
    columns = trained.config.ply_features and cloud.field is not None
    model = cloud.changed().model  # another object, so that the cloud stays as it is
    if columns and cloud.field is not None:
        model.features = nn.Parameter(cloud.field.features, requires_grad=False)
    degree = cast(Literal[0, 1, 2, 3], model.sh_degree)
    with model_written_whole(out, overwrite) as folder:
        ply = ply_path(folder, trained.iteration)
        model.save_ply(ply, features=columns)
        if cloud.field is not None:
            cloud.field.save(field_path(ply))
        write_cameras_json(folder / "cameras.json", *(trained.cameras[split] for split in SPLITS))
        replace(trained.config, sh_degree=degree, ply_features=columns).save(folder / "config.json")
    return ply_path(out, trained.iteration)
