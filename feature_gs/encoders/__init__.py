"""Teachers: 2D networks (and hand-made descriptors) that turn a photo into a grid of features."""

from feature_gs.encoders.base import Encoder, Grid
from feature_gs.encoders.options import Option, one_of, whole_number, yes_or_no
from feature_gs.encoders.registry import encoder_names, is_encoder_name, load_encoder
from feature_gs.encoders.text import ADE20K_LABELS, encode_text, has_text

__all__ = [
    "ADE20K_LABELS",
    "Encoder",
    "Grid",
    "Option",
    "encode_text",
    "encoder_names",
    "has_text",
    "is_encoder_name",
    "load_encoder",
    "one_of",
    "whole_number",
    "yes_or_no",
]
