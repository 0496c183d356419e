"""`feature-gs train` and train.py: the command line of training."""

import argparse
import shlex
import sys
from pathlib import Path

import tyro

from feature_gs.errors import UserError
from feature_gs.training import TrainConfig, train
from feature_gs.training.folder import model_folder
from feature_gs.training.interrupt import TrainingInterrupted


def main(argv: list[str] | None = None) -> int:
    """Trains a model.

    Args:
        argv: The command line without the program's name; the process's own when None.

    Returns:
        The exit code: 0, or 130 and 143 after Ctrl-C and `kill`.

    Raises:
        UserError: A setting, the scene or the checkpoint is not usable.
    """
    arguments = sys.argv[1:] if argv is None else argv
    config = tyro.cli(
        TrainConfig,
        prog=_program(),
        description="Trains 3D Gaussians on a folder of photos with camera poses.",
        args=arguments,
        default=_defaults(arguments),
        config=(tyro.conf.FlagCreatePairsOff,),
        use_underscores=True,
    )
    folder = model_folder(config.model_path, config.source_path)
    try:
        train(config)
    except TrainingInterrupted as stop:
        resume = f"{_program()} -m {shlex.quote(str(folder))} --resume"
        print(f"\nstopped after iteration {stop.iteration}; saved in {folder}", file=sys.stderr)
        print(f"go on with:  {resume}", file=sys.stderr)
        return 128 + stop.signum
    if config.quiet:
        print(folder)
    else:
        print(f"\nmodel:  {folder}\nnext:   {_program('render')} -m {shlex.quote(str(folder))}")
    return 0


def _defaults(arguments: list[str]) -> TrainConfig:
    """Where flags that are not given come from: with --resume the model's config.json."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-m", "--model_path", "--model-path", default="")
    parser.add_argument("-s", "--source_path", "--source-path", default="")
    parser.add_argument("--resume", action="store_true")
    known, _ = parser.parse_known_args(arguments)
    if not known.resume:
        return TrainConfig()
    path = model_folder(known.model_path, known.source_path) / "config.json"
    if not path.is_file():
        raise UserError(f"nothing to resume: there is no {path}. Name the model folder with -m.")
    return TrainConfig.load(path)


def _program(verb: str = "train") -> str:
    """How this program was called, so that the commands it prints can be pasted."""
    script = Path(sys.argv[0])
    return f"python {script.with_name(f'{verb}.py')}" if script.name == "train.py" else f"feature-gs {verb}"
