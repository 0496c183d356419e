"""From a model and a camera to pictures: rendering, camera paths, colour maps, video, picture strips."""

from feature_gs.rendering.render import render

__all__ = ["render"]
