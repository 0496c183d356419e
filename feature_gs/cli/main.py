"""`feature-gs VERB ...`: finds the verb, runs it, and turns what goes wrong into exit codes.

Exit codes: 0 done, 2 bad input (the message says how to mend it), 130 interrupted. Anything else is a
fault of this program and shows its traceback.
"""

import difflib
import errno
import importlib
import os
import sys

from feature_gs import __version__
from feature_gs.errors import UserError

# Verb: (module, what it does). The module is imported only when its verb is called.
VERBS = {
    "convert": ("feature_gs.cli.convert", "make a scene of photos or of a film"),
    "encode": ("feature_gs.cli.encode", "let a 2D model describe every photo of a scene"),
    "train": ("feature_gs.cli.train", "train Gaussians on a folder of photos with camera poses"),
    "lift": ("feature_gs.cli.lift", "give finished Gaussians features, without training"),
    "render": ("feature_gs.cli.render", "render pictures and videos of a trained model"),
    "segment": ("feature_gs.cli.segment", "find things by a prompt: masks, and Gaussians"),
    "decompose": ("feature_gs.cli.decompose", "render views with and without a selection"),
    "edit": ("feature_gs.cli.edit", "remove, move, recolour, double or insert things"),
    "evaluate": ("feature_gs.cli.evaluate", "measure PSNR, SSIM and LPIPS of a trained model"),
    "evaluate-segmentation": (
        "feature_gs.cli.evaluate_segmentation",
        "measure label pictures: mIoU and accuracies",
    ),
    "evaluate-retrieval": (
        "feature_gs.cli.evaluate_retrieval",
        "measure how well features find objects again",
    ),
    "export-sam-decoder": ("feature_gs.cli.export_sam_decoder", "write SAM's decoder as an ONNX file"),
    "demo": ("feature_gs.cli.demo", "make a small scene, train on it and show the result"),
    "benchmark": ("feature_gs.cli.benchmark", "measure the speed of the rasterizer on this machine"),
    "info": ("feature_gs.cli.info", "show versions, backend, and what is missing for what"),
}

# A folder or file that cannot be used as it was asked for.
_PLACES = (
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR),
    *(errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG),
)
_NOT_BUILT = (
    "the compiled core of feature_gs is not built.\n"
    "  Build it with `pip install -e . --no-build-isolation`, or `make demo` in the checkout."
)


def main(argv: list[str] | None = None) -> int:
    """Runs one verb.

    Args:
        argv: The command line without the program's name; the process's own when None.

    Returns:
        The exit code.
    """
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if arguments[0] in ("--version", "-V"):
        print(f"feature-gs {__version__}")
        return 0
    try:
        return _run(arguments[0], arguments[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `feature-gs ... | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ImportError as error:
        if error.name not in ("feature_gs", "feature_gs._C") or "_C" not in str(error):
            raise
        print(f"error: {_NOT_BUILT}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            print(f"error: the disk is full: {error.filename or error}", file=sys.stderr)
        elif error.errno in _PLACES:
            print(f"error: {error.filename}: {error.strerror}. Name another place.", file=sys.stderr)
        else:
            raise
        return 2


def _run(verb: str, arguments: list[str]) -> int:
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"Did you mean `feature-gs {near[0]}`?" if near else f"There are: {', '.join(VERBS)}."
        raise UserError(f"there is no verb {verb!r}. {hint}")
    return int(importlib.import_module(VERBS[verb][0]).main(arguments))


def _help() -> str:
    room = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{room}} {what}" for verb, (_, what) in VERBS.items())
    return (
        "usage: feature-gs VERB [options]\n\n"
        "3D Gaussian splatting on any machine, CPU or GPU.\n\n"
        f"{verbs}\n\n"
        "Options of a verb: feature-gs VERB --help. Version: feature-gs --version.\n"
        "A first look: feature-gs demo"
    )
