"""What editing is worth on scenes of which everything is known.

    python tests/edit_accuracy.py extract MODEL SCENE
    python tests/edit_accuracy.py remove MODEL SCENE --without pot globe

extract: every object is asked for by one point, in the test view that shows most of it, extracted (without
what the training views hide, --drop_hidden), and its alpha compared with its label mask in the test views. An
extracted object is whole where the mask shows only what others leave visible; so pixels at which something
stands in front of it (by the true depth) do not count, but those of stuff (floor, wall, table) always do, as
stuff stands behind. In brackets: with these pixels.

remove (the procedural scene): every thing is asked for by one point, removed, and the rest compared with true
pictures without the thing, over the test views that show it: all pixels whose background a training view
shows, and of these only what the thing covered ("behind"). Removing does not take a shadow away, so there are
two truths: one in which the thing's shadow has stayed, and one that is lit anew.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import binary_dilation, distance_transform_edt

from feature_gs.editing.scene import GaussianScene, load
from feature_gs.evaluation.label_images import find_label, label_names, read_label_image
from feature_gs.queries.selection import Selection
from feature_gs.scenes import Camera, procedural
from feature_gs.scenes.raytracer import BakedSolid, bake, render

STUFF = ("void", "floor", "wall", "table", "rug")
_IN_FRONT = 0.02  # metres by which something must be nearer to hide an object
_SAME = 0.02  # of the depth: a point is the one that a view shows
_FEWEST = 50  # pixels of an object that a view must show

Rendered = tuple[np.ndarray, np.ndarray, np.ndarray]  # picture, depth, index


@dataclass(frozen=True)
class Truth:
    """Labels and depth of a scene, by view."""

    folder: Path

    def labels(self, camera: Camera) -> np.ndarray:
        return read_label_image((self.folder / "labels" / camera.name).with_suffix(".png"))

    def depth(self, camera: Camera) -> np.ndarray:
        with Image.open((self.folder / "depth" / camera.name).with_suffix(".png")) as image:
            return np.asarray(image).astype(np.float64) * procedural.DEPTH_SCALE

    def names(self) -> dict[int, str]:
        return label_names(self.folder / "labels")


def ask_by_one_point(
    scene: GaussianScene, truth: Truth, label: int, drop_hidden: float = 0.0
) -> tuple[Selection, str]:
    """The thing at the point that lies deepest inside it, in the test view that shows most of it."""
    masks = {camera.name: truth.labels(camera) == label for camera in scene.trained.cameras["test"]}
    view = max(masks, key=lambda name: int(masks[name].sum()))
    depth = distance_transform_edt(np.pad(masks[view], 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    point = float(x) + 0.5, float(y) + 0.5
    return scene.select(point=point, view=view, drop_hidden=drop_hidden), view


def extraction(scene: GaussianScene, truth: Truth, label: int, selection: Selection) -> tuple[float, float]:
    """Mean IoU over the test views of the extracted alpha with the mask: as it is, and where not hidden."""
    only = scene.only(selection)
    stuff = [find_label(name, truth.names()) for name in STUFF if name in truth.names().values()]
    plain, fair = [], []
    for camera in scene.trained.cameras["test"]:
        labels = truth.labels(camera)
        mask = labels == label
        if mask.sum() < _FEWEST:
            continue
        output = only.render(camera)
        alpha, depth = output.alpha[0].numpy() > 0.5, output.depth[0].numpy()
        hidden = ~mask & ~np.isin(labels, stuff) & (truth.depth(camera) < depth - _IN_FRONT)
        plain.append((alpha & mask).sum() / (alpha | mask).sum())
        shown = alpha & ~hidden
        fair.append((shown & mask).sum() / (shown | mask).sum())
    return float(np.mean(plain)), float(np.mean(fair))


def seen_behind(
    scene: GaussianScene, masks: Mapping[str, np.ndarray], bare: Mapping[str, Rendered], camera: Camera
) -> np.ndarray:
    """Where some training view, past the thing, shows what a view shows without the thing. [H, W] bool

    Args:
        scene: The scene with its cameras.
        masks: The thing's pixels in each view. [H, W] bool
        bare: Each view without the thing.
        camera: The view.
    """
    depth = bare[camera.name][1].astype(np.float64)
    K, pose = camera.K.double().numpy(), camera.cam_from_world.double().numpy()
    x, y = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    local = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones_like(x)], axis=-1)
    world = (local * depth[..., None] - pose[:3, 3]) @ pose[:3, :3]
    seen = np.zeros(depth.shape, dtype=bool)
    for other in scene.trained.cameras["train"]:
        K, pose = other.K.double().numpy(), other.cam_from_world.double().numpy()
        there = world @ pose[:3, :3].T + pose[:3, 3]
        z = np.maximum(there[..., 2], 1e-6)
        column, row = (there[..., i] / z * K[i, i] + K[i, 2] for i in (0, 1))
        inside = (there[..., 2] > 1e-6) & (column >= 0) & (row >= 0)
        inside &= (column < other.width) & (row < other.height)
        row, column = (np.where(inside, place, 0).astype(int) for place in (row, column))
        covered = binary_dilation(masks[other.name])[row, column]
        shown = bare[other.name][1].astype(np.float64)[row, column]
        seen |= inside & ~covered & (np.abs(shown - z) < _SAME * z)
    return seen


def removal(
    scene: GaussianScene, truth: Truth, label: int, lights: Mapping[str, list[BakedSolid]]
) -> dict[str, tuple[float, float]]:
    """PSNR over all pixels whose background was seen, and over those that the thing covered, by light."""
    rest = scene.without(ask_by_one_point(scene, truth, label)[0])
    cameras = [camera for cameras in scene.trained.cameras.values() for camera in cameras]
    masks = {camera.name: truth.labels(camera) == label for camera in cameras}
    first = next(iter(lights.values()))
    bare = {camera.name: render(camera, first, procedural.LAMPS) for camera in cameras}
    errors: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = {light: ([], []) for light in lights}
    for camera in scene.trained.cameras["test"]:
        mask = masks[camera.name]
        if mask.sum() < _FEWEST:
            continue
        seen = seen_behind(scene, masks, bare, camera)
        picture = rest.render(camera).color[0].clamp(0, 1).numpy()
        for light, (everywhere, behind) in errors.items():
            true = render(camera, lights[light], procedural.LAMPS)[0].astype(np.float64) / 255
            error = np.square(picture - true).mean(axis=2)
            everywhere.append(error[seen | ~mask])
            behind.append(error[seen & mask])
    return {light: (_decibels(parts[0]), _decibels(parts[1])) for light, parts in errors.items()}


def _decibels(errors: list[np.ndarray]) -> float:
    return float(-10 * np.log10(np.concatenate(errors).mean()))


def measure_extraction(scene: GaussianScene, truth: Truth, drop_hidden: float) -> None:
    rows = []
    for label, name in truth.names().items():
        if name in STUFF:
            continue
        selection, view = ask_by_one_point(scene, truth, label, drop_hidden)
        rows.append(extraction(scene, truth, label, selection))
        chosen, (plain, fair) = int(selection.selected.sum()), rows[-1]
        print(f"{name:<10} asked in {view}  {chosen:>6,} Gaussians", end="")
        print(f"  IoU {fair:.3f}  ({plain:.3f})", flush=True)
    plain, fair = np.mean(rows, axis=0)
    print(f"mean IoU {fair:.3f}  ({plain:.3f} with what others hide)")


def measure_removal(scene: GaussianScene, truth: Truth, things: list[str]) -> None:
    solids = procedural._solids()
    everything = bake(solids, procedural.LAMPS)
    for name in things:
        anew = bake([solid for solid in solids if solid.label != name], procedural.LAMPS)
        stayed = [thing for thing in everything if thing.solid.label != name]
        lights = {"its shadow stays": stayed, "lit anew": anew}
        found = removal(scene, truth, find_label(name, truth.names()), lights)
        figures = "".join(f"  {light}: {a:.2f} dB, behind {b:.2f} dB" for light, (a, b) in found.items())
        print(f"{name:<10}{figures}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("extract", "remove"))
    parser.add_argument("model", type=Path)
    parser.add_argument("scene", type=Path)
    parser.add_argument("--without", nargs="+", default=["cube", "pot", "globe", "candle", "crate"])
    parser.add_argument("--drop_hidden", type=float, default=0.3)
    given = parser.parse_args()
    torch.set_grad_enabled(False)
    scene, truth = load(given.model), Truth(given.scene)
    if given.what == "extract":
        measure_extraction(scene, truth, given.drop_hidden)
    else:
        measure_removal(scene, truth, given.without)


if __name__ == "__main__":
    main()
