"""feature_gs: 3D Gaussian splatting that carries the features of 2D foundation models."""

__version__ = "0.1.0"
