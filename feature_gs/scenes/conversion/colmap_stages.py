"""One stage of COLMAP's library in a process of its own.

Not to be imported: run as a script, with its task as one line of JSON on standard input. When that is closed,
because whoever started this has gone, it ends at once: two that write to one database would damage it.
"""

import json
import os
import sys
import threading
from typing import Any

sys.path.pop(0)  # this folder, whose modules are no top-level ones

import pycolmap  # noqa: E402


def extract(task: dict[str, Any]) -> None:
    """Finds features in photos of one camera."""
    reader = pycolmap.ImageReaderOptions(camera_model=task["camera"])
    if task["camera_id"] is not None:
        reader.existing_camera_id = task["camera_id"]
    pycolmap.extract_features(
        task["database"],
        task["photos"],
        task["names"],
        pycolmap.CameraMode.SINGLE,
        reader,
        pycolmap.FeatureExtractionOptions(num_threads=task["threads"]),
        pycolmap.Device(task["device"]),
    )


def match(task: dict[str, Any]) -> None:
    """Compares photos and checks what they have in common."""
    threads = task["threads"]
    common: dict[str, Any] = {
        "matching_options": pycolmap.FeatureMatchingOptions(num_threads=threads),
        "device": pycolmap.Device(task["device"]),
    }
    if task["matcher"] == "exhaustive":
        pairing = pycolmap.ExhaustivePairingOptions(block_size=task["block"])
        pycolmap.match_exhaustive(task["database"], pairing_options=pairing, **common)
    elif task["matcher"] == "sequential":
        pycolmap.match_sequential(task["database"], **common)
    else:
        lookup = pycolmap.VocabTreePairingOptions(vocab_tree_path=task["vocab_tree"], num_threads=threads)
        pycolmap.match_vocabtree(task["database"], pairing_options=lookup, **common)


def map(task: dict[str, Any]) -> None:
    """Places photos, and writes the models."""
    options = pycolmap.IncrementalPipelineOptions(
        ba_global_function_tolerance=task["tolerance"], num_threads=task["threads"], random_seed=0
    )
    pycolmap.incremental_mapping(task["database"], task["photos"], task["output"], options)


def _end_with_the_caller() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    given = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_caller, daemon=True).start()
    {"extract": extract, "match": match, "map": map}[given["stage"]](given)
    sys.stdout.flush()
    os._exit(0)  # without waiting for the thread above, which waits for the caller
