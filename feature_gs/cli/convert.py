"""`feature-gs convert` and convert.py: from photos or a film to a scene.

SOURCE/
  input/                  the photos as taken; with --video they are taken from a film
  distorted/              database.db, sparse/N: what COLMAP found; convert.json: what is done
  images/                 the photos without lens distortion, upright
  sparse/0/               their cameras, and points
  images_2/, _4/, _8/     with --resize: smaller photos
"""

import shlex
import sys
from pathlib import Path

import tyro

from feature_gs.scenes.conversion import ConvertConfig, convert


def main(argv: list[str] | None = None) -> int:
    """Converts; see the module's text for what it writes.

    Args:
        argv: The command line without the program's name; the process's own when None.

    Raises:
        UserError: The photos or the flags are at fault.
    """
    config = tyro.cli(
        ConvertConfig,
        args=argv,
        prog=_program("convert"),
        use_underscores=True,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    try:
        made = convert(config, _silent if config.quiet else print)
    except KeyboardInterrupt:
        print("\nWhat is finished is kept; the same command goes on.", file=sys.stderr)
        raise
    if not config.quiet:
        print(
            f"\n{made.placed} of {made.photos} photos placed, {made.points:,} points, {made.error:.2f} px off"
        )
    print(f"next:   {_program('train')} -s {shlex.quote(str(config.source_path))}")
    return 0


def _program(verb: str) -> str:
    """How this program was called, so that the commands it prints can be pasted."""
    script = Path(sys.argv[0])
    called = script.name == "convert.py"
    return f"python {script.with_name(f'{verb}.py')}" if called else f"feature-gs {verb}"


def _silent(_: str) -> None:
    pass
