"""Teaching features to Gaussians while they are trained.

A feature image is linear in the features, `A F` (`CellWeights`), and by default the feature loss moves only F
and the decoder. So the features need neither a stored gradient nor an optimiser's moments: with G the loss's
gradient at the cells, each step moves them in place, in 16 bits, by

    f_n -= rate * (Aᵀ G)_n / (rms(G) ((Aᵀ 1)_n + 0.3))

in units of the gradient's size: as with Adam, the rate says how long a step is, however the loss is scaled. A
Gaussian that fills cells moves by their mean; one that the view hardly shows moves little, or it would learn
the noise of each view. The rate falls from --semantic_lr_init to --semantic_lr_final, in units of the
teacher's own size. Only rows of Gaussians that the view shows are touched.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from feature_gs.errors import UserError
from feature_gs.features.decoders import Decoder, make_decoder, pca_decoder
from feature_gs.features.field import FeatureField
from feature_gs.features.grid import FeatureGrid, cell_size, cell_weights, grid_for
from feature_gs.features.lifting import as_rows, lift, middle_cell
from feature_gs.features.maps import TeacherMap
from feature_gs.features.pca import thinned
from feature_gs.features.rendering import fit_field_palette
from feature_gs.features.teacher import TeacherStore
from feature_gs.gaussians import GaussianModel
from feature_gs.rasterizer import CellWeights, RenderOutput
from feature_gs.scenes import Scene, View
from feature_gs.training.config import TrainConfig
from feature_gs.training.losses import mean_absolute_error
from feature_gs.training.optimizer import block
from feature_gs.training.schedule import Schedule, position_rate

_SAMPLED_VIEWS = 12  # whose maps tell the teacher's size
_LEAST_WEIGHT = 0.3  # cells' worth of a Gaussian below which it moves less
_SAME = "give the --feature_dim, --decoder and -f of the run that the checkpoint comes from."


@dataclass
class Lesson:
    """One view's target and, after the render, what the loss needs of it.

    Attributes:
        view: The view.
        grid: Its cells.
        target: The teacher's map. [1, h, w, C]
        cells: The Gaussians' weights in the cells.
        rendered: The feature image, whose gradient moves the features. [1, h', w', c], h' >= h, w' >= w
    """

    view: View
    grid: FeatureGrid
    target: Tensor
    cells: CellWeights | None = None
    rendered: Tensor | None = None


class Distillation:
    """The feature side of a training run.

    Args:
        config: The settings.
        schedule: When the recipe acts.
        scene: The views.
        teacher: Their maps.
        model: The Gaussians; get a parameter `features` that autograd leaves alone.
        iteration: Steps done before; features join after them.

    Raises:
        UserError: Decoder and teacher do not fit each other or the features of the Gaussians, or a map is not
            usable.
    """

    def __init__(
        self,
        config: TrainConfig,
        schedule: Schedule,
        scene: Scene,
        teacher: TeacherStore,
        model: GaussianModel,
        iteration: int = 0,
    ) -> None:
        self.config = config
        self.scene = scene
        self.teacher = teacher
        self.model = model
        settled = schedule.densify_until_iter if config.features == "lift+joint" else 0
        self.begins = max(iteration, min(settled, config.iterations - 1))
        self._start = iteration
        self._field: FeatureField | None = None
        self._maps: dict[str, TeacherMap] = {}  # read once; their pixels stay in the files, memory-mapped
        self._grids: dict[str, FeatureGrid] = {}
        self.decoder = self._decoder()
        named = [{"params": [tensor], "name": name} for name, tensor in self.decoder.named_parameters()]
        self.adam = torch.optim.Adam(named, lr=config.decoder_lr, fused=True) if named else None
        self.scale = self._scale()
        self.cell = self._cell()
        if self.joint:
            features = model.means.new_zeros(len(model), self.decoder.features, dtype=torch.float16)
            if model.features is not None:
                features = model.features.detach().half()
            if features.shape[1] != self.decoder.features:
                raise UserError(
                    f"the Gaussians carry {features.shape[1]} channels, not {self.decoder.features}: {_SAME}"
                )
            model.features = nn.Parameter(features, requires_grad=False)
        else:
            model.features = None

    @property
    def joint(self) -> bool:
        """Whether features are trained, rather than only lifted at the end."""
        return self.config.features != "lift"

    def teaches_at(self, iteration: int) -> bool:
        """Whether the step of this iteration trains features."""
        return self.joint and iteration > self.begins

    def map_of(self, view: View) -> TeacherMap:
        """The teacher's map of a view, its file read once.

        Raises:
            UserError: It is missing or damaged.
        """
        if view.camera.name not in self._maps:
            self._maps[view.camera.name] = self.teacher.load(view)
        return self._maps[view.camera.name]

    def lesson(self, view: View, iteration: int, teacher_map: TeacherMap | None = None) -> Lesson | None:
        """What the step of this iteration teaches; None when it teaches nothing.

        Args:
            view: The photo's view.
            iteration: The step.
            teacher_map: The view's map where it is at hand already; None reads it.
        """
        self._field = None
        if not self.teaches_at(iteration):
            return None
        if iteration == self.begins + 1 and self.config.features == "lift+joint":
            self._start_from_lifting()
        teacher_map = teacher_map or self.map_of(view)
        grid = self._grids.get(view.camera.name)
        if grid is None:
            grid = grid_for(view.camera, *cell_size(teacher_map, view.camera))
            self._grids[view.camera.name] = grid
        return Lesson(view, grid, as_rows(teacher_map, grid, self.model.means.device)[None])

    def loss(self, lesson: Lesson, output: RenderOutput) -> Tensor:
        """The weighted feature loss of a view, ready for `backward`.

        Args:
            lesson: What `lesson` returned.
            output: The view's render, with `cells` where the grid is shared.
        """
        config, features = self.config, self.model.features
        assert features is not None
        lesson.cells = output.cells
        if lesson.cells is None:
            lesson.cells = cell_weights(
                self.model,
                lesson.grid,
                antialiased=config.antialiased,
                near=config.near,
                differentiable=config.features_move_geometry,
            )
        lesson.rendered = lesson.cells.blend(features.detach())
        if not lesson.rendered.requires_grad:
            lesson.rendered.requires_grad_()
        lesson.rendered.retain_grad()
        decoded = _inside(self.decoder(lesson.rendered), lesson.target)
        if config.feature_loss == "l1":
            difference = mean_absolute_error(decoded, lesson.target)
        else:
            cosine = F.cosine_similarity(decoded, lesson.target, dim=-1)
            # The gradient of a direction is as 1 / length: cells that show nothing would outweigh the rest.
            opacity = lesson.cells.blend(features.new_ones(len(features), 1)).detach()
            opacity = _inside(opacity, lesson.target)[..., 0]
            difference = 1 - (opacity * cosine).sum() / opacity.sum().clamp_min(1e-12)
        return config.feature_weight * difference

    @torch.no_grad()
    def step(self, lesson: Lesson, iteration: int, blocked: Tensor | None = None) -> None:
        """Moves features and decoder after `backward`.

        Args:
            lesson: What `loss` was made of.
            iteration: The step.
            blocked: One number on the model's device; nothing moves while it is 1.
        """
        assert lesson.cells is not None and lesson.rendered is not None and self.model.features is not None
        gradient = lesson.rendered.grad
        if gradient is None:  # the features take no part in the loss, e.g. with --feature_weight 0
            return
        inside = _inside(gradient, lesson.target)
        size = torch.linalg.vector_norm(inside) / math.sqrt(inside.numel())
        still = size == 0 if blocked is None else (size == 0) | (blocked > 0)
        gradient.div_(torch.where(still, 1, size)).masked_fill_(still, 0)
        rate = self._rate(iteration) * self.scale
        lesson.cells.accumulate(self.model.features.data, gradient, -rate, floor=_LEAST_WEIGHT)
        if self.adam is not None:
            block(self.adam, blocked)
            self.adam.step()
            self.adam.zero_grad(set_to_none=True)

    @torch.no_grad()
    def field(self) -> FeatureField:
        """The features as they are now, without a palette; lifted now with --features lift.

        Asking again before the next step costs nothing.
        """
        if self._field is not None:
            return self._field
        if self.joint:
            assert self.model.features is not None
            features = self.model.features.detach().float()
            field = FeatureField(
                features=features,
                decoder=self.decoder,
                teacher=self.teacher.reference,
                cell=self.cell,
                seen=(features != 0).any(dim=1),
                meta=dict(self.teacher.meta),
            )
        else:
            field = self._lifted()
        self._field = field
        return field

    def save(self, path: Path) -> None:
        """Writes the field with its palette.

        Raises:
            UserError: The file cannot be written.
        """
        field = self.field()
        if field.palette is None:
            cameras = [view.camera for view in self.scene.train]
            field.palette = fit_field_palette(
                self.model, field, cameras, antialiased=self.config.antialiased, near=self.config.near
            )
        field.save(path)

    def state_dict(self) -> dict[str, Tensor]:
        """Decoder, its Adam moments, the teacher's size and when the features joined."""
        state = {f"decoder.{name}": tensor.detach() for name, tensor in self.decoder.state_dict().items()}
        state["scale"] = torch.tensor(self.scale, dtype=torch.float64)
        state["begins"] = torch.tensor(self.begins if self.joint else self.config.iterations)
        if self.adam is not None:
            for group in self.adam.param_groups:
                for key, tensor in self.adam.state.get(group["params"][0], {}).items():
                    state[f"adam.{group['name']}.{key}"] = tensor
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes up the state of another run.

        Raises:
            UserError: It belongs to another decoder.
            ValueError: It is damaged.
        """
        shapes = {key: tuple(state[key].shape) for key in state if key.startswith("decoder.")}
        expected = {f"decoder.{name}": tuple(t.shape) for name, t in self.decoder.state_dict().items()}
        if shapes != expected:
            theirs, ours = (
                ", ".join(f"{key.removeprefix('decoder.')} {list(shape)}" for key, shape in kind.items())
                for kind in (shapes, expected)
            )
            raise UserError(
                f"the checkpoint's decoder has {theirs or 'no'} parameters, not {ours or 'none'}: {_SAME}"
            )
        for key in ("scale", "begins"):
            if key not in state or state[key].numel() != 1:
                raise ValueError(f"the distillation's {key} must be one number")
        self.scale = float(state["scale"])
        if int(state["begins"]) < self._start:  # else they have not joined, and do so as these settings say
            self.begins = int(state["begins"])
        self.decoder.load_state_dict({name: state[f"decoder.{name}"] for name in self.decoder.state_dict()})
        if self.adam is not None:
            for group in self.adam.param_groups:
                parameter, prefix = group["params"][0], f"adam.{group['name']}."
                moments = {
                    key.removeprefix(prefix): state[key].to(parameter.device, copy=True)
                    for key in state
                    if key.startswith(prefix)
                }
                for key in ("exp_avg", "exp_avg_sq"):
                    if moments and (key not in moments or moments[key].shape != parameter.shape):
                        raise ValueError(f"{prefix}{key} must be {list(parameter.shape)}")
                if moments:
                    self.adam.state[parameter] = moments

    def _rate(self, iteration: int) -> float:
        config = self.config
        steps = max(1, config.iterations - self.begins)
        return position_rate(
            iteration - self.begins, config.semantic_lr_init, config.semantic_lr_final, steps
        )

    def _start_from_lifting(self) -> None:
        lifted = self._lifted()
        self.model.features = nn.Parameter(lifted.features.half(), requires_grad=False)

    def _lifted(self) -> FeatureField:
        return lift(
            self.model,
            self.scene.train,
            self.teacher,
            decoder=self.decoder,
            antialiased=self.config.antialiased,
            near=self.config.near,
        ).field

    def _decoder(self) -> Decoder:
        """The decoder at its start; its random numbers are its own, so that colours do not depend on it."""
        config, channels = self.config, self.teacher.channels
        features = config.feature_dim or channels
        if config.decoder == "linear" and config.decoder_start == "pca":
            maps = (self.teacher.load(view).features for view in self.scene.train)
            decoder: Decoder = pca_decoder(maps, features, channels)
        else:
            generator = torch.Generator().manual_seed(config.seed + 1)
            decoder = make_decoder(config.decoder, features, channels, generator=generator)
        return decoder.to(self.model.means.device)

    def _scale(self) -> float:
        """Root mean square that the features will have, seen from the teacher's maps through the decoder."""
        views = self.scene.train[:: -(-len(self.scene.train) // _SAMPLED_VIEWS)]
        squares = [thinned(self.teacher.load(view).features).float().square().mean().item() for view in views]
        size = math.sqrt(sum(squares) / len(squares)) or 1.0
        weight = dict(self.decoder.named_parameters()).get("weight")
        if weight is None:
            return size
        return size * math.sqrt(self.decoder.channels) / max(weight.detach().norm().item(), 1e-12)

    def _cell(self) -> tuple[float, float]:
        return middle_cell([cell_size(self.teacher.load(view), view.camera) for view in self.scene.train])


def _inside(maps: Tensor, target: Tensor) -> Tensor:  # [1, h', w', c], [1, h, w, C]
    """The cells of rendered maps that a teacher's map covers; cut only where needed: a cut costs a copy."""
    rows, columns = target.shape[1:3]
    return maps if maps.shape[1:3] == (rows, columns) else maps[:, :rows, :columns]
