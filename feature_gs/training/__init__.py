"""Training: settings, schedule, losses, densification, the loop, checkpoints."""

from feature_gs.training.config import TrainConfig
from feature_gs.training.run import train
from feature_gs.training.trainer import Trainer

__all__ = ["TrainConfig", "Trainer", "train"]
