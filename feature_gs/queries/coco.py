"""Masks in the format of COCO (Lin et al. 2014): run-length codes, and a file of instances."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]  # [H, W]


def encode_rle(mask: Mask) -> dict[str, Any]:  # [H, W]
    """A mask as COCO's uncompressed code: lengths of runs down the columns, of zeros first.

    Args:
        mask: [H, W] bool

    Returns:
        `size` [H, W] and `counts`, which sum to H x W; only the first count may be 0.
    """
    flat = np.asarray(mask, dtype=bool).ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    if flat.size and flat[0]:
        counts.insert(0, 0)
    return {"size": list(mask.shape), "counts": counts}


def decode_rle(code: dict[str, Any]) -> Mask:  # [H, W]
    """The mask that `encode_rle` coded.

    Raises:
        ValueError: The counts do not fill the size.
    """
    height, width = code["size"]
    counts = np.asarray(code["counts"], dtype=np.int64)
    if min(height, width) < 0 or (counts < 0).any() or counts.sum() != height * width:
        raise ValueError(f"the runs must sum to {height} x {width}, got {counts.sum()}")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape((height, width), order="F")


def coco_file(images: Iterable[tuple[str, Mask]], about: str) -> dict[str, Any]:
    """The document of some pictures' instances.

    An annotation's `instance_id` is not of COCO: it is the same for one thing in all pictures.

    Args:
        images: For each picture its file name and the masks of its K instances. [K, H, W] bool
        about: What made them.

    Returns:
        What `json.dump` writes and COCO's tools read. Instances that a picture does not show are left out.
    """
    pictures: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for name, masks in images:
        number, (height, width) = len(pictures) + 1, masks.shape[1:]
        pictures.append({"id": number, "file_name": name, "width": width, "height": height})
        for instance in np.flatnonzero(masks.any(axis=(1, 2))).tolist():
            mask = masks[instance]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "instance_id": instance + 1,
                    "segmentation": encode_rle(mask),
                    "area": int(mask.sum()),
                    "bbox": bounding_box(mask),
                    "iscrowd": 0,
                }
            )
    return {
        "info": {"description": about},
        "licenses": [],
        "categories": [{"id": 1, "name": "thing", "supercategory": "thing"}],
        "images": pictures,
        "annotations": annotations,
    }


def bounding_box(mask: Mask) -> Sequence[int]:  # [H, W]
    """Left, top, width and height of the smallest box around a mask that is not empty, pixels."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    return [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top]
