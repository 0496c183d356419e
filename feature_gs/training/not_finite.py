"""NaN and infinity: noticing them before they reach the model, and saying where they came from."""

import torch
from torch import Tensor

from feature_gs.errors import UserError
from feature_gs.gaussians import GaussianModel

_SMALL_PARAMETERS = ("means", "log_scales", "logit_opacities", "sh_dc")
_EVERY = 10  # steps between two looks at a verdict that lies on a GPU


class NotFiniteError(UserError):
    """The loss or a gradient is NaN or infinite.

    Attributes:
        iteration: The step that brought it; the model is as it was before that step.
    """

    def __init__(self, message: str, iteration: int) -> None:
        super().__init__(message)
        self.iteration = iteration


class FiniteGuard:
    """Keeps a loss or gradient that is not finite from reaching the model.

    On the CPU the verdict on every step is read at once. On a GPU, where reading means waiting, it stays
    there and blocks the step and all that follow (`blocked`); it is read every tenth step.

    Attributes:
        blocked: On a GPU 1 from the first bad step on, else 0; None on the CPU, where that step raises.
    """

    def __init__(self, device: torch.device) -> None:
        self._every = 1 if device.type == "cpu" else _EVERY
        # The first fault: 1 once there is one, whether the loss is good, the iteration, the loss.
        self._fault = torch.zeros(4, device=device)
        self._views: dict[int, str] = {}
        self.blocked: Tensor | None = None if device.type == "cpu" else self._fault[0]

    @torch.no_grad()
    def look(self, model: GaussianModel, loss: Tensor, iteration: int, view: str) -> None:
        """Judges a step after its backward pass.

        The gradients of rotations and higher SH bands need no look: they pass through the same gradients of
        the covariances and colours as those of the scales and the constant band.

        Args:
            model: The Gaussians with their gradients.
            loss: The loss, one number.
            iteration: The step, for the message.
            view: Name of the photo, for the message.
        """
        sums = [grad.sum() for name in _SMALL_PARAMETERS if (grad := getattr(model, name).grad) is not None]
        good_loss = torch.isfinite(loss)
        good = good_loss & torch.isfinite(torch.stack([loss, *sums]).sum())
        fault = torch.stack([1 - good.float(), good_loss.float(), torch.full_like(loss, iteration), loss])
        self._fault.copy_(torch.where(self._fault[0] > 0, self._fault, fault))
        self._views[iteration] = view

    def check(self, model: GaussianModel, iteration: int, *, at_once: bool = False) -> None:
        """Reads the verdict where it is due.

        Args:
            model: The Gaussians, to name the likely cause.
            iteration: The step looked at last.
            at_once: Read it whatever that costs.

        Raises:
            NotFiniteError: A step since the last look was bad.
        """
        if not at_once and iteration % self._every:
            return
        bad, good_loss, iteration, loss = self._fault.tolist()
        if bad:
            what = "a gradient is not finite" if good_loss else f"the loss is {loss}"
            first = int(iteration)
            raise NotFiniteError(explain(model, first, self._views[first], what), first)
        self._views.clear()


def explain(model: GaussianModel, iteration: int, view: str, what: str) -> str:
    """The message to stop with: when, on which photo, the likely cause, and how to go on."""
    broken = [name for name, p in model.named_parameters() if not bool(torch.isfinite(p).all())]
    largest = model.log_scales.detach().max().item() if len(model) else 0.0
    if broken:
        cause = f"{', '.join(broken)} diverged, so a learning rate is too high"
    elif largest > 20:
        cause = f"a Gaussian grew to a size of e^{largest:.0f}, so --scaling_lr is too high"
    else:
        cause = "the photo or its camera is damaged, or a learning rate is too high"
    return (
        f"iteration {iteration}, view {view}: {what}. Likely cause: {cause}. Look at that photo and its "
        "pose, or go on with --resume and lower rates (--position_lr_init, --scaling_lr, --opacity_lr)."
    )
