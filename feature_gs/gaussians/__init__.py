"""The Gaussians themselves: parameters, how they start from points, and the standard PLY."""

from feature_gs.gaussians.model import GaussianModel

__all__ = ["GaussianModel"]
