"""`feature-gs render` and `render.py`: pictures and videos of a trained model.

    MODEL/{train,test,novel}/iteration_N/
      color/NAME.png        8-bit RGB
      gt/NAME.png           the photo at the same size (train and test)
      depth/NAME.png        16-bit grey; value x depth_scale of depth/meta.json = scene units; 0 = nothing is
                            there, 65535 = that far or farther
      depth_color/NAME.png  the same for the eye: warm is near, cold is far, one scale for the whole run
      alpha/NAME.png        8-bit grey
      video.mp4             the colours along the novel path (--video)

NAME is the photo's path without suffix, sub-folders included.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated

import tyro
from tqdm import tqdm

from feature_gs.cli.trained import Trained, load_trained
from feature_gs.errors import UserError
from feature_gs.files import atomic_write
from feature_gs.rasterizer import RenderOutput
from feature_gs.rendering.camera_path import between_views, interpolate_path
from feature_gs.rendering.colormap import DepthRange, Picture, depth_colors
from feature_gs.rendering.pictures import depth_scale_for, depth_to_uint16, save_picture, to_uint8
from feature_gs.rendering.video import check_ffmpeg, write_video
from feature_gs.scenes import Camera, View

_PROBES = 12  # views that decide the range of depths of a run
_FAR_MARGIN = 3.0  # 16-bit depth reaches this many times as far as the colours


@dataclass(frozen=True)
class RenderConfig:
    """Render a trained model: its train and test views, and new ones on a path."""

    model_path: Annotated[Path, tyro.conf.arg(aliases=["-m"])]
    """Folder of the trained model."""
    source_path: Annotated[str, tyro.conf.arg(aliases=["-s"])] = ""
    """Folder of the scene, when it is no longer where it was at training; only for the photos in gt."""
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
    if config.skip_train and config.skip_test and not novel:
        raise UserError("nothing to render: --skip_train and --skip_test without --novel_view or --video.")
    if config.num_views < 1 or not 0 < config.fps <= 1000:
        got = f"got {config.num_views} and {config.fps:g}"
        raise UserError(f"--num_views must be at least 1 and --fps between 0 and 1000, {got}.")
    if config.video:
        check_ffmpeg()
    trained = load_trained(config.model_path, config.iteration)
    say = _silent if config.quiet else print
    skipped = {"train": config.skip_train, "test": config.skip_test}
    sets = {split: trained.cameras[split] for split, skip in skipped.items() if not skip}
    if sets.get("test") == []:
        say("No test views: the model was trained without --eval.")
        del sets["test"]
    if novel:
        sets["novel"] = _novel_cameras(config, trained.cameras["train"])
    photos = _photos(config, trained, say) if sets.keys() & {"train", "test"} else {}
    writer = _Writer(trained, photos)
    for name, cameras in sets.items():
        folder = config.model_path / name / f"iteration_{trained.iteration}"
        frames = tqdm(
            writer.write(folder, cameras), name, len(cameras), unit="view", ncols=80, disable=config.quiet
        )
        if name == "novel" and config.video:
            write_video(folder / "video.mp4", frames, fps=config.fps)
        else:
            for _ in frames:
                pass
        if name == "novel":
            _remove_older_frames(folder, len(cameras))
    _report(config, trained, sets, say)


class _Writer:
    """Renders views and writes their pictures, with one scale of depth for the whole run."""

    def __init__(self, trained: Trained, photos: dict[str, View]) -> None:
        self._trained = trained
        self._photos = photos
        cameras = trained.cameras["train"]
        probes = [trained.render(camera) for camera in cameras[:: -(-len(cameras) // _PROBES)]]
        self._range = DepthRange.of((probe.depth, probe.alpha) for probe in probes)
        self._depth_scale = depth_scale_for(_FAR_MARGIN * self._range.far)

    def write(self, folder: Path, cameras: Sequence[Camera]) -> Iterator[Picture]:
        """Writes the pictures of each camera under `folder` and yields its colours."""
        with atomic_write(folder / "depth" / "meta.json") as temporary:
            meta = {"depth_scale": self._depth_scale, "zero": "nothing", "kind": "expected z, scene units"}
            temporary.write_text(json.dumps(meta, indent=2) + "\n")
        for camera, name in zip(cameras, picture_names(cameras), strict=True):
            color = self._write_one(folder, name, self._trained.render(camera))
            if camera.name in self._photos:
                save_picture(folder / "gt" / name, self._photos[camera.name].load().numpy())
            yield color

    def _write_one(self, folder: Path, name: str, output: RenderOutput) -> Picture:
        color, depth, alpha = to_uint8(output.color[0]), output.depth[0], output.alpha[0]
        save_picture(folder / "color" / name, color)
        save_picture(folder / "depth" / name, depth_to_uint16(depth, alpha, self._depth_scale))
        save_picture(folder / "depth_color" / name, depth_colors(depth, alpha, self._range))
        save_picture(folder / "alpha" / name, to_uint8(alpha))
        return color


def picture_names(cameras: Sequence[Camera]) -> list[str]:
    """Names of the pictures of some cameras: "left/0001.jpg" becomes "left/0001.png".

    Where two images differ only in their suffix, both keep it: "0001.jpg.png".
    """
    stems = [str(PurePosixPath(camera.name).with_suffix("")) for camera in cameras]
    uses = Counter(stems)
    return [
        f"{stem if uses[stem] == 1 else camera.name}.png" for stem, camera in zip(stems, cameras, strict=True)
    ]


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
    for picture in folder.glob("*/*.png"):
        if re.fullmatch(r"\d{5,}", picture.stem) and int(picture.stem) >= count:
            picture.unlink()


def _report(
    config: RenderConfig, trained: Trained, sets: dict[str, list[Camera]], say: Callable[[str], None]
) -> None:
    say(f"\nRendered iteration {trained.iteration} ({len(trained.model):,} Gaussians):")
    for name, cameras in sets.items():
        folder = config.model_path / name / f"iteration_{trained.iteration}"
        say(f"  {name:<6}{len(cameras):>5} views  {folder}/color")
        if name == "novel" and config.video:
            say(f"  video              {folder}/video.mp4")
    say(f"Next: feature-gs evaluate -m {config.model_path}")
