"""What the trainer asks of a densification strategy."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from feature_gs.gaussians import GaussianModel
from feature_gs.rasterizer import RenderOutput
from feature_gs.training.config import TrainConfig
from feature_gs.training.optimizer import GaussianOptimizer
from feature_gs.training.schedule import Schedule


class Strategy(ABC):
    """Adds, moves and removes Gaussians. Per step, in this order: `penalty`, `observe`, `after_step`.

    Args:
        config: The settings of the run.
        schedule: When to act.
        optimizer: Holds the Gaussians; all surgery goes through it.
        extent: Size of the cameras' surroundings, scene units.
        generator: The source of all chance; its state is part of a checkpoint.
    """

    absgrad = False

    def __init__(
        self,
        config: TrainConfig,
        schedule: Schedule,
        optimizer: GaussianOptimizer,
        extent: float,
        generator: torch.Generator,
    ) -> None:
        self.config = config
        self.schedule = schedule
        self.optimizer = optimizer
        self.extent = extent
        self.generator = generator

    @property
    def model(self) -> GaussianModel:
        """The Gaussians at hand."""
        return self.optimizer.model

    def watches(self, iteration: int) -> bool:
        """Whether `prepare` and `observe` are to be called at this iteration."""
        return False

    def prepare(self, output: RenderOutput) -> None:  # noqa: B027 - most need nothing
        """Called between rendering and backward pass, to ask for gradients that are not kept otherwise."""

    def penalty(self) -> Tensor | None:
        """A further term of the loss, or None."""
        return None

    def observe(self, output: RenderOutput) -> None:  # noqa: B027 - a strategy need not look
        """Called after the backward pass, before the optimiser's step."""

    @abstractmethod
    def after_step(self, iteration: int) -> None:
        """Called after the optimiser's step of this iteration, counted from 1."""

    def state_dict(self) -> dict[str, Tensor]:
        """What must survive from step to step besides the model and the optimiser."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027 - see state_dict
        """Takes up the state that `state_dict` gave.

        Raises:
            ValueError: It does not fit the model.
        """
