"""How well prompts find objects whose masks are known.

    python tests/prompt_accuracy.py MODEL SCENE --teacher TEACHER --kinds point box patch everything

MODEL is a trained model with features (`feature-gs lift -m MODEL -f TEACHER`), SCENE has label images
labels/NAME.png with labels.json, TEACHER is the folder of the maps that were lifted. For each object and each
test view there is one prompt: the point farthest from the outline of its label, a square patch there,
or the label's bounding box. Each is answered in 3D, and by the teacher's own map of that view, in which the
same region grows (`feature_gs.queries.in_view`). Labels are used for the prompts and for measuring only.

Printed are intersections over union with the labels, averaged over objects and views: of the answer in all
test views, in the view of the prompt, and of the teacher in the view of the prompt.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from code_teacher import read_labels
from torch import Tensor

from feature_gs.features.comparison import Patch
from feature_gs.features.field import FeatureField
from feature_gs.features.teacher import TeacherStore
from feature_gs.queries.ask import ask_box, ask_patch, ask_points, find_everything
from feature_gs.queries.in_view import ViewMap
from feature_gs.queries.selection import Selection
from feature_gs.queries.similarity import cosines, distance_of
from feature_gs.queries.thresholds import nearest_group
from feature_gs.queries.views import Box, score_images
from feature_gs.scenes import Camera
from feature_gs.training.trained import Trained, load_trained

KINDS = ("point", "box", "patch", "everything")
FOUND = 0.75  # intersection over union from which an object is one instance


@dataclass(frozen=True, eq=False)
class Bench:
    """A model with labels.

    Attributes:
        trained: The model.
        field: Its features.
        cameras: The views that are measured.
        labels: Their label images by name. [H, W] each
        objects: Names of the objects by label.
        teacher: The teacher's maps of these views by name, where it is measured.
    """

    trained: Trained
    field: FeatureField
    cameras: list[Camera]
    labels: dict[str, Tensor]
    objects: dict[int, str]
    teacher: dict[str, ViewMap]

    @classmethod
    def open(cls, model: Path, scene: Path, teacher: Path | None) -> "Bench":
        trained = load_trained(model)
        field = trained.field()
        assert field is not None, f"{model} has no features"
        about = json.loads((scene / "labels.json").read_text(encoding="utf-8"))
        names = {int(key): name for key, name in about["labels"].items()}
        objects = {key: name for key, name in names.items() if name in about["objects"]}
        cameras = trained.cameras["test"]
        labels = {
            camera.name: read_labels((scene / "labels" / camera.name).with_suffix(".png"))
            for camera in cameras
        }
        maps = {}
        if teacher is not None:
            store, views = TeacherStore.open(teacher), trained.views()
            maps = {camera.name: teacher_map(store, views[camera.name]) for camera in cameras}
        return cls(trained, field, cameras, labels, objects, maps)

    def prompts(self, camera: Camera) -> dict[int, Tensor]:
        """The masks of the objects that a view shows, by label. [H, W] each"""
        masks = {label: self.labels[camera.name] == label for label in self.objects}
        return {label: mask for label, mask in masks.items() if mask.any()}

    def ious(self, answers: dict[int, Tensor]) -> dict[int, dict[str, float]]:  # [N] each
        """Intersection over union of answers with their objects, by label and name of the view."""
        found: dict[int, dict[str, float]] = {label: {} for label in answers}
        for camera in self.cameras:
            images = score_images(self.trained, camera, torch.stack([*answers.values()], dim=1)).cpu() > 0.5
            for label, image in zip(answers, images.unbind(2), strict=True):
                mask = self.labels[camera.name] == label
                if mask.any():
                    found[label][camera.name] = iou(image, mask)
        return found


def teacher_map(store: TeacherStore, view: object) -> ViewMap:
    """The teacher's own map of a view."""
    loaded = store.load(view)  # type: ignore[arg-type]
    features = loaded.features.permute(1, 2, 0).float()
    camera = view.camera  # type: ignore[attr-defined]
    shown = torch.ones(features.shape[:2], dtype=torch.bool)
    return ViewMap(features, shown, loaded.cells_x, loaded.cells_y, camera.width, camera.height)


