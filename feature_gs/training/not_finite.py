"""NaN and infinity: noticing them before they reach the model, and saying where they came from."""

import torch

from feature_gs.errors import UserError
from feature_gs.gaussians import GaussianModel

_SMALL_PARAMETERS = ("means", "log_scales", "logit_opacities", "sh_dc")


class NotFiniteError(UserError):
    """The loss or a gradient is NaN or infinite."""


def gradients_are_finite(model: GaussianModel) -> bool:
    """Whether no gradient holds a NaN or an infinity.

    The rotations' and the higher SH bands' need no look: they pass through the same gradients of the
    covariances and colours as those of the scales and the constant band.
    """
    sums = [grad.sum() for name in _SMALL_PARAMETERS if (grad := getattr(model, name).grad) is not None]
    return not sums or bool(torch.isfinite(torch.stack(sums).sum()))


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
