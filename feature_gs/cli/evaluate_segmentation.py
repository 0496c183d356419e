"""`feature-gs evaluate-segmentation`: label pictures against true ones, over a whole data set.

    feature-gs evaluate-segmentation --pred MODEL/queries/NAME/masks --labels SCENE/labels

Files belong together by their names (000.png with 000.png), pixels one to one. Where both folders have a
labels.json (in it or beside it), ids of the same name mean the same. Writes PRED/segmentation.json.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tyro

from feature_gs.errors import UserError
from feature_gs.evaluation.label_images import (
    Ids,
    by_name,
    find_label,
    label_names,
    matched,
    read_label_image,
    replaced,
)
from feature_gs.evaluation.segmentation import Confusion, SegmentationScores, feature_3dgs_scores
from feature_gs.files import atomic_write

_LONGEST_NAME = 40


@dataclass(frozen=True)
class EvaluateSegmentationConfig:
    """Measure label pictures: mIoU, pixel and class accuracy of one confusion matrix over all pictures."""

    pred: Path
    """Folder of the predicted label pictures."""
    labels: Path
    """Folder of the true ones (with --feature_3dgs: those of the teacher's own features)."""
    ignore: tuple[str, ...] = ()
    """True labels that do not count, by id or by name."""
    merge: tuple[str, ...] = ()
    """Labels that count as another, in both folders: "rug:floor" or "29:4"."""
    feature_3dgs: bool = False
    """Also measure as Feature 3DGS does: student against teacher, the seven most frequent labels of each
    picture at 119 x 159 pixels, averaged over pictures."""
    output: Path | None = None
    """File for the figures. None: PRED/segmentation.json."""
    quiet: bool = False
    """Print nothing but errors."""


def main(argv: list[str] | None = None) -> int:
    """Measures, prints a table, and writes the figures as JSON."""
    config = tyro.cli(
        EvaluateSegmentationConfig,
        args=argv,
        prog="feature-gs evaluate-segmentation",
        use_underscores=True,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    run(config)
    return 0


def run(config: EvaluateSegmentationConfig) -> None:
    """Measures what `config` asks for.

    Raises:
        UserError: Files are missing, do not fit each other, or leave nothing to count.
    """
    files = _Files(config)
    confusion = Confusion(ignore=files.ignore)
    theirs = []
    for predicted, true in files.pictures():
        confusion.add(predicted, true)
        if config.feature_3dgs:
            theirs.append(feature_3dgs_scores(predicted, true))
    if not confusion.counts:
        raise UserError(f"nothing is left to measure: --ignore covers every pixel of {config.labels}.")
    scores = confusion.scores()
    content = {
        "pred": str(config.pred),
        "labels": str(config.labels),
        "pictures": len(files.matched),
        "miou": scores.miou,
        "pixel_accuracy": scores.pixel_accuracy,
        "class_accuracy": scores.class_accuracy,
        "classes": {
            str(key): {"name": files.names.get(key, ""), **asdict(value)}
            for key, value in scores.classes.items()
        },
        "only_predicted": scores.only_predicted,
    }
    if theirs:
        accuracy, miou = np.mean(theirs, axis=0).tolist()
        content["feature_3dgs"] = {"miou": miou, "accuracy": accuracy}
    output = config.output or config.pred / "segmentation.json"
    with atomic_write(output) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")
    if config.quiet:
        return
    print(_table(scores, files, len(files.matched)))
    if theirs:
        print(
            f"\nAs Feature 3DGS measures (student against teacher): mIoU {miou:.4f}, accuracy {accuracy:.4f}"
        )
    print(f"\nIn JSON: {output}")


class _Files:
    """The two folders: which pictures belong together, and whose ids mean what."""

    def __init__(self, config: EvaluateSegmentationConfig) -> None:
        self.matched = matched(config.pred, config.labels)
        theirs, self.names = label_names(config.pred), label_names(config.labels)
        # Ids of the predictions become those of the labels; a name that these lack gets an id of its own.
        taken = {*self.names, *theirs}
        same, fresh = by_name(theirs, self.names), max(taken, default=0) + 1
        self._predicted: dict[int, int] = {}
        if self.names:
            for number, key in enumerate(key for key in theirs if key not in same):
                same[key] = fresh + number
                self.names[fresh + number] = theirs[key]
            self._predicted = same
        else:
            self.names = dict(theirs)
        self.ignore = [find_label(text, self.names) for text in config.ignore]
        self._merged: dict[int, int] = {}
        for pair in config.merge:
            one, _, other = pair.partition(":")
            if not one or not other:
                raise UserError(f"--merge takes pairs as rug:floor or 29:4, got {pair!r}.")
            self._merged[find_label(one, self.names)] = find_label(other, self.names)

    def pictures(self) -> Iterator[tuple[Ids, Ids]]:
        """Predicted and true ids of each picture."""
        for name, *paths in self.matched:
            predicted, true = (read_label_image(path) for path in paths)
            if predicted.shape != true.shape:
                sizes = " and ".join(f"{ids.shape[1]} x {ids.shape[0]}" for ids in (predicted, true))
                raise UserError(f"{name}.png: prediction and labels must be of one size, they are {sizes}.")
            predicted = replaced(predicted, self._predicted)
            yield replaced(predicted, self._merged), replaced(true, self._merged)


def _table(scores: SegmentationScores, files: _Files, pictures: int) -> str:
    shown = {key: f"{key} {files.names.get(key, '')}".strip()[:_LONGEST_NAME] for key in scores.classes}
    mean = f"mean of {len(shown)}"
    room = max(map(len, [*shown.values(), "label", mean]))
    rule = "-" * (room + 34)
    lines = [f"{'label':<{room}}{'IoU':>10}{'accuracy':>11}{'pixels':>13}", rule]
    for key, value in scores.classes.items():
        lines.append(f"{shown[key]:<{room}}{value.iou:>10.4f}{value.accuracy:>11.4f}{value.pixels:>13,}")
    total = sum(value.pixels for value in scores.classes.values())
    lines += [rule, f"{mean:<{room}}{scores.miou:>10.4f}{scores.class_accuracy:>11.4f}{total:>13,}", ""]
    lines.append(
        f"mIoU {scores.miou:.4f}, pixel accuracy {scores.pixel_accuracy:.4f}, class accuracy "
        f"{scores.class_accuracy:.4f}"
    )
    lines.append(f"of {pictures} pictures, {total:,} pixels")
    if scores.only_predicted:
        names = ", ".join(f"{key} {files.names.get(key, '')}".strip() for key in scores.only_predicted)
        lines.append(f"Predicted, but in no label: {names}"[:80])
    return "\n".join(lines)
