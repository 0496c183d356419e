"""feature_gs: 3D Gaussian splatting that carries the features of 2D foundation models."""

import os

# Between two parallel loops OpenMP's threads wait in a spin. Its default of milliseconds makes programs that
# share a
# machine starve each other; about 20 µs bridges the gaps within a step. Read when torch loads, if it is not
# loaded yet.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

__version__ = "0.1.0"
