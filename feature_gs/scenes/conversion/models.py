"""The models a reconstruction left, and which of them becomes the scene."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feature_gs.errors import UserError
from feature_gs.scenes.colmap import check_names, read_model
from feature_gs.scenes.colmap_files import PARTS
from feature_gs.scenes.source import some_of


@dataclass(frozen=True)
class Model:
    """A model on disk.

    Attributes:
        folder: Where it lies.
        reconstruction: pycolmap's Reconstruction.
        names: Names of its images by id.
        registered: Names of those that have a pose, sorted.
    """

    folder: Path
    reconstruction: Any
    names: dict[int, str]
    registered: list[str]


def read_models(folder: Path) -> list[Model]:
    """All models in `folder` (0, 1, ..., or the folder itself), the one of most photos first.

    Raises:
        UserError: One is damaged, or names images that cannot be written.
    """
    models = []
    for path in model_folders(folder):
        reconstruction, names = read_model(path)
        registered = sorted(names[i] for i, image in reconstruction.images.items() if image.has_pose)
        check_names(registered, min(path.glob("images.*")))
        models.append(Model(path, reconstruction, names, registered))
    return sorted(models, key=lambda m: (-len(m.registered), -m.reconstruction.num_points3D(), m.folder.name))


def model_folders(folder: Path) -> list[Path]:
    """Folders of the COLMAP models in `folder`: itself, or its sub-folders 0, 1, and so on."""
    if not folder.is_dir():
        return []
    numbered = sorted((p for p in folder.iterdir() if p.name.isdecimal()), key=lambda path: int(path.name))
    return [path for path in [*numbered, folder] if _is_model(path)]


def choose_model(models: list[Model], photos: list[str], origin: Path) -> tuple[Model, list[str]]:
    """The largest model, and what the user should be told about it and the others.

    Args:
        models: As `read_models` gives them.
        photos: Names of all photos.
        origin: Where they were looked for.

    Raises:
        UserError: There is no model, or none has photos.
    """
    if not models or not models[0].registered:
        raise UserError(
            f"{origin} holds no model with photos in it (0/cameras.bin, images.bin, points3D.bin). Without "
            "--skip_matching one is made of the photos."
        )
    best = models[0]
    messages = []
    if len(models) > 1:
        counts = ", ".join(f"{model.folder.name}: {len(model.registered)}" for model in models)
        messages.append(
            f"the photos fall into {len(models)} models that could not be joined (photos each: {counts}); "
            f"model {best.folder.name} is used. More photos from between them may join them."
        )
    lost = sorted(set(photos) - set(best.registered))
    if lost:
        messages.append(f"{len(lost)} of {len(photos)} photos could not be placed: {some_of(lost)}")
    return best, messages


def _is_model(folder: Path) -> bool:
    return any((folder / (part + suffix)).is_file() for part in PARTS for suffix in (".bin", ".txt"))
