"""Names of the files that are written for images: depth, features and the like."""

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath


def names_without_suffix(names: Sequence[str]) -> list[str]:
    """Image names without their suffix: "left/0001.jpg" becomes "left/0001".

    Where two images differ only in their suffix, both keep it.

    Args:
        names: All image names of a scene, with forward slashes.
    """
    stems = [str(PurePosixPath(name).with_suffix("")) for name in names]
    uses = Counter(stems)
    return [stem if uses[stem] == 1 else name for stem, name in zip(stems, names, strict=True)]