def innermost(mask: Tensor) -> tuple[float, float]:  # [H, W]
    """The middle of the pixel farthest from a mask's outline."""
    depth = cv2.distanceTransform(np.pad(mask.numpy().astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return float(x) + 0.5, float(y) + 0.5


def box_of(mask: Tensor) -> Box:  # [H, W]
    """The smallest box around a mask."""
    y, x = mask.nonzero(as_tuple=True)
    return Box(float(x.min()), float(y.min()), float(x.max()) + 1, float(y.max()) + 1)


def iou(a: Tensor, b: Tensor) -> float:  # [H, W] bool each
    """Intersection over union; 0 of two empty masks."""
    return float((a & b).sum() / (a | b).sum().clamp(min=1))


def ask(bench: Bench, kind: str, camera: Camera, mask: Tensor, size: float) -> Selection:
    """The answer in 3D."""
    if kind == "point":
        return ask_points(bench.trained, bench.field, camera, [innermost(mask)])
    if kind == "box":
        return ask_box(bench.trained, bench.field, camera, box_of(mask))
    return ask_patch(bench.trained, bench.field, camera, Patch(*innermost(mask), size))[0]


def ask_teacher(view: ViewMap, kind: str, mask: Tensor, size: float) -> Tensor:
    """The answer of the teacher's map. [H, W] bool"""
    if kind == "point":
        return view.at_points([innermost(mask)]) > 0.5
    if kind == "box":
        return view.in_box(box_of(mask)) > 0.5
    return resembling(view, Patch(*innermost(mask), size))


def resembling(view: ViewMap, patch: Patch) -> Tensor:
    """Pixels of a map nearer to a patch than the automatic threshold, as for Gaussians. [H, W] bool"""
    rows, columns = view.shown.shape
    half = patch.size / 2
    box = Box(patch.x - half, patch.y - half, patch.x + half, patch.y + half)
    weights = box.scaled(view.cells_x / view.width, view.cells_y / view.height).mask(columns, rows)
    unit = torch.nn.functional.normalize(view.features, dim=-1)
    query = torch.nn.functional.normalize((weights[..., None] * unit).sum(dim=(0, 1)), dim=0)
    distances = distance_of(cosines(view.features.flatten(0, 1), query[None])[:, 0])
    near = (distances < nearest_group(distances.numpy()).threshold).float().reshape(rows, columns)
    size = (view.height, view.width)
    return torch.nn.functional.interpolate(near[None, None], size, mode="bilinear")[0, 0] > 0.5


def measure_prompts(bench: Bench, kind: str, size: float) -> dict[str, float]:
    """Means over objects and views, and the seconds of a query."""
    everywhere: dict[int, list[float]] = {label: [] for label in bench.objects}
    here: dict[int, list[float]] = {label: [] for label in bench.objects}
    taught: dict[int, list[float]] = {label: [] for label in bench.objects}
    seconds = []
    for camera in bench.cameras:
        answers = {}
        for label, mask in bench.prompts(camera).items():
            started = time.perf_counter()
            answers[label] = ask(bench, kind, camera, mask, size).scores
            seconds.append(time.perf_counter() - started)
            if bench.teacher:
                taught[label].append(iou(ask_teacher(bench.teacher[camera.name], kind, mask, size), mask))
        for label, found in bench.ious(answers).items():
            everywhere[label].append(_mean([*found.values()]))
            here[label].append(found[camera.name])
    print(f"\n{kind}: object, all views, view of the prompt, teacher in that view, worst prompt")
    for label, name in bench.objects.items():
        means = [_mean(values[label]) for values in (everywhere, here, taught)]
        print(f"  {name:<10}", *(f"{value:7.3f}" for value in means), f"{min(everywhere[label]):7.3f}")
    result = {
        name: _mean([_mean(values) for values in by_object.values()])
        for name, by_object in (("all views", everywhere), ("same view", here), ("teacher", taught))
    }
    result["seconds"] = float(np.median(seconds))
    print("  " + ", ".join(f"{name} {value:.3f}" for name, value in result.items()))
    return result


def measure_everything(bench: Bench) -> dict[str, float]:
    """How many objects are one instance, judged by the mean over views."""
    started = time.perf_counter()
    shares = find_everything(bench.trained, bench.field)
    seconds = time.perf_counter() - started
    images = {
        camera.name: score_images(bench.trained, camera, shares).cpu() > 0.5 for camera in bench.cameras
    }
    print(f"\neverything: {shares.shape[1]} instances in {seconds:.1f} s; object, its best instance")
    best = []
    for label, name in bench.objects.items():
        masks = {camera.name: bench.labels[camera.name] == label for camera in bench.cameras}
        seen = [camera for camera, mask in masks.items() if mask.any()]
        each = [
            _mean([iou(images[camera][..., k], masks[camera]) for camera in seen])
            for k in range(shares.shape[1])
        ]
        best.append(max(each, default=0.0))
        print(f"  {name:<10} {best[-1]:7.3f}")
    found = sum(value >= FOUND for value in best)
    print(f"  {found} of {len(best)} objects at {FOUND} or more, mean {_mean(best):.3f}")
    return {"found": found, "mean": _mean(best), "instances": shares.shape[1], "seconds": seconds}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures how well prompts find objects with labels.")
    parser.add_argument("model", type=Path)
    parser.add_argument("scene", type=Path)
    parser.add_argument("--teacher", type=Path, default=None, help="folder of the maps that were lifted")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--patch", type=float, default=8, help="side of the patch, pixels")
    parser.add_argument("--json", type=Path, default=None, help="file for the figures")
    given = parser.parse_args()
    bench = Bench.open(given.model, given.scene, given.teacher)
    figures = {
        kind: measure_everything(bench) if kind == "everything" else measure_prompts(bench, kind, given.patch)
        for kind in given.kinds
    }
    if given.json is not None:
        given.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
