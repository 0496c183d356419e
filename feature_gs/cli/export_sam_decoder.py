"""`feature-gs export-sam-decoder`: SAM's prompt encoder and mask decoder as an ONNX file.

The file has the inputs and outputs of segment_anything's own export, four masks per prompt, and works with
whatever reads those. Here it is for --onnx_path: masks through onnxruntime, without a checkpoint.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from feature_gs.encoders.sam_weights import MODELS
from feature_gs.errors import UserError
from feature_gs.queries.sam_network import SamNetwork
from feature_gs.queries.sam_onnx import export_onnx


@dataclass(frozen=True)
class ExportConfig:
    """Write SAM's decoder as an ONNX file, for --onnx_path and other tools."""

    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("sam_decoder.onnx")
    """The file."""
    model: str = "sam_vit_b"
    """Whose decoder: sam_vit_b, sam_vit_l or sam_vit_h."""
    weights: Path | None = None
    """SAM's checkpoint. None: the one in torch's hub folder."""


def main(argv: list[str] | None = None) -> int:
    """Runs the verb; see the module's text for what it writes."""
    config = tyro.cli(
        ExportConfig,
        args=argv,
        prog="feature-gs export-sam-decoder",
        use_underscores=True,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    run(config)
    return 0


def run(config: ExportConfig) -> None:
    """Writes the file and says how large it is.

    Raises:
        UserError: There is no such model, its checkpoint is missing or wrong, or the package onnx is missing.
    """
    if config.model not in MODELS:
        raise UserError(f"--model takes {', '.join(MODELS)}; got {config.model!r}.")
    if config.output.suffix != ".onnx":
        raise UserError(f"-o {config.output}: expected a name that ends in .onnx.")
    export_onnx(SamNetwork(config.model, config.weights), config.output)
    print(f"{config.output}: the decoder of {config.model}, {config.output.stat().st_size / 1e6:.1f} MB")
