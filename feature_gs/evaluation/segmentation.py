"""How well label maps agree: over a whole data set, and as Feature 3DGS reports it."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from feature_gs.evaluation.label_images import Ids

_MOST_FREQUENT = 7  # labels of an image that Feature 3DGS counts
_THEIR_SIZE = 119, 159  # rows and columns at which it compares


@dataclass(frozen=True)
class ClassScores:
    """One class over the data set.

    Attributes:
        iou: Pixels that both call so / pixels that one of them does.
        accuracy: Share of the class's true pixels that were found.
        pixels: Its true pixels.
    """

    iou: float
    accuracy: float
    pixels: int


@dataclass(frozen=True)
class SegmentationScores:
    """What one confusion matrix over a data set says.

    Attributes:
        miou: Mean IoU over the classes that occur in the labels.
        pixel_accuracy: Share of the pixels that got their label.
        class_accuracy: Mean over the same classes of the share of their pixels that were found.
        classes: The figures of each class, by id.
        only_predicted: Ids that were predicted but occur in no label; their pixels count as errors of others.
    """

    miou: float
    pixel_accuracy: float
    class_accuracy: float
    classes: dict[int, ClassScores]
    only_predicted: list[int]


@dataclass
class Confusion:
    """Counts of pixels by true and predicted id, over any number of pictures.

    Attributes:
        ignore: True ids that do not count; such pixels are left out.
        counts: Pixels by (true id, predicted id).
    """

    ignore: Collection[int] = ()
    counts: Counter[tuple[int, int]] = field(default_factory=Counter)

    def add(self, predicted: Ids, true: Ids) -> None:  # [H, W], [H, W]
        """Counts the pixels of one picture.

        Raises:
            ValueError: The sizes differ.
        """
        if predicted.shape != true.shape:
            raise ValueError(f"predicted and true must be of one size, got {predicted.shape}, {true.shape}")
        counted = ~np.isin(true, list(self.ignore))
        pairs = np.stack([true[counted], predicted[counted]])
        values, numbers = np.unique(pairs, axis=1, return_counts=True)
        for (t, p), number in zip(values.T.tolist(), numbers.tolist(), strict=True):
            self.counts[t, p] += number

    def scores(self) -> SegmentationScores:
        """The figures of all that was added.

        Raises:
            ValueError: No pixel counts.
        """
        if not self.counts:
            raise ValueError("there is no pixel to count: all true ids are ignored")
        true, predicted = Counter[int](), Counter[int]()
        for (t, p), number in self.counts.items():
            true[t] += number
            predicted[p] += number
        classes = {}
        for label, pixels in sorted(true.items()):
            both = self.counts[label, label]
            classes[label] = ClassScores(
                both / (pixels + predicted[label] - both), both / pixels, int(pixels)
            )
        return SegmentationScores(
            miou=float(np.mean([scores.iou for scores in classes.values()])),
            pixel_accuracy=sum(self.counts[label, label] for label in classes) / sum(true.values()),
            class_accuracy=float(np.mean([scores.accuracy for scores in classes.values()])),
            classes=classes,
            only_predicted=sorted(set(predicted) - set(true)),
        )


def feature_3dgs_scores(student: Ids, teacher: Ids) -> tuple[float, float]:  # [H, W], [H, W]
    """One image as Feature 3DGS measures it (segmentation_metric.py); it averages these over the images.

    Both maps are cut to 119 x 159 by taking the nearest pixel. The accuracy is the share of equal pixels. The
    IoU is the mean over the seven labels that are most frequent in both maps together: rare labels do not
    count, and "truth" is what the teacher says, right or wrong. Of equally frequent labels the smaller id
    goes first.

    Args:
        student: Labels from the rendered features. [H, W]
        teacher: Labels from the teacher's own features. [H, W]

    Returns:
        Accuracy and mean IoU, 0 to 1.

    Raises:
        ValueError: The sizes differ.
    """
    if student.shape != teacher.shape:
        raise ValueError(f"student and teacher must be of one size, got {student.shape}, {teacher.shape}")
    student, teacher = _nearest(student), _nearest(teacher)
    labels, counts = np.unique(np.stack([student, teacher]), return_counts=True)
    ious = []
    for label in labels[np.argsort(-counts, kind="stable")][:_MOST_FREQUENT]:
        here, there = student == label, teacher == label
        ious.append((here & there).sum() / (here | there).sum())
    return float((student == teacher).mean()), float(np.mean(ious))


def _nearest(ids: Ids) -> NDArray[np.int64]:  # [H, W] -> [119, 159]
    """The pixels that torch's interpolate(mode="nearest") takes."""
    rows, columns = (
        np.arange(wanted) * side // wanted for wanted, side in zip(_THEIR_SIZE, ids.shape, strict=True)
    )
    return ids[rows[:, None], columns]
