"""`feature-gs edit`: a model with things removed, moved, recoloured, doubled or put in, as a new model.

    feature-gs edit -m MODEL --config edit.yaml -o OUT

OUT is a model folder like any other: config.json, cameras.json, the PLY, and the features that follow their
Gaussians. docs/editing.md says what edit.yaml may hold.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from feature_gs.editing.edit import edited, read_plan
from feature_gs.editing.folder import check_output, write_model
from feature_gs.files import atomic_write
from feature_gs.training.trained import load_trained


@dataclass(frozen=True)
class EditConfig:
    """Change a trained model and write the result as a new one."""

    model_path: Annotated[Path, tyro.conf.arg(aliases=["-m"])]
    """Folder of the trained model; it stays as it is."""
    config: Path
    """The edits, in YAML; the files of Feature 3DGS are understood, too."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder of the new model."""
    iteration: int = -1
    """Iteration to change; -1: the newest."""
    weights: Path | None = None
    """File with the teacher's weights, for words in the edits and for SAM. None: those it finds itself."""
    overwrite: bool = False
    """Replace the model that is in the output folder."""
    quiet: bool = False
    """Print nothing but errors."""


def main(argv: list[str] | None = None) -> int:
    """Runs the verb; see the module's text for what it writes."""
    config = tyro.cli(
        EditConfig,
        args=argv,
        prog="feature-gs edit",
        use_underscores=True,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    run(config)
    return 0


def run(config: EditConfig) -> None:
    """Carries out the edits and writes the new model; nothing is written before all of them are done.

    Raises:
        UserError: The edits, the model or the output folder are at fault.
    """
    plan, text = read_plan(config.config), config.config.read_bytes()  # which may lie in the output folder
    trained = load_trained(config.model_path, config.iteration)
    check_output(config.output, trained, config.overwrite)
    say = _silent if config.quiet else print
    cloud = edited(trained, trained.field(), plan, say, config.weights)
    ply = write_model(config.output, trained, cloud, overwrite=config.overwrite)
    with atomic_write(config.output / "edit.yaml") as temporary:
        temporary.write_bytes(text)
    say(f"\nmodel: {ply}")
    say(f"next:  python render.py -m {shlex.quote(str(config.output))}")


def _silent(_: str) -> None:
    pass
