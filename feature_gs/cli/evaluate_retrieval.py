"""`feature-gs evaluate-retrieval`: do distilled features find objects again better than their teacher's?

    feature-gs evaluate-retrieval -m MODEL --labels SCENE/labels

N3F's question. In one view an object is marked by its label; the mean of its unit features is the query; the
cells of every other view are ranked by nearness and judged by average precision. Averaged over the other
views, the query views, and the objects. Features and labels are compared at the teacher's cells; a cell has
the label of most of its pixels. Writes MODEL/retrieval.json.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch import Tensor
from tqdm import tqdm

from feature_gs.cli.teacher_views import Views, distilled, field_of, teacher_of, views_of
from feature_gs.errors import UserError
from feature_gs.evaluation.label_images import (
    cell_labels,
    find_label,
    label_images,
    label_names,
    read_label_image,
)
from feature_gs.evaluation.retrieval import retrieval_map
from feature_gs.features.field import FeatureField
from feature_gs.files import atomic_write
from feature_gs.scenes import View
from feature_gs.scenes.names import names_without_suffix
from feature_gs.training.trained import Trained, load_trained

KINDS = ("teacher", "distilled")


@dataclass(frozen=True)
class EvaluateRetrievalConfig:
    """Measure how well objects are found again from view to view: distilled features beside the teacher's."""

    model_path: Annotated[Path, tyro.conf.arg(aliases=["-m"])]
    """Folder of the trained model."""
    labels: Path
    """Folder of label pictures, named as the photos, one id per pixel."""
    source_path: Annotated[str, tyro.conf.arg(aliases=["-s"])] = ""
    """Folder of the scene, when it is no longer where it was at training."""
    iteration: int = -1
    """Iteration to measure; -1: the newest."""
    views: Views = "test"
    """The views to search in."""
    objects: tuple[str, ...] = ()
    """What to look for, by id or by name. Empty: every label that occurs."""
    ignore: tuple[str, ...] = ()
    """Labels that are neither looked for nor ranked, by id or by name."""
    output: Path | None = None
    """File for the figures. None: MODEL/retrieval.json."""
    quiet: bool = False
    """Print nothing but errors."""


def main(argv: list[str] | None = None) -> int:
    """Measures, prints a table, and writes the figures as JSON."""
    config = tyro.cli(
        EvaluateRetrievalConfig,
        args=argv,
        prog="feature-gs evaluate-retrieval",
        use_underscores=True,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    run(config)
    return 0


def run(config: EvaluateRetrievalConfig) -> None:
    """Measures what `config` asks for.

    Raises:
        UserError: The model, its teacher's maps or the labels are at fault.
    """
    trained = load_trained(config.model_path, config.iteration)
    field = field_of(trained)
    views = views_of(trained, config.views, config.source_path, at_least=2)
    labels, names = _labels(config, views), label_names(config.labels)
    objects, ignored = (
        {find_label(text, names) for text in texts} for texts in (config.objects, config.ignore)
    )
    teacher = teacher_of(trained, field, config.source_path, views)
    maps: dict[str, list[Tensor]] = {kind: [] for kind in KINDS}
    cells = []
    for view in tqdm(views, "views", unit="view", ncols=80, disable=config.quiet):
        teacher_map = teacher.load(view)
        maps["teacher"].append(teacher_map.features.float().permute(1, 2, 0))
        maps["distilled"].append(distilled(trained, field, view, teacher_map))
        shape = teacher_map.features.shape[1:]
        ids = cell_labels(
            read_label_image(labels[view.camera.name]), teacher_map.cells_x, teacher_map.cells_y, shape
        )
        here = torch.from_numpy(ids)
        cells.append(torch.where(torch.isin(here, torch.tensor([*ignored], dtype=torch.int64)), -1, here))
    found = {label for ids in cells for label in ids.unique().tolist() if label >= 0}
    wanted = sorted(found & objects) if objects else sorted(found)
    if objects and not wanted:
        raise UserError(
            f"--objects: none of {_listed(objects)} is in the labels of the {len(views)} views; these show "
            f"{_listed(found)}."
        )
    seen = {
        label: {kind: retrieval_map(maps[kind], cells, objects=[label]) for kind in KINDS}
        for label in tqdm(wanted, "objects", unit="object", ncols=80, disable=config.quiet)
        if sum(bool((ids == label).any()) for ids in cells) > 1
    }
    if not seen:
        raise UserError("no object is seen in two of the views: there is nothing to find again.")
    _report(config, trained, field, len(views), names, seen)


def _listed(labels: set[int]) -> str:
    return ", ".join(map(str, sorted(labels)))


def _labels(config: EvaluateRetrievalConfig, views: list[View]) -> dict[str, Path]:
    """The label picture of each view, by the photo's name."""
    files = label_images(config.labels)
    names = [view.camera.name for view in views]
    stems = names_without_suffix(names)
    lost = [stem for stem in stems if stem not in files]
    if lost:
        raise UserError(f"{config.labels} lacks the labels of {len(lost)} views, {lost[0]}.png the first.")
    return {name: files[stem] for name, stem in zip(names, stems, strict=True)}


def _report(
    config: EvaluateRetrievalConfig,
    trained: Trained,
    field: FeatureField,
    views: int,
    names: dict[int, str],
    seen: dict[int, dict[str, float]],
) -> None:
    means = {kind: sum(values[kind] for values in seen.values()) / len(seen) for kind in KINDS}
    gain = means["distilled"] - means["teacher"]
    content = {
        "iteration": trained.iteration,
        "teacher": field.teacher,
        "views": views,
        "map": {**means, "gain": gain},
        "objects": {str(label): {"name": names.get(label, ""), **values} for label, values in seen.items()},
    }
    output = config.output or config.model_path / "retrieval.json"
    with atomic_write(output) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")
    if config.quiet:
        return
    shown = {label: f"{label} {names.get(label, '')}".strip()[:40] for label in seen}
    room = max(map(len, [*shown.values(), f"mean of {len(seen)}"]))
    rule = "-" * (room + 30)
    print(f"{'object':<{room}}{'teacher':>10}{'distilled':>10}{'gain':>10}\n{rule}")
    for label, values in seen.items():
        print(_line(shown[label], values, room))
    print(f"{rule}\n{_line(f'mean of {len(seen)}', means, room)}")
    print(f"\nMean average precision over {views} views; teacher {field.teacher}.\nIn JSON: {output}")


def _line(name: str, values: dict[str, float], room: int) -> str:
    figures = [values["teacher"], values["distilled"], values["distilled"] - values["teacher"]]
    return f"{name:<{room}}" + "".join(f"{figure:>10.4f}" for figure in figures)
