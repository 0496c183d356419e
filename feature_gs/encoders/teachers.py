"""The vision transformers that have a name of their own here: which model of timm, at which size."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Teacher:
    """A named model.

    Attributes:
        model: Its name in timm, with the tag of its weights.
        size: Long side of the input by default, pixels; None lets the encoder choose.
    """

    model: str
    size: int | None


TEACHERS = {
    "dino_vits8": Teacher("vit_small_patch8_224.dino", 512),
    "dino_vitb8": Teacher("vit_base_patch8_224.dino", 512),
    "dino_vits16": Teacher("vit_small_patch16_224.dino", 768),
    "dinov2_small": Teacher("vit_small_patch14_dinov2.lvd142m", 896),
    "dinov2_base": Teacher("vit_base_patch14_dinov2.lvd142m", 896),
    "dinov2_large": Teacher("vit_large_patch14_dinov2.lvd142m", 896),
    "dinov2_reg_small": Teacher("vit_small_patch14_reg4_dinov2.lvd142m", 896),
    "dinov3_small": Teacher("vit_small_patch16_dinov3.lvd1689m", 1024),
    "dinov3_base": Teacher("vit_base_patch16_dinov3.lvd1689m", 1024),
    "clip_base": Teacher("vit_base_patch16_clip_384.laion2b_ft_in12k_in1k", 768),
    "mae_base": Teacher("vit_base_patch16_224.mae", 768),
    "deit3_base": Teacher("deit3_base_patch16_224.fb_in1k", 768),
}
