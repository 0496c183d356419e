"""`feature-gs render` and `render.py`: pictures and videos of a trained model.

    MODEL/{train,test,novel}/iteration_N/
      color/NAME.png        8-bit RGB
      gt/NAME.png           the photo at the same size (train and test)
      depth/NAME.png        16-bit grey; value x depth_scale of depth/meta.json = scene units; 0 = nothing is
                            there, 65535 = that far or farther
      depth_color/NAME.png  the same for the eye: warm is near, cold is far, one scale for the whole run
      alpha/NAME.png        8-bit grey
      video.mp4             the colours along the novel path (--video)

A model with features also gets features/, feature_pca/, compare_teacher/ and feature_video.mp4, see
render_features. NAME is the photo's path without suffix, sub-folders included.
"""

import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tqdm import tqdm

from feature_gs.cli.render_features import TeacherFigures, write_features
from feature_gs.cli.render_pictures import PictureWriter, picture_names
from feature_gs.errors import UserError
from feature_gs.features.comparison import Patch
from feature_gs.features.field import FeatureField
from feature_gs.rendering.camera_path import between_views, interpolate_path
from feature_gs.rendering.colormap import Picture
from feature_gs.rendering.video import check_ffmpeg, write_video
from feature_gs.scenes import Camera, View
from feature_gs.training.trained import Trained, load_trained


@dataclass(frozen=True)
class RenderConfig:
    """Render a trained model: its train and test views, and new ones on a path."""

    model_path: Annotated[Path, tyro.conf.arg(aliases=["-m"])]
    """Folder of the trained model."""
    source_path: Annotated[str, tyro.conf.arg(aliases=["-s"])] = ""
    """Folder of the scene, when it is no longer where it was at training; for photos and teacher maps."""
    iteration: int = -1
    """Iteration to render; -1: the newest."""
    skip_train: bool = False
    """Leave out the training views."""
    skip_test: bool = False
    """Leave out the test views."""
    novel_view: bool = False
    """Render views on a smooth path through the training views."""
    num_views: int = 200
    """Number of novel views."""
    multi_interpolate: bool = False
    """Novel views at 1/3 and 2/3 between each two training views instead; implies --novel_view."""
    video: bool = False
    """Make a video of the novel views; implies --novel_view."""
    fps: float = 30
    """Frames per second of the video."""
    skip_features: bool = False
    """Leave out the features of a model that has some."""
    decode: bool = False
    """Write feature maps in the teacher's space instead of as the Gaussians carry them."""
    compare_teacher: bool = False
    """Write figures of teacher and distilled features: distance to a patch, and principal components."""
    patch: tuple[float, float, float] | None = None
    """The patch of --compare_teacher, X Y SIZE in pixels of the first test view. None: its middle."""
    quiet: bool = False
    """Print nothing but errors."""


