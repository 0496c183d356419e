"""Opens a model of timm by the name of a teacher or by timm's own."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from feature_gs.encoders.network import Architecture, NetworkEncoder
from feature_gs.encoders.options import suggestion
from feature_gs.encoders.pyramid import Pyramid
from feature_gs.encoders.teachers import TEACHERS, Teacher
from feature_gs.encoders.timm_import import import_timm
from feature_gs.encoders.vit import VisionTransformer
from feature_gs.errors import UserError


def open_timm(
    name: str,
    weights: Path | None = None,
    options: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
) -> NetworkEncoder:
    """The encoder of a named teacher or of `timm:MODEL`.

    Raises:
        UserError: timm has no such model, an option is wrong, or the weights are missing or wrong.
    """
    teacher = TEACHERS.get(name) or Teacher(name.removeprefix("timm:"), None)
    model, config = _build(teacher.model)
    architecture = Architecture(name, model, config, teacher.size)
    kind = VisionTransformer if _is_plain_vit(model) else Pyramid
    return kind(architecture, weights, options, device)


def _build(name: str) -> tuple[Any, Any]:
    timm = import_timm()
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        raise UserError(
            f"timm {timm.__version__} has no model {base!r}.{suggestion(base, timm.list_models())}\n"
            '  All of them: python -c "import timm; print(timm.list_pretrained())"'
        )
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:
        tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{base}.*")]
        raise UserError(
            f"timm has no weights {tag!r} of {base}; it has {', '.join(tags) or 'none'}."
        ) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about experimental parts of timm, of no use to our users
        try:
            model = timm.create_model(name, pretrained=False, num_classes=0, dynamic_img_size=True)
        except TypeError as error:
            if "dynamic_img_size" not in str(error):
                raise
            model = timm.create_model(name, pretrained=False, num_classes=0)
    return model, config


def _is_plain_vit(model: Any) -> bool:
    embed = getattr(model, "patch_embed", None)
    convolution = getattr(embed, "proj", None)
    return (
        getattr(model, "dynamic_img_size", False)
        and hasattr(model, "blocks")
        and hasattr(model, "num_prefix_tokens")
        and isinstance(convolution, torch.nn.Conv2d)
        and convolution.stride == convolution.kernel_size
    )
