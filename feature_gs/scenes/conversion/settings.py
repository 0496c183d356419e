"""Every setting of a conversion: the command line's flags, and whether they make sense."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pycolmap
import tyro

from feature_gs.errors import UserError

VOCAB_TREE = (
    "https://github.com/colmap/colmap/releases/download/3.11.1/vocab_tree_faiss_flickr100K_words256K.bin"
)
_NO_CAMERAS = {"INVALID", "EQUIRECTANGULAR"}  # a panorama has no undistorted form


@dataclass(frozen=True)
class ConvertConfig:
    """Make a scene of the photos in SOURCE/input: where each was taken, and the photos without distortion."""

    source_path: Annotated[Path, tyro.conf.arg(aliases=["-s"])]
    """Folder of the scene; the photos lie in its sub-folder input."""
    camera: str = "OPENCV"
    """COLMAP's model of the camera: OPENCV, SIMPLE_RADIAL, OPENCV_FISHEYE, PINHOLE, ..."""
    matcher: Literal["exhaustive", "sequential", "vocabtree"] = "exhaustive"
    """Which photos are compared: all with all, each with its neighbours by name (as in a film), or each with
    those that look alike."""
    vocab_tree: Path | None = None
    """File that --matcher vocabtree looks photos up with."""
    skip_matching: bool = False
    """Start from the model in distorted/sparse, and only undistort."""
    resize: bool = False
    """Also write the photos at half, a quarter and an eighth of their size: images_2, images_4, images_8."""
    video: Path | None = None
    """Film to take the photos from; they are written to input."""
    fps: float = 2.0
    """Photos per second of the film."""
    no_gpu: bool = False
    """Do not use a GPU."""
    colmap_executable: str = ""
    """COLMAP program for features, matching and mapping. Empty: the library that came with feature_gs."""
    overwrite: bool = False
    """Replace images, sparse and distorted where they are there already. input is never replaced, unless it
    came from a film."""
    quiet: bool = False
    """Print nothing but errors."""

    def check(self) -> None:
        """Checks the flags as far as they can be without the photos.

        Raises:
            UserError: A flag is wrong, or excludes another.
        """
        models = [name for name in pycolmap.CameraModelId.__members__ if name not in _NO_CAMERAS]
        if self.camera not in models:
            raise UserError(f"--camera {self.camera}: expected one of {', '.join(models)}.")
        if self.video is not None and self.skip_matching:
            raise UserError("--video makes new photos, and --skip_matching starts from old ones: give one.")
        if self.video is not None and not self.video.is_file():
            raise UserError(f"--video {self.video}: there is no such file.")
        if not 0 < self.fps <= 1000:
            raise UserError(
                f"--fps {self.fps:g}: expected photos per second of the film, above 0; usual is 2."
            )
        self._check_vocab_tree()

    def _check_vocab_tree(self) -> None:
        if self.matcher != "vocabtree":
            if self.vocab_tree is not None:
                raise UserError("--vocab_tree is for --matcher vocabtree: give both.")
            return
        where = f"There is one at {VOCAB_TREE}. --matcher exhaustive needs none."
        if self.vocab_tree is None:
            raise UserError(
                f"--matcher vocabtree needs the file of a vocabulary tree: --vocab_tree FILE. {where}"
            )
        if not self.vocab_tree.is_file():
            raise UserError(f"--vocab_tree {self.vocab_tree}: there is no such file. {where}")