def main(argv: list[str] | None = None) -> int:
    """Runs the verb; see the module's text for what it writes."""
    config = tyro.cli(
        RenderConfig,
        args=argv,
        prog="feature-gs render",
        use_underscores=True,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    run(config)
    return 0


def run(config: RenderConfig) -> None:
    """Renders what `config` asks for and says where it is.

    Raises:
        UserError: The model folder or the request is at fault.
    """
    novel = config.novel_view or config.multi_interpolate or config.video
    if config.skip_train and config.skip_test and not (novel or config.compare_teacher):
        raise UserError("nothing to render: --skip_train and --skip_test without --novel_view or --video.")
    if config.num_views < 1 or not 0 < config.fps <= 1000:
        got = f"got {config.num_views} and {config.fps:g}"
        raise UserError(f"--num_views must be at least 1 and --fps between 0 and 1000, {got}.")
    if config.video:
        check_ffmpeg()
    trained = load_trained(config.model_path, config.iteration)
    field = _field(config, trained)
    figures = _figures(config, trained, field)
    say = _silent if config.quiet else print
    skipped = {"train": config.skip_train, "test": config.skip_test}
    sets = {split: trained.cameras[split] for split, skip in skipped.items() if not skip}
    if sets.get("test") == []:
        say("No test views: the model was trained without --eval.")
        del sets["test"]
    if novel:
        sets["novel"] = _novel_cameras(config, trained.cameras["train"])
    photos = _photos(config, trained, say) if sets.keys() & {"train", "test"} else {}
    writer = PictureWriter(trained, photos)
    for name, cameras in sets.items():
        folder = config.model_path / name / f"iteration_{trained.iteration}"
        video = folder / "video.mp4" if name == "novel" and config.video else None
        _consume(config, writer.write(folder, cameras), name, len(cameras), video)
        if field is not None:
            views = list(zip(cameras, picture_names(cameras), strict=True))
            frames = write_features(trained, field, folder, views, decode=config.decode)
            video = folder / "feature_video.mp4" if video else None
            _consume(config, frames, f"{name} features", len(cameras), video)
        if name == "novel":
            _remove_older_frames(folder, len(cameras))
    if figures is not None:
        _consume(config, figures.write(), "figures", len(figures.views), None)
    _report(config, trained, sets, field, figures, say)


def _field(config: RenderConfig, trained: Trained) -> FeatureField | None:
    """The features to be rendered; None where there are none, or none are wanted."""
    wanted = [flag for flag in ("decode", "compare_teacher", "patch") if getattr(config, flag)]
    if config.skip_features:
        if wanted:
            raise UserError(f"--{wanted[0]} and --skip_features exclude each other.")
        return None
    field = trained.field()
    if field is None and wanted:
        raise UserError(
            f"--{wanted[0]}: {config.model_path} has no features at iteration {trained.iteration}. "
            f"Give it some: feature-gs lift -m {config.model_path} -f TEACHER"
        )
    return field


def _figures(config: RenderConfig, trained: Trained, field: FeatureField | None) -> TeacherFigures | None:
    if config.patch is not None and not config.compare_teacher:
        raise UserError("--patch chooses what --compare_teacher looks for: give both.")
    if field is None or not config.compare_teacher:
        return None
    patch = None if config.patch is None else Patch(*config.patch)
    return TeacherFigures(trained, field, config.source_path, patch)


def _consume(
    config: RenderConfig, frames: Iterable[Picture], what: str, count: int, video: Path | None
) -> None:
    """Runs through pictures as they are made, into a video if one is wanted."""
    shown = tqdm(frames, what, count, unit="view", ncols=80, disable=config.quiet)
    if video is not None:
        write_video(video, shown, fps=config.fps)
    else:
        for _ in shown:
            pass


def _silent(_: str) -> None:
    pass


def _novel_cameras(config: RenderConfig, cameras: list[Camera]) -> list[Camera]:
    if not config.multi_interpolate:
        return interpolate_path(cameras, config.num_views)
    if len(cameras) < 2:
        raise UserError("--multi_interpolate needs two training views, the model has one.")
    return between_views(cameras)


def _photos(config: RenderConfig, trained: Trained, say: Callable[[str], None]) -> dict[str, View]:
    """The photos by image name; none, with a message, where the scene's folder is gone."""
    try:
        photos = trained.views(config.source_path)
    except UserError as error:
        say(f"No photos, so gt is left out: {error}\n  If they are elsewhere now, name the folder with -s.")
        return {}
    lost = sum(map(len, trained.cameras.values())) - len(photos)
    if lost:
        say(f"{lost} photos are gone, their gt is left out.")
    return photos


def _remove_older_frames(folder: Path, count: int) -> None:
    """Removes frames of an earlier, longer path, lest they mix with these."""
    for file in [*folder.glob("*/*.png"), *folder.glob("features/*.safetensors")]:
        if re.fullmatch(r"\d{5,}", file.stem) and int(file.stem) >= count:
            file.unlink()


def _report(
    config: RenderConfig,
    trained: Trained,
    sets: dict[str, list[Camera]],
    field: FeatureField | None,
    figures: TeacherFigures | None,
    say: Callable[[str], None],
) -> None:
    say(f"\nRendered iteration {trained.iteration} ({len(trained.model):,} Gaussians):")
    for name, cameras in sets.items():
        folder = config.model_path / name / f"iteration_{trained.iteration}"
        say(f"  {name:<6}{len(cameras):>5} views  {folder}/color")
        if field is not None:
            say(f"  features           {folder}/feature_pca, {folder.name}/features")
        if name == "novel" and config.video:
            say(f"  video              {folder}/video.mp4")
            if field is not None:
                say(f"  video              {folder}/feature_video.mp4")
    if figures is not None:
        say(f"  teacher beside distilled features, {figures.about}:")
        say(f"  {figures.split:<6}{len(figures.views):>5} views  {figures.folder}")
    say(f"Next: feature-gs evaluate -m {shlex.quote(str(config.model_path))}")
