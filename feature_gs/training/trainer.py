"""The training loop: from a scene and settings to Gaussians."""

from pathlib import Path

import torch
from torch import Tensor, nn

from feature_gs.errors import UserError
from feature_gs.features.field import field_path
from feature_gs.features.maps import TeacherMap
from feature_gs.features.teacher import TeacherStore
from feature_gs.gaussians import GaussianModel
from feature_gs.gaussians.order import spatial_order
from feature_gs.rasterizer.device import compute_device
from feature_gs.rendering import render
from feature_gs.scenes import Scene, View
from feature_gs.training.checkpoint import Checkpoint, checkpoint_path, save_checkpoint
from feature_gs.training.config import TrainConfig
from feature_gs.training.densification import DefaultStrategy, McmcStrategy, Strategy
from feature_gs.training.distillation import Distillation
from feature_gs.training.folder import ply_path
from feature_gs.training.losses import photometric_loss
from feature_gs.training.not_finite import FiniteGuard
from feature_gs.training.optimizer import GaussianOptimizer
from feature_gs.training.schedule import Schedule, position_rate

_STRATEGIES: dict[str, type[Strategy]] = {"default": DefaultStrategy, "mcmc": McmcStrategy}
_SHOW_EVERY = 10
_RECORD_EVERY = 100


