"""What SAM's automatic mask generator does around the network: where to ask, what to keep."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_OFFSET = 1.0  # of the thresholds between which a stable mask hardly changes


def point_grid(per_side: int) -> Tensor:
    """Points spread evenly over the unit square, half a step from its edge, row by row. [n * n, 2] float64"""
    offset = 1 / (2 * per_side)
    steps = torch.from_numpy(np.linspace(offset, 1 - offset, per_side))
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2)


def stability_of(logits: Tensor) -> Tensor:  # [m, H, W] -> [m]
    """Intersection over union of each mask at the thresholds +1 and -1; NaN where it is empty at both."""
    inner, outer = (
        (logits > threshold).flatten(1).sum(1, dtype=torch.int32) for threshold in (_OFFSET, -_OFFSET)
    )
    return inner / outer


def boxes_of(masks: Tensor) -> Tensor:  # [m, H, W] bool -> [m, 4]
    """First and last column and row of each mask: left, top, right, bottom; zeros where it is empty. int64"""
    boxes = []
    for filled in (masks.any(1), masks.any(2)):  # columns, rows
        first = filled.byte().argmax(1)
        last = filled.shape[1] - 1 - filled.flip(1).byte().argmax(1)
        boxes.append(torch.stack([first, last], dim=1) * filled.any(1, keepdim=True))
    return torch.stack(boxes, dim=2).reshape(-1, 4)


def suppressed(boxes: Tensor, scores: Tensor, overlap: float) -> Tensor:  # [m, 4], [m] -> [k]
    """Non-maximum suppression: from the best score on, boxes that overlap a kept one too much are dropped.

    Args:
        boxes: Left, top, right, bottom. [m, 4]
        scores: Of equal ones the first goes first. [m]
        overlap: Intersection over union above which a box is dropped.

    Returns:
        Indices of the kept boxes, the best score first. [k]
    """
    order = scores.argsort(descending=True, stable=True)
    boxes = boxes[order].float()
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    alive = torch.ones(len(boxes), dtype=torch.bool)
    for index in range(len(boxes)):
        if not alive[index]:
            continue
        corner, end = boxes[index, :2], boxes[index, 2:]
        size = (torch.minimum(boxes[:, 2:], end) - torch.maximum(boxes[:, :2], corner)).clamp(min=0)
        common = size.prod(1)
        alive[index + 1 :] &= (common / (areas + areas[index] - common) <= overlap)[index + 1 :]
    return order[alive]


class Candidates:
    """Masks found so far, a bit per pixel."""

    def __init__(self, width: int, height: int) -> None:
        """Starts without masks.

        Args:
            width: Width of the picture in pixels.
            height: Its height.
        """
        self._shape = height, width
        self._bits: list[NDArray[np.uint8]] = []
        self._known = torch.zeros(0, 8, dtype=torch.float64)  # box, score, stability, x, y

    def add(
        self,
        logits: Tensor,  # [m, H, W]
        scores: Tensor,  # [m]
        points: Tensor,  # [m, 2]
        stability: float,
    ) -> None:
        """Takes those of the masks that are stable enough.

        Args:
            logits: Masks at the picture's size.
            scores: How good SAM thinks they are.
            points: x and y that asked for them, pixels of the picture.
            stability: What `stability_of` must reach.
        """
        stable = stability_of(logits)
        keep = stable >= stability
        masks = logits[keep] > 0
        self._bits += list(np.packbits(masks.flatten(1).numpy(), axis=1))
        known = [boxes_of(masks), scores[keep, None], stable[keep, None], points[keep]]
        self._known = torch.cat([self._known, torch.cat([part.double() for part in known], dim=1)])

    def best(
        self, overlap: float
    ) -> Iterator[tuple[Tensor, float, float, int, tuple[int, int, int, int], tuple[float, float]]]:
        """Mask, score, stability, area, box and point of those that no better one covers, the best first.

        The box is left, top, right and bottom edge, pixels.
        """
        for index in suppressed(self._known[:, :4], self._known[:, 4], overlap).tolist():
            left, top, right, bottom, score, stable, x, y = self._known[index].tolist()
            bits = np.unpackbits(self._bits[index], count=self._shape[0] * self._shape[1])
            mask = torch.from_numpy(bits.astype(bool)).view(self._shape)
            area = int(mask.sum())
            some = int(area > 0)  # an empty mask has an empty box
            box = (int(left), int(top), int(right) + some, int(bottom) + some)
            yield mask, score, stable, area, box, (x, y)
