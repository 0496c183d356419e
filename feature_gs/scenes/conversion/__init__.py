"""From photos or a film to a scene: structure from motion, and photos without distortion."""

from feature_gs.scenes.conversion.pipeline import convert
from feature_gs.scenes.conversion.settings import ConvertConfig

__all__ = ["ConvertConfig", "convert"]
