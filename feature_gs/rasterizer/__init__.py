"""Differentiable rasterization of 3D Gaussians: colour, depth and any number of feature channels."""

from feature_gs.rasterizer.cells import CellWeights
from feature_gs.rasterizer.ops import build_info, ssim
from feature_gs.rasterizer.rasterize import RenderOutput, rasterize

__all__ = ["CellWeights", "RenderOutput", "build_info", "rasterize", "ssim"]
