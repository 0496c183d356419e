"""How the number of Gaussians changes during training."""

from feature_gs.training.densification.base import Strategy
from feature_gs.training.densification.default import DefaultStrategy
from feature_gs.training.densification.mcmc import McmcStrategy

__all__ = ["DefaultStrategy", "McmcStrategy", "Strategy"]