class Trainer:
    """Trains a model of a scene.

    Args:
        config: The settings.
        schedule: When the recipe acts.
        scene: Photos, cameras and first points.
        folder: The model folder.
        teacher: Maps of features to teach; None teaches colours only.
        checkpoint: Where to go on; None starts from the scene's points.
        device: Where to train; None: where the rasterizer is fastest.

    Raises:
        UserError: The checkpoint does not fit together.
    """

    def __init__(
        self,
        config: TrainConfig,
        schedule: Schedule,
        scene: Scene,
        folder: Path,
        teacher: TeacherStore | None = None,
        checkpoint: Checkpoint | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.config = config
        self.schedule = schedule
        self.scene = scene
        self.folder = folder
        self.device = device = device or compute_device()
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self.iteration = 0
        self.seconds = 0.0
        strategy = _STRATEGIES[config.strategy]
        if checkpoint is None:
            points, colors = scene.points.to(device), scene.point_colors.to(device)
            self.model = GaussianModel.from_points(points, colors, config.sh_degree)
        else:
            self.model = checkpoint.restore_model().to(device)
        self.distillation = None
        if teacher is not None:
            done = 0 if checkpoint is None else checkpoint.iteration
            self.distillation = Distillation(config, schedule, scene, teacher, self.model, done)
        self.guard = FiniteGuard(device)
        self.optimizer = GaussianOptimizer(self.model, _rates(config, scene.extent), self.guard.blocked)
        self.strategy = strategy(config, schedule, self.optimizer, scene.extent, self.generator)
        if checkpoint is not None:
            self._restore(checkpoint)
        self.background = torch.ones(3, device=device) if config.white_background else None

    def step(
        self, view: View, target: Tensor, teacher_map: TeacherMap | None = None
    ) -> tuple[Tensor, Tensor]:  # view, [1, H, W, 3]
        """One optimisation step on one photo. On a GPU the host only waits where it must count Gaussians.

        Args:
            view: The photo's view.
            target: Its colours in [0, 1]. [1, H, W, 3]
            teacher_map: The teacher's map of it where it is at hand already; None reads it.

        Returns:
            The loss, one number, and the rendered colours before the step, [1, H, W, 3] without gradient.

        Raises:
            NotFiniteError: The loss or a gradient is not, here or on a GPU up to nine steps ago; the model is
                as it was before that step.
            UserError: No Gaussian is left.
        """
        config = self.config
        iteration = self.iteration + 1
        if self.schedule.raises_sh_at(iteration):
            self.optimizer.raise_sh_degree()
        self.optimizer.set_rate("means", self._position_rate(iteration))
        watched = self.strategy.watches(iteration)
        distillation = self.distillation
        lesson = None if distillation is None else distillation.lesson(view, iteration, teacher_map)
        output = render(
            self.model,
            view.camera,
            background=self.background,
            antialiased=config.antialiased,
            near=config.near,
            absgrad=watched and self.strategy.absgrad,
            feature_cell=lesson.grid.cell if lesson is not None and lesson.grid.shared else None,
            features_move_geometry=config.features_move_geometry,
        )
        if watched:
            self.strategy.prepare(output)
        loss = photometric_loss(output.color, target, config.lambda_dssim)
        penalty = self.strategy.penalty()
        if penalty is not None:
            loss = loss + penalty
        if distillation is not None and lesson is not None:
            loss = loss + distillation.loss(lesson, output)
        loss.backward()
        self.guard.look(self.model, loss.detach(), iteration, view.camera.name)
        densifies = self.schedule.densifies_at(iteration)
        changes = densifies or self.schedule.resets_opacity_at(iteration)
        self.guard.check(self.model, iteration, at_once=changes or self.due(iteration))
        if watched:
            self.strategy.observe(output)
        if distillation is not None and lesson is not None:
            distillation.step(lesson, iteration, self.guard.blocked)
        self.optimizer.step()
        self.strategy.after_step(iteration)
        if densifies:
            self.optimizer.restructure(spatial_order(self.model.means.detach()))
        self.iteration = iteration
        if not len(self.model):
            raise UserError(
                f"iteration {iteration}: no Gaussian is left, all were removed as too transparent or too "
                "large. Lower --min_opacity, or check that the poses and points belong to the photos."
            )
        return loss.detach(), output.color.detach()

    def save_ply(self, *, at_once: bool = False) -> Path:
        """Writes the PLY of the present iteration, and beside it the features if there are any.

        Args:
            at_once: Leave out features that must be lifted first, which may take minutes.
        """
        self._check_finite()
        path = ply_path(self.folder, self.iteration)
        self.model.save_ply(path)  # whatever may be wrong with the features
        distillation = self.distillation
        if distillation is None or (at_once and not distillation.joint):
            return path
        distillation.save(field_path(path))
        if self.config.ply_features:
            carried, self.model.features = (
                self.model.features,
                nn.Parameter(distillation.field().features, False),
            )
            self.model.save_ply(path, features=True)
            self.model.features = carried
        return path

    def save_checkpoint(self) -> Path:
        """Writes the checkpoint of the present iteration."""
        self._check_finite()
        path = checkpoint_path(self.folder, self.iteration)
        state = Checkpoint(
            iteration=self.iteration,
            seconds=float(self.seconds),
            strategy=self.config.strategy,
            views=[view.camera.name for view in self.scene.train],
            sh_degree=self.model.sh_degree,
            model={name: parameter.detach() for name, parameter in self.model.named_parameters()},
            optimizer=self.optimizer.state_dict(),
            strategy_state=self.strategy.state_dict(),
            generator=self.generator.get_state(),
            distillation=self.distillation.state_dict() if self.distillation is not None else {},
        )
        save_checkpoint(path, state)
        return path

    def _restore(self, checkpoint: Checkpoint) -> None:
        try:
            self.optimizer.load_state_dict(checkpoint.optimizer)
            self.strategy.load_state_dict(checkpoint.strategy_state)
            if len(checkpoint.generator) == len(self.generator.get_state()):
                self.generator.set_state(checkpoint.generator)
            else:  # of another kind of device: its chance cannot be continued, only begun anew
                self.generator.manual_seed(self.config.seed + checkpoint.iteration)
            if self.distillation is not None and checkpoint.distillation:
                self.distillation.load_state_dict(checkpoint.distillation)
        except (ValueError, RuntimeError, TypeError, AttributeError) as error:
            raise UserError(f"the checkpoint is damaged: {error}. Choose another one.") from error
        self.iteration = checkpoint.iteration
        self.seconds = checkpoint.seconds

    def due(self, iteration: int) -> bool:
        """Whether something is to be saved or measured after this iteration."""
        config = self.config
        named = (*config.test_iterations, *config.save_iterations, *config.checkpoint_iterations)
        return iteration == config.iterations or iteration in named

    def _position_rate(self, iteration: int) -> float:
        config = self.config
        rate = position_rate(
            iteration, config.position_lr_init, config.position_lr_final, self.schedule.position_lr_max_steps
        )
        return rate * self.scene.extent

    def _check_finite(self) -> None:
        if not self.model.is_finite():
            raise UserError(
                f"iteration {self.iteration}: a parameter is not finite, so nothing is saved; what was saved "
                "before is untouched. Lower the learning rates."
            )


def _rates(config: TrainConfig, extent: float) -> dict[str, float]:
    return {
        "means": config.position_lr_init * extent,
        "quats": config.rotation_lr,
        "log_scales": config.scaling_lr,
        "logit_opacities": config.opacity_lr,
        "sh_dc": config.feature_lr,
        "sh_rest": config.feature_lr / 20,
    }
