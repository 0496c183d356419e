"""`feature-gs decompose`: every view three times: all, only what is selected, and without it.

    feature-gs decompose -m MODEL --selection NAME

NAME is a query of the model (feature-gs segment) or the path of a selection. Beside the selection appear

    decompose/all/VIEW.png         the scene as it is, to the bit as `feature-gs render` shows it
    decompose/only/VIEW.png        what is selected, over the background
    decompose/only_alpha/VIEW.png  how much it covers there, 8-bit grey
    decompose/without/VIEW.png     the rest
    decompose/strip.png            three views of it, side by side
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tqdm import tqdm

from feature_gs.cli.render_pictures import picture_names
from feature_gs.editing import Cloud
from feature_gs.editing.cleanup import CleanUp, cleaned
from feature_gs.editing.decompose import only, without
from feature_gs.editing.questions import selection_file
from feature_gs.errors import UserError
from feature_gs.queries.selection import Selection
from feature_gs.rendering.camera_path import interpolate_path
from feature_gs.rendering.colormap import Picture
from feature_gs.rendering.pictures import save_picture, to_uint8
from feature_gs.rendering.strip import picture_strip
from feature_gs.scenes import Camera
from feature_gs.training.trained import SPLITS, Trained, load_trained

_CAPTIONS = ("all", "only it", "without it")
_STRIP_VIEWS = 3


@dataclass(frozen=True)
class DecomposeConfig:
    """Render views of a model with and without a selection."""

    model_path: Annotated[Path, tyro.conf.arg(aliases=["-m"])]
    """Folder of the trained model."""
    selection: str
    """Name of a query of the model, or path of a selection.safetensors."""
    iteration: int = -1
    """Iteration to render; -1: the newest."""
    soft: bool = False
    """Multiply opacities by the scores (and by what they lack of 1) instead of keeping and dropping."""
    smooth: int = 0
    """Average the scores over so many neighbours."""
    threshold: float | None = None
    """Select what scores above it, 0 to 1, instead of what the query chose."""
    largest_cluster: bool = False
    """Drop what lies apart from the largest part."""
    drop_hidden: float = 0.0
    """only: drop what the training views hide: Gaussians of which they show less than this share (0.3 is
    good) of what would be seen of the selection alone. 0: keep them."""
    views: Literal["train", "test", "novel", "all"] | None = None
    """The views to render; all: train and test. None: test, or train where there are no test views."""
    num_views: int = 60
    """novel: number of views on a smooth path through the training views."""
    output: Path | None = None
    """Folder for the pictures. None: decompose beside the selection."""
    quiet: bool = False
    """Print nothing but errors."""


def main(argv: list[str] | None = None) -> int:
    """Runs the verb; see the module's text for what it writes."""
    config = tyro.cli(
        DecomposeConfig,
        args=argv,
        prog="feature-gs decompose",
        use_underscores=True,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    run(config)
    return 0


def run(config: DecomposeConfig) -> None:
    """Renders what `config` asks for and says where it is.

    Raises:
        UserError: The model, the selection or the request is at fault.
    """
    if config.num_views < 1:
        raise UserError(f"--num_views must be at least 1, got {config.num_views}.")
    clean_up = CleanUp(config.smooth, config.threshold, config.largest_cluster)
    uncover = CleanUp(drop_hidden=config.drop_hidden)
    trained = load_trained(config.model_path, config.iteration)
    path = selection_file(config.model_path, config.selection)
    selection = Selection.load(path, len(trained.model))
    cameras = _cameras(config, trained)
    cloud = Cloud(trained.model)
    selection = cleaned(selection, trained, clean_up)
    if not _holds_any(selection, config.soft):
        best = float(selection.scores.max()) if len(selection) else 0.0
        raise UserError(
            f"The selection holds no Gaussian: of {path} none is selected, the highest score is {best:.2g}. "
            "Give a lower --threshold, or ask again with feature-gs segment."
        )
    shown = cleaned(selection, trained, uncover)
    if not _holds_any(shown, config.soft):
        raise UserError(
            f"The selection holds no Gaussian: --drop_hidden {config.drop_hidden:g} drops all that it held. "
            "Give less."
        )
    parts = [
        trained,
        replace(trained, model=only(cloud, shown, soft=config.soft).model),
        replace(trained, model=without(cloud, selection, soft=config.soft).model),
    ]
    folder = config.output or path.parent / "decompose"
    in_strip = [round(i * (len(cameras) - 1) / (_STRIP_VIEWS - 1)) for i in range(_STRIP_VIEWS)]
    rows = []
    views = zip(cameras, picture_names(cameras), strict=True)
    for number, (camera, name) in enumerate(
        tqdm(views, "views", len(cameras), unit="view", ncols=80, disable=config.quiet)
    ):
        row = _write(parts, camera, folder, name)
        if number in in_strip:
            rows.append(row)
    save_picture(folder / "strip.png", picture_strip(rows, _CAPTIONS))
    if not config.quiet:
        chosen = int(selection.selected.sum())
        print(f"\n{path}: {chosen:,} of {len(selection):,} Gaussians, {len(cameras)} views:")
        print(f"  {folder}/all, only, only_alpha, without; side by side: strip.png")


def _write(parts: Sequence[Trained], camera: Camera, folder: Path, name: str) -> list[Picture]:
    """Writes the pictures of one view and returns the three with colours."""
    pictures = []
    for kind, part in zip(("all", "only", "without"), parts, strict=True):
        output = part.render(camera)
        pictures.append(to_uint8(output.color[0]))
        save_picture(folder / kind / name, pictures[-1])
        if kind == "only":
            save_picture(folder / "only_alpha" / name, to_uint8(output.alpha[0]))
    return pictures


def _holds_any(selection: Selection, soft: bool) -> bool:
    return bool(((selection.scores > 0) if soft else selection.selected).any())


def _cameras(config: DecomposeConfig, trained: Trained) -> list[Camera]:
    views = config.views or ("test" if trained.cameras["test"] else "train")
    if views == "novel":
        return interpolate_path(trained.cameras["train"], config.num_views)
    cameras = [camera for split in SPLITS if views in ("all", split) for camera in trained.cameras[split]]
    if not cameras:
        raise UserError("there are no test views: the model was trained without --eval. Take --views train.")
    return sorted(cameras, key=lambda camera: camera.name)
