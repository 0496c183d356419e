"""The flags of `feature-gs lift`, and which of them go together."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from feature_gs.errors import UserError
from feature_gs.training import TrainConfig
from feature_gs.training.folder import check_vacant

_OF_A_PLY = ("images", "resolution", "eval", "white_background", "near", "antialiased", "overwrite")


@dataclass(frozen=True)
class LiftConfig:
    """Give finished Gaussians the features of a teacher, in closed form."""

    model_path: Annotated[Path, tyro.conf.arg(aliases=["-m"])]
    """Folder of the trained model; with --ply the folder to be made."""
    teacher: Annotated[str, tyro.conf.arg(aliases=["-f"])]
    """The teacher: a name (handcrafted, dinov2_small, ...; its maps are made first where they are missing) or
    a folder of maps."""
    ply: Path | None = None
    """Gaussians of any tool instead of a trained model; needs -s."""
    source_path: Annotated[str, tyro.conf.arg(aliases=["-s"])] = ""
    """Folder of the scene; without --ply only when it is no longer where it was at training."""
    iteration: int = -1
    """Iteration of the trained model; -1: the newest."""
    solver: Literal["mean", "cg"] = "mean"
    """The weighted mean of what the views say, or least squares by conjugate gradients: sharper, and better
    where the views agree; noise of the teacher is averaged less."""
    iterations: int | None = None
    """cg: most iterations. None: 5."""
    decoder: Literal["none", "linear"] = "none"
    """Let the Gaussians carry the teacher's channels, or its principal components."""
    feature_dim: int | None = None
    """linear: how many. None: a quarter of the teacher's channels."""
    weights: str = ""
    """File with the teacher's weights. Empty: those it finds or fetches itself."""
    ply_features: bool = False
    """Also write the features into the PLY, as columns semantic_0, semantic_1, ..."""
    images: Annotated[str, tyro.conf.arg(aliases=["-i"])] = "images"
    """--ply: folder of the photos inside the scene."""
    resolution: Annotated[float, tyro.conf.arg(aliases=["-r"])] = -1
    """--ply: 1, 2, 4, 8: divide the photos' size; 0: the grid of the teacher's maps; other numbers: width in
    pixels; -1: as is, at most 1600 wide."""
    eval: bool = False
    """--ply: keep every 8th photo (or those named in test.txt) for testing; nothing is learnt from them."""
    white_background: Annotated[bool, tyro.conf.arg(aliases=["-w"])] = False
    """--ply: white behind the Gaussians (and transparent photos) instead of black."""
    near: float = 0.01
    """--ply: Gaussians nearer than this to the camera are not drawn, scene units."""
    antialiased: bool = False
    """--ply: the Gaussians were trained with fading instead of widening below the size of a pixel."""
    overwrite: bool = False
    """--ply: replace the model that is in the folder."""
    quiet: bool = False
    """Print nothing but errors."""

    def check(self) -> None:
        """Raises UserError where flags contradict each other, or a folder is not free."""
        usual = LiftConfig(self.model_path, self.teacher)
        if self.ply is None:
            given = [name for name in _OF_A_PLY if getattr(self, name) != getattr(usual, name)]
            if given:
                raise UserError(f"--{given[0]} goes with --ply: a trained model keeps the settings it has.")
        else:
            if not self.source_path:
                raise UserError("--ply says nothing of photos: name the folder of their scene with -s.")
            if self.iteration != usual.iteration:
                raise UserError(
                    "--iteration chooses among those of a trained model: leave it out with --ply."
                )
            if self.ply.resolve().is_relative_to(self.model_path.resolve()):
                raise UserError(
                    f"{self.ply} lies in the folder to be made, {self.model_path}. To lift onto a trained "
                    "model leave out --ply; else name another folder with -m."
                )
            if not self.overwrite:
                check_vacant(self.model_path)
        if self.iterations is not None and (self.solver != "cg" or self.iterations < 1):
            raise UserError("--iterations takes 1 or more and goes with --solver cg: the mean needs none.")
        if self.feature_dim is not None and self.decoder == "none":
            raise UserError(
                "--feature_dim goes with --decoder linear: without a decoder Gaussians carry all channels."
            )
        TrainConfig(near=self.near, feature_dim=self.feature_dim).check()
