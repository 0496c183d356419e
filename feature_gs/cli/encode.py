"""`feature-gs encode`: teacher maps of every photo of a scene.

    SCENE/features/TEACHER/
      meta.json             the teacher, its channels and settings
      NAME.safetensors      the map of one photo: `features` [channels, rows, columns], float16
      preview.png           some photos above their maps, coloured
      pca.npz               with --pca: the basis

NAME is the photo's path without suffix, sub-folders included. What is finished is not done again.
"""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from feature_gs.encoders import is_encoder_name, load_encoder
from feature_gs.errors import UserError
from feature_gs.features.encoding import encode_scene
from feature_gs.features.teacher import find_teacher, teacher_folder
from feature_gs.rasterizer.device import network_device
from feature_gs.scenes import load_scene


@dataclass(frozen=True)
class EncodeConfig:
    """Write a teacher's maps of all photos of a scene, for training and lifting."""

    source_path: Annotated[Path, tyro.conf.arg(aliases=["-s"])]
    """Folder of the scene."""
    teacher: Annotated[str, tyro.conf.arg(aliases=["-f"])]
    """The teacher: a name such as handcrafted or dinov2_small, timm:MODEL, or package.module:Class; with
    options, "dino_vits8?layer=9&facet=key"."""
    images: Annotated[str, tyro.conf.arg(aliases=["-i"])] = "images"
    """Folder of the photos inside the scene."""
    weights: Path | None = None
    """File with the teacher's weights. None: those it finds or fetches itself."""
    pca: int | None = None
    """Keep so many principal components over the whole scene instead of all channels."""
    name: str = ""
    """Name of the folder below SCENE/features. Empty: the teacher's name with its options."""
    white_background: Annotated[bool, tyro.conf.arg(aliases=["-w"])] = False
    """White behind transparent photos instead of black."""
    overwrite: bool = False
    """Replace maps that were made with other settings."""
    quiet: bool = False
    """Print nothing but errors."""


def main(argv: list[str] | None = None) -> int:
    """Runs the verb; see the module's text for what it writes."""
    config = tyro.cli(
        EncodeConfig,
        args=argv,
        prog="feature-gs encode",
        use_underscores=True,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    run(config)
    return 0


def run(config: EncodeConfig) -> None:
    """Encodes what `config` asks for and says where it is.

    Raises:
        UserError: The scene, the teacher or the folder is at fault.
    """
    say = _silent if config.quiet else print
    scene = load_scene(
        config.source_path, images=config.images, resolution=1, white_background=config.white_background
    )
    maps = None if is_encoder_name(config.teacher) else find_teacher(config.source_path, config.teacher)
    if maps is not None:
        raise UserError(f"{maps} holds maps already: train on them with -f {config.teacher}.")
    encoder = load_encoder(config.teacher, weights=config.weights, device=network_device())
    name = config.name or config.teacher
    folder = teacher_folder(config.source_path, name)
    try:
        store = encode_scene(
            scene,
            encoder,
            folder,
            pca=config.pca,
            overwrite=config.overwrite,
            flags=_flags(config),
            say=say,
            quiet=config.quiet,
        )
    except KeyboardInterrupt:
        print("\nFinished maps are kept; the same command goes on.", file=sys.stderr)
        raise
    say(f"\nmaps:     {store.folder}\npreview:  {store.folder / 'preview.png'}")
    say(f"next:     feature-gs train -s {shlex.quote(str(config.source_path))} -f {shlex.quote(name)}")


def _flags(config: EncodeConfig) -> str:
    """The flags that ask for the same maps again."""
    flags = ["-f", config.teacher]
    flags += ["-i", config.images] if config.images != "images" else []
    flags += ["--weights", str(config.weights)] if config.weights else []
    flags += ["--pca", str(config.pca)] if config.pca else []
    flags += ["--name", config.name] if config.name else []
    flags += ["-w"] if config.white_background else []
    return shlex.join(flags)


def _silent(_: str) -> None:
    pass
