"""feature_gs: 3D Gaussian splatting that carries the features of 2D foundation models."""

import os
import zlib  # noqa: F401  before pycolmap brings another: Pillow would mix both, and crash when it writes PNG
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from feature_gs.editing.scene import GaussianScene

# Between two parallel loops OpenMP's threads wait in a spin. Its default of milliseconds makes programs that
# share a
# machine starve each other; about 20 µs bridges the gaps within a step. Read when torch loads, if it is not
# loaded yet.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

__version__ = "0.1.0"


def load(model_path: str | Path, iteration: int = -1) -> "GaussianScene":
    """A trained model to be asked, taken apart, rendered and saved (docs/editing.md).

    Args:
        model_path: The model's folder.
        iteration: The iteration to load; -1: the newest.

    Raises:
        UserError: The folder is no model's folder, or a file in it is damaged.

    Example:
        >>> scene = feature_gs.load("output/garden")
        >>> mug = scene.select(point=(120, 80), view="008.png")
        >>> scene.without(mug).save("output/no_mug")
    """
    from feature_gs.editing import scene  # only now: `import feature_gs` alone loads neither torch nor more

    return scene.load(model_path, iteration)
