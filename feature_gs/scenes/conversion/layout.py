"""Where things lie in a scene's folder, and what of it was there before."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """The folders and files of a conversion, named as 3D Gaussian splatting's own convert.py names them.

    Attributes:
        source: The scene's folder.
    """

    source: Path

    @property
    def input(self) -> Path:
        """The photos as taken."""
        return self.source / "input"

    @property
    def distorted(self) -> Path:
        """Everything between the photos and the scene."""
        return self.source / "distorted"

    @property
    def database(self) -> Path:
        """Features and matches."""
        return self.distorted / "database.db"

    @property
    def models(self) -> Path:
        """The models as reconstructed, with distortion: 0, 1, ..."""
        return self.distorted / "sparse"

    @property
    def record(self) -> Path:
        """What has been done."""
        return self.distorted / "convert.json"

    @property
    def log(self) -> Path:
        """The folder of COLMAP's messages."""
        return self.distorted / "log"

    @property
    def images(self) -> Path:
        """The photos without distortion."""
        return self.source / "images"

    @property
    def sparse(self) -> Path:
        """The folder of the scene's model."""
        return self.source / "sparse"

    def smaller(self, factor: int) -> Path:
        """The photos at 1/factor of their size."""
        return self.source / f"images_{factor}"

    def half_made(self, name: str) -> Path:
        """Where something is made, before it is put in its place."""
        return self.distorted / f".{name}"
