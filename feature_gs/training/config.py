"""Every setting of a training run: the command line's flags and the contents of config.json."""

import json
import math
import types
import typing
import warnings
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from feature_gs.errors import UserError
from feature_gs.files import atomic_write

_OF_ONE_RUN = frozenset({"model_path", "resume", "overwrite", "start_checkpoint", "quiet"})


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run. Numbers left at None follow from --iterations and --strategy."""

    source_path: Annotated[str, tyro.conf.arg(aliases=["-s"])] = ""
    """Folder of the scene: photos with a COLMAP model, or transforms_*.json."""
    model_path: Annotated[str, tyro.conf.arg(aliases=["-m"])] = ""
    """Folder the model is written to. Empty: output/NAME-OF-THE-SCENE-FOLDER."""
    images: Annotated[str, tyro.conf.arg(aliases=["-i"])] = "images"
    """Folder of the photos inside the scene."""
    resolution: Annotated[float, tyro.conf.arg(aliases=["-r"])] = -1
    """1, 2, 4, 8: divide the photos' size; other numbers: width in pixels; -1: as is, at most 1600 wide."""
    eval: bool = False
    """Keep every 8th photo (or those named in test.txt) for testing."""
    white_background: Annotated[bool, tyro.conf.arg(aliases=["-w"])] = False
    """White behind the Gaussians (and transparent photos) instead of black."""
    data_device: Literal["cpu", "cuda"] = "cpu"
    """Where the photos are kept."""
    sh_degree: Literal[0, 1, 2, 3] = 3
    """How much colours may change with the direction of view."""
    near: float = 0.01
    """Gaussians nearer than this to the camera are not drawn, scene units."""
    antialiased: bool = False
    """Fade Gaussians smaller than a pixel instead of widening them."""

    foundation_model: Annotated[str, tyro.conf.arg(aliases=["-f"])] = ""
    """Teach the Gaussians features: a teacher's name (handcrafted, dinov2_small, ...; its maps are made first
    where they are missing) or a folder of maps. Empty: colours only."""
    weights: str = ""
    """File with the teacher's weights. Empty: those it finds or fetches itself."""
    features: Literal["joint", "lift", "lift+joint"] = "joint"
    """How: beside the colours from the start (joint), in closed form at the end (lift), or in closed form
    once densification is over and then beside the colours (lift+joint)."""
    feature_dim: int | None = None
    """Channels a Gaussian carries. None: all of the teacher's, or a quarter of them with a decoder."""
    decoder: Literal["none", "linear", "conv3x3"] = "none"
    """What makes the teacher's channels of the carried ones."""
    decoder_start: Literal["pca", "random"] = "pca"
    """linear: start from the principal components of the teacher's maps, or from chance."""
    speedup: bool = False
    """The same as --decoder linear."""
    feature_weight: float = 1.0
    """Weight of the feature loss; without --features_move_geometry only its sign matters."""
    feature_loss: Literal["l1", "cosine"] = "l1"
    """Mean absolute difference of the features, or 1 - cosine."""
    features_move_geometry: bool = False
    """Let the feature loss move the Gaussians, not only their features."""
    semantic_lr_init: float = 0.1
    """First step of the features, as a share of the teacher's root mean square."""
    semantic_lr_final: float = 0.003
    """Last step of the features."""
    decoder_lr: float = 0.001
    """Learning rate of the decoder."""
    ply_features: bool = False
    """Also write the features into the PLY, as columns semantic_0, semantic_1, ..."""

    iterations: int = 30_000
    """Number of steps, one photo each."""
    seed: int = 0
    """Of the photos' order and all other chance."""
    strategy: Literal["default", "mcmc"] = "default"
    """How Gaussians are added: clone, split and prune (default), or relocate up to --cap_max (mcmc)."""
    cap_max: int = 1_000_000
    """mcmc: largest number of Gaussians."""
    absgrad: bool = False
    """default: densify by the pixels' absolute gradients, which finds blurred detail better."""

    lambda_dssim: float = 0.2
    """Weight of 1 - SSIM in the loss; L1 has the rest."""
    position_lr_init: float = 1.6e-4
    """First learning rate of the positions, times the extent of the cameras."""
    position_lr_final: float = 1.6e-6
    """Last learning rate of the positions."""
    position_lr_max_steps: int | None = None
    """Iteration at which it is reached. None: the last."""
    feature_lr: float = 0.0025
    """Learning rate of the colours; a 20th of it for what depends on direction."""
    opacity_lr: float = 0.05
    """Learning rate of the opacities."""
    scaling_lr: float = 0.005
    """Learning rate of the scales."""
    rotation_lr: float = 0.001
    """Learning rate of the rotations."""
    sh_interval: int | None = None
    """Iterations between SH degrees."""

    densify_from_iter: int | None = None
    """Add and remove Gaussians after this iteration."""
    densify_until_iter: int | None = None
    """Add and remove Gaussians up to this iteration."""
    densification_interval: int | None = None
    """Iterations between additions."""
    opacity_reset_interval: int | None = None
    """default: iterations between resets of the opacities."""
    densify_grad_threshold: float | None = None
    """default: mean gradient of the screen position from which a Gaussian is cloned or split.
    None: 2e-4, or 8e-4 with --absgrad."""
    percent_dense: float = 0.01
    """default: larger Gaussians than this share of the extent are split, smaller ones cloned."""
    min_opacity: float = 0.005
    """Less opaque Gaussians are removed (default) or relocated (mcmc)."""
    max_screen_size: float = 0.0
    """default: remove Gaussians of a larger radius than this, pixels, after the first reset. 0: keep them."""
    noise_lr: float = 1e5
    """mcmc: strength of the random walk."""
    opacity_reg: float = 0.001
    """mcmc: weight of the mean opacity in the loss."""
    scale_reg: float = 0.001
    """mcmc: weight of the mean scale in the loss."""

    test_iterations: tuple[int, ...] = (7000, 30_000)
    """Measure the test views at these iterations and at the last."""
    save_iterations: tuple[int, ...] = (7000, 30_000)
    """Write the PLY at these iterations and at the last."""
    checkpoint_iterations: tuple[int, ...] = ()
    """Write a checkpoint, from which --resume continues, at these iterations."""
    start_checkpoint: str = ""
    """Start from this checkpoint file."""
    resume: bool = False
    """Continue from the newest checkpoint in the model folder, with the settings stored there."""
    overwrite: bool = False
    """Replace the model that is in the folder, and with it pictures, figures and queries."""
    quiet: bool = False
    """Print only errors and, at the end, the model folder."""

    def check(self) -> None:
        """Raises UserError when a number is out of its range."""
        limits = {
            "iterations": (1, math.inf),
            "cap_max": (1, math.inf),
            "seed": (0, 2**62),
            "lambda_dssim": (0, 1),
            "percent_dense": (0, math.inf),
            "min_opacity": (0, 1),
            "max_screen_size": (0, math.inf),
            "near": (1e-9, math.inf),
            "position_lr_init": (1e-30, 1e30),
            "position_lr_final": (1e-30, 1e30),
            "position_lr_max_steps": (1, math.inf),
            "sh_interval": (1, math.inf),
            "densification_interval": (1, math.inf),
            "opacity_reset_interval": (1, math.inf),
            "feature_dim": (1, 1 << 16),
            "feature_weight": (0, 1e30),
            **dict.fromkeys(("semantic_lr_init", "semantic_lr_final", "decoder_lr"), (1e-30, 1e30)),
            **dict.fromkeys(("feature_lr", "opacity_lr", "scaling_lr", "rotation_lr"), (0, 1e30)),
            **dict.fromkeys(("noise_lr", "opacity_reg", "scale_reg"), (0, 1e30)),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UserError(f"--{name} must lie between {low:g} and {high:g}, got {value}.")

    def save(self, path: Path) -> None:
        """Writes config.json; what concerns only this run (--resume, --quiet, ...) is left out."""
        content = {name: value for name, value in asdict(self).items() if name not in _OF_ONE_RUN}
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> "TrainConfig":
        """Reads config.json. Settings this version does not know are named in a warning and ignored.

        Raises:
            UserError: The file is missing, is not JSON, or a value has the wrong type.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8-sig"))
        except OSError as error:
            raise UserError(
                f"cannot read {path}: {error.strerror or error}. Is this a model folder?"
            ) from error
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is not JSON: {error}.") from error
        if not isinstance(content, dict):
            raise UserError(f"{path} must hold a JSON object, got {type(content).__name__}.")
        hints = typing.get_type_hints(cls)
        known = {field.name for field in fields(cls)} - _OF_ONE_RUN
        unknown = sorted(content.keys() - known)
        if unknown:
            warnings.warn(f"{path}: unknown settings {', '.join(unknown)} are ignored", stacklevel=2)
        values = {
            name: _typed(value, hints[name], f"{path}: {name}")
            for name, value in content.items()
            if name in known
        }
        config = cls(**values)
        config.check()
        return config


def _typed(value: Any, hint: Any, where: str) -> Any:
    """`value` from JSON as the type `hint`; UserError if it is of another."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value in arguments and type(value) in {type(argument) for argument in arguments}:
            return value
        raise UserError(f"{where} must be one of {', '.join(map(str, arguments))}, got {value!r}.")
    if origin is types.UnionType:
        return None if value is None else _typed(value, arguments[0], where)
    if origin is tuple:
        if isinstance(value, list):
            return tuple(_typed(item, arguments[0], where) for item in value)
    elif hint is float:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    elif type(value) is hint:
        return value
    expected = "list" if origin is tuple else hint.__name__
    raise UserError(f"{where} must be of type {expected}, got {value!r}.")
