"""Finding or making the maps that a run teaches, before anything else starts."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from feature_gs.encoders import encoder_names, is_encoder_name, load_encoder
from feature_gs.errors import UserError
from feature_gs.features.decoders import check_channels
from feature_gs.features.encoding import encode_scene
from feature_gs.features.teacher import TeacherStore, find_teacher, teacher_folder
from feature_gs.rasterizer.device import network_device
from feature_gs.scenes import Scene, View, load_scene
from feature_gs.training.config import TrainConfig

_FEATURE_FLAGS = (
    *("weights", "features", "feature_dim", "decoder", "decoder_start", "speedup", "feature_weight"),
    *("feature_loss", "features_move_geometry", "semantic_lr_init", "semantic_lr_final", "decoder_lr"),
    "ply_features",
)


def check_feature_flags(config: TrainConfig) -> None:
    """Raises UserError where flags of features contradict each other or lack a teacher."""
    if not config.foundation_model:
        usual = TrainConfig()
        given = [name for name in _FEATURE_FLAGS if getattr(config, name) != getattr(usual, name)]
        if given:
            raise UserError(
                f"--{given[0]} needs a teacher: name one with -f (handcrafted, dinov2_small, ...)."
            )
        if config.resolution == 0:
            raise UserError(
                "-r 0 means the grid of the teacher's maps and needs a teacher: name one with -f."
            )
    if config.speedup and config.decoder != "none" and config.decoder != "linear":
        raise UserError(f"--speedup means --decoder linear, not {config.decoder}: leave one of them out.")
    if config.decoder == "conv3x3" and config.features != "joint":
        raise UserError(
            "a conv3x3 decoder mixes neighbouring cells, so nothing can be lifted through it: use "
            "--features joint, or --decoder linear."
        )
    if config.features_move_geometry and config.features == "lift":
        raise UserError(
            "--features lift leaves the Gaussians as they are: leave out --features_move_geometry."
        )


def with_feature_dim(config: TrainConfig, channels: int) -> TrainConfig:
    """The settings with decoder and feature_dim filled in for a teacher of so many channels.

    Raises:
        UserError: The feature_dim does not fit the decoder and the teacher.
    """
    decoder = "linear" if config.speedup else config.decoder
    if config.feature_dim is not None:
        check_channels(decoder, config.feature_dim, channels, pca=config.decoder_start == "pca")
    usual = channels if decoder == "none" else max(1, channels // 4)
    return replace(config, decoder=decoder, speedup=False, feature_dim=config.feature_dim or usual)


def open_teacher(
    spec: str,
    source: Path,
    needed: Sequence[View],
    *,
    images: str = "images",
    white_background: bool = False,
    weights: str = "",
    accept: Callable[[int], object] = lambda channels: None,
    say: Callable[[str], None] = print,
    quiet: bool = False,
) -> TeacherStore:
    """The maps that -f names. Of a teacher known by name, those that are missing are made, of all photos.

    Args:
        spec: A teacher's name or a folder of maps.
        source: The scene's folder.
        needed: The views whose maps will be read.
        images: Folder of the photos inside the scene.
        white_background: White behind transparent photos instead of black.
        weights: File with the teacher's weights; empty: those it finds or fetches itself.
        accept: Takes the teacher's channels before any map is made; raises UserError if they do not suit.
        say: Takes the messages.
        quiet: Show no progress bar.

    Raises:
        UserError: The teacher is unknown, its weights are missing, or a folder lacks maps.
    """
    folder = find_teacher(source, spec)
    if folder is not None:
        store = TeacherStore.open(folder)
        accept(store.channels)
        lacking = store.missing(needed)
        if not lacking:
            return store
        if not is_encoder_name(spec):
            raise UserError(
                f"{folder} has no map of {len(lacking)} photos, e.g. {lacking[0]}. Make or remove them."
            )
    elif not is_encoder_name(spec):
        raise UserError(
            f"-f {spec} is neither a teacher nor a folder of maps. Teachers: {', '.join(encoder_names())}, "
            "timm:MODEL. A folder holds meta.json and one .safetensors file per photo (docs/files.md)."
        )
    scene = load_scene(source, images=images, resolution=1, white_background=white_background)
    weights_path = Path(weights) if weights else None
    encoder = load_encoder(spec, weights=weights_path, device=network_device())
    accept(encoder.channels)
    flags = ["-f", spec, *(["-i", images] if images != "images" else [])]
    flags += [*(["--weights", weights] if weights else []), *(["-w"] if white_background else [])]
    folder = folder or teacher_folder(source, spec)
    return encode_scene(scene, encoder, folder, flags=shlex.join(flags), say=say, quiet=quiet)


def at_teacher_size(scene: Scene, teacher: TeacherStore) -> Scene:
    """The scene with every photo at the size of its teacher map (-r 0)."""

    def resized(view: View) -> View:
        found = teacher.load(view)
        size = (max(1, round(cells)) for cells in (found.cells_x, found.cells_y))
        return replace(view, camera=view.camera.resized(*size))

    lists = ([resized(view) for view in views] for views in (scene.train, scene.test))
    train, test = lists
    return replace(scene, train=train, test=test)
