"""`feature-gs evaluate-segmentation`: label pictures against true ones, over a whole data set.

    feature-gs evaluate-segmentation --pred MODEL/queries/NAME/masks --labels SCENE/labels
    feature-gs evaluate-segmentation -m MODEL --text "wall,floor,chair"

The first compares pictures: files belong together by their names (000.png with 000.png), pixels one to one;
where both folders have a labels.json (in it or beside it), ids of the same name mean the same. The second is
Feature 3DGS's protocol: there are no true labels, the words likeliest by the rendered features (the student)
are compared with those likeliest by the teacher's own maps. Figures go to PRED or MODEL/segmentation.json.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from feature_gs.cli.label_pairs import LabelPairs, StudentAndTeacher, TwoFolders
from feature_gs.cli.teacher_views import Views
from feature_gs.errors import UserError
from feature_gs.evaluation.segmentation import Confusion, SegmentationScores, feature_3dgs_scores
from feature_gs.files import atomic_write

_LONGEST_NAME = 40
_MASK = 255  # of a picture that says yes or no
_OF_A_MODEL = ("text", "source_path", "weights")


@dataclass(frozen=True)
class EvaluateSegmentationConfig:
    """Measure label pictures: mIoU, pixel and class accuracy of one confusion matrix over all pictures."""

    pred: Path | None = None
    """Folder of the predicted label pictures."""
    labels: Path | None = None
    """Folder of the true ones."""
    ignore: tuple[str, ...] = ()
    """True labels that do not count, by id or by name."""
    merge: tuple[str, ...] = ()
    """Labels that count as another, on both sides: "rug:floor" or "29:4"."""
    feature_3dgs: bool = False
    """Also measure as Feature 3DGS does: per picture, at 119 x 159 pixels, the seven most frequent labels."""
    model_path: Annotated[Path | None, tyro.conf.arg(aliases=["-m"])] = None
    """Compare a model with its own teacher instead of two folders, as Feature 3DGS does."""
    text: str = ""
    """-m: the words, with commas between them; ade20k: the 150 of ADE20K, merged as Feature 3DGS merges
    them (television to door, rug to floor, pillow to cushion)."""
    source_path: Annotated[str, tyro.conf.arg(aliases=["-s"])] = ""
    """-m: folder of the scene, when it is no longer where it was at training."""
    views: Views = "test"
    """-m: the views to compare."""
    weights: Path | None = None
    """-m: file with the teacher's weights, for the words. None: those it finds itself."""
    output: Path | None = None
    """File for the figures. None: segmentation.json in PRED or in the model's folder."""
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
    pairs, folder, about = _asked(config)
    confusion = Confusion(ignore=pairs.ignore)
    theirs = []
    for predicted, true in pairs.pictures():
        confusion.add(predicted, true)
        if config.feature_3dgs or config.model_path is not None:
            theirs.append(feature_3dgs_scores(predicted, true))
    if not confusion.counts:
        raise UserError("nothing is left to measure: --ignore covers every pixel.")
    scores = confusion.scores()
    if scores.only_predicted == [_MASK] and {predicted for _, predicted in confusion.counts} <= {0, _MASK}:
        raise UserError(
            f"{folder} holds masks (0 and {_MASK}), and {_MASK} is none of the labels: say which one the "
            f"masks show, --merge {_MASK}:ID."
        )
    content: dict[str, Any] = {
        **about,
        "pictures": len(pairs),
        "miou": scores.miou,
        "pixel_accuracy": scores.pixel_accuracy,
        "class_accuracy": scores.class_accuracy,
        "classes": {
            str(key): {"name": pairs.names.get(key, ""), **asdict(value)}
            for key, value in scores.classes.items()
        },
        "only_predicted": scores.only_predicted,
    }
    if theirs:
        accuracy, miou = np.mean(theirs, axis=0).tolist()
        content["feature_3dgs"] = {"miou": miou, "accuracy": accuracy}
    output = config.output or folder / "segmentation.json"
    with atomic_write(output) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")
    if config.quiet:
        return
    print(_table(scores, pairs.names, len(pairs)))
    if config.model_path is not None:
        print("What is called true here is what the teacher says, right or wrong.")
    if theirs:
        print(f"\nAs Feature 3DGS measures: mIoU {miou:.4f}, accuracy {accuracy:.4f}")
    print(f"\nIn JSON: {output}")


def _asked(config: EvaluateSegmentationConfig) -> tuple[LabelPairs, Path, dict[str, Any]]:
    """What is compared, where the figures go, and what they say it was."""
    if config.model_path is None:
        given = [name for name in _OF_A_MODEL if getattr(config, name)]
        if given:
            raise UserError(f"--{given[0]} goes with -m: folders of pictures say themselves what they are.")
        if config.pred is None or config.labels is None:
            raise UserError(
                "what is compared? Give --pred FOLDER and --labels FOLDER, or -m MODEL and --text."
            )
        folders = TwoFolders(config.pred, config.labels, config.ignore, config.merge)
        return folders, config.pred, {"pred": str(config.pred), "labels": str(config.labels)}
    if config.pred is not None or config.labels is not None:
        raise UserError("-m compares a model with its teacher: leave out --pred and --labels.")
    if not config.text.strip():
        raise UserError('-m compares words: name them, --text "wall,floor,chair" or --text ade20k.')
    pair = StudentAndTeacher(
        config.model_path,
        config.text,
        views=config.views,
        source_path=config.source_path,
        weights=config.weights,
        ignore=config.ignore,
        merge=config.merge,
        quiet=config.quiet,
    )
    return pair, config.model_path, {"model": str(config.model_path), "teacher": pair.teacher}


def _table(scores: SegmentationScores, names: dict[int, str], pictures: int) -> str:
    shown = {key: f"{key} {names.get(key, '')}".strip()[:_LONGEST_NAME] for key in scores.classes}
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
        extra = ", ".join(f"{key} {names.get(key, '')}".strip() for key in scores.only_predicted)
        lines.append(f"Predicted, but in no label: {extra}"[:80])
    return "\n".join(lines)
