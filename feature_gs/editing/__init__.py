"""Changing a scene: operations on selected Gaussians, composed in order, and new model folders of them."""

from feature_gs.editing.cloud import Cloud

__all__ = ["Cloud"]
