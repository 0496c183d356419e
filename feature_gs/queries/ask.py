"""Questions that a part of a scene's Gaussians answers: what is at points, in a box, like a patch.

A prompt is given in one view and answered in 3D: what it means is found among the Gaussians, not among the
pixels of that view, so the answer is the same thing in every view and whole behind what hides it.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from feature_gs.errors import UserError
from feature_gs.features.comparison import Patch
from feature_gs.features.field import FeatureField
from feature_gs.queries.graph import gaussian_graph
from feature_gs.queries.growing import Nodes, grow_from_box, grow_from_mask, grow_from_points
from feature_gs.queries.in_view import RING, rendered_map
from feature_gs.queries.instances import find_instances
from feature_gs.queries.merging import MaskMerger
from feature_gs.queries.sam import SamDecoder
from feature_gs.queries.sam_view import SamView
from feature_gs.queries.selection import Selection
from feature_gs.queries.similarity import cosines, distance_of, evened, mean_direction
from feature_gs.queries.thresholds import Split, nearest_group
from feature_gs.queries.views import Box, Point, check_points, point_map, votes
from feature_gs.scenes import Camera
from feature_gs.training.trained import Trained

_SAM_VIEWS = 24


def ask_points(
    trained: Trained,
    field: FeatureField,
    camera: Camera,
    points: Sequence[Point],
    negatives: Sequence[Point] = (),
    *,
    sam: SamDecoder | None = None,
) -> Selection:
    """The thing at some points of a view.

    Without SAM: from the Gaussians that the points show a region grows through neighbours that resemble them,
    until it stands still (`growing`). With SAM its mask of the view votes for Gaussians, and those that the
    view does not show join by look. A conv3x3 decoder cannot decode single Gaussians: then the region grows
    in the view's map, and votes as SAM's mask does.

    Args:
        trained: The model.
        field: Its features.
        camera: The view.
        points: What is looked for, X and Y in pixels of the camera; at least one.
        negatives: What does not belong to it.
        sam: SAM's decoder, for features of SAM.

    Returns:
        The Gaussians of the thing.

    Raises:
        UserError: A point lies outside the picture or where no Gaussian is.
    """
    check_points(points, camera.width, camera.height, "--point")
    check_points(negatives, camera.width, camera.height, "--negative_point")
    if not points:
        raise UserError("a thing to look for needs at least one --point X Y.")
    query = {**_about(field, "point", camera), "points": _listed(points), "negatives": _listed(negatives)}
    if sam is not None:
        mask = SamView.rendered(trained, field, camera).mask(sam, points, negatives)
        return _from_mask(trained, field, camera, mask, query)
    if field.decoder.kind == "conv3x3":
        scores = rendered_map(trained, field, camera).at_points(points, negatives)
        return _from_mask(trained, field, camera, scores > 0.5, query)
    maps = [point_map(*point, camera.width, camera.height) for point in (*points, *negatives)]
    hits = [*_votes_for_seen(trained, field, camera, torch.stack(maps, dim=-1)).unbind(1)]
    for (x, y), weights in zip((*points, *negatives), hits, strict=True):
        if not bool((weights > 0).any()):
            raise UserError(
                f"no Gaussian is at ({x:g}, {y:g}) in {camera.name}: choose a point on something."
            )
    nodes = gaussian_nodes(trained, field)
    scores = grow_from_points(nodes, hits[: len(points)], hits[len(points) :])
    return Selection.of(scores, query)


def ask_box(
    trained: Trained,
    field: FeatureField,
    camera: Camera,
    box: Box,
    *,
    sam: SamDecoder | None = None,
) -> Selection:
    """The thing that a box of a view holds.

    What lies around the box teaches what does not belong to the thing, as in GrabCut (Rother et al. 2004),
    with features for colours and Gaussians for pixels.

    Args:
        trained: The model.
        field: Its features.
        camera: The view.
        box: In pixels of the camera.
        sam: SAM's decoder, for features of SAM.

    Returns:
        The Gaussians of the thing.

    Raises:
        UserError: The box is empty, or outside the picture, or no Gaussian is in it.
    """
    box.check(camera.width, camera.height)
    query = {**_about(field, "box", camera), "box": [box.left, box.top, box.right, box.bottom]}
    if sam is not None:
        mask = SamView.rendered(trained, field, camera).mask(sam, box=box)
        return _from_mask(trained, field, camera, mask, query)
    inside = box.mask(camera.width, camera.height)
    ring = box.widened(RING).mask(camera.width, camera.height) - inside
    maps = torch.stack([inside, ring, 1 - inside - ring], dim=-1)
    parts = _votes_for_seen(trained, field, camera, maps)
    if not bool((parts[:, 0] > 0).any()):
        raise UserError(f"no Gaussian is in the box in {camera.name}: choose a box about something.")
    scores = grow_from_box(gaussian_nodes(trained, field), *parts.unbind(1))
    return Selection.of(scores, query)


def ask_patch(
    trained: Trained,
    field: FeatureField,
    camera: Camera,
    patch: Patch,
    threshold: float | None = None,
) -> tuple[Selection, Tensor, Split]:
    """All that resembles a square patch of a view, wherever it is (N3F, Tschernezki et al. 2022).

    The query is the mean of the unit features of the Gaussians that the patch shows, weighted by how much it
    shows them, of length 1. A Gaussian's distance is that of unit vectors, d² = 2 - 2 cos.

    Args:
        trained: The model.
        field: Its features.
        camera: The view.
        patch: In pixels of the camera.
        threshold: Selected is what is nearer, 0 to 2; None: chosen by the distances (`nearest_group`).

    Returns:
        The selection; the distances of all Gaussians, 2 where no view shows them [N]; threshold and means of
        both groups.

    Raises:
        UserError: The patch lies outside the picture, shows no Gaussian, or the decoder is conv3x3.
    """
    patch.check(camera.width, camera.height)
    if threshold is not None and not 0 < threshold <= 2:
        raise UserError(f"--threshold {threshold:g}: distances of unit vectors lie between 0 and 2.")
    half = patch.size / 2
    box = Box(patch.x - half, patch.y - half, patch.x + half, patch.y + half)
    mask = box.mask(camera.width, camera.height)
    weights = _votes_for_seen(trained, field, camera, mask[..., None])[:, 0]
    if not bool((weights > 0).any()):
        raise UserError(f"no Gaussian is in the patch in {camera.name}: choose a patch on something.")
    direction = mean_direction(field.features, weights, field.decoder)
    distances = distance_of(cosines(field.features, direction[None], field.decoder)[:, 0])
    seen = distances[field.seen].cpu().numpy()
    split = nearest_group(seen) if threshold is None else _split_at(seen, threshold)
    distances[~field.seen] = 2.0
    # One half at the threshold, 1 and 0 at the means of the two groups.
    scores = np.interp(distances.cpu().numpy(), [split.low, split.threshold, split.high], [1.0, 0.5, 0.0])
    query = {**_about(field, "patch", camera), "patch": [patch.x, patch.y, patch.size]}
    query |= {"threshold": split.threshold, "chosen": "automatic" if threshold is None else "by hand"}
    return Selection.of(torch.from_numpy(scores), query), distances, split


def find_everything(
    trained: Trained,
    field: FeatureField,
    *,
    sam: SamDecoder | None = None,
    watch: Callable[[Sequence[Any]], Iterable[Any]] = iter,
) -> Tensor:
    """All things of a scene, without a prompt.

    Without SAM: what looks alike and hangs together (`find_instances`); under a conv3x3 decoder, which cannot
    decode single Gaussians, features are compared as they are carried. With SAM: the masks that it finds in
    up to 24 training views, merged where they show the same Gaussians (`MaskMerger`).

    Args:
        trained: The model.
        field: Its features.
        sam: SAM's decoder, for features of SAM.
        watch: Called with what is gone through, e.g. to show a progress bar.

    Returns:
        How much each Gaussian belongs to each thing, in [0, 1]; things of most Gaussians first. [N, K]
    """
    if sam is None:
        return find_instances(gaussian_nodes(trained, field), watch)
    merger = MaskMerger()
    cameras = trained.cameras["train"]
    for camera in watch(cameras[:: -(-len(cameras) // _SAM_VIEWS)]):
        masks = SamView.rendered(trained, field, camera).everything(sam)
        maps = torch.stack([*masks, torch.ones(camera.height, camera.width)], dim=-1).float()
        shown = votes(trained, camera, maps).cpu()
        merger.add(shown[:, :-1], shown[:, -1])
    return merger.shares()


def gaussian_nodes(trained: Trained, field: FeatureField) -> Nodes:
    """The Gaussians of a model as nodes that regions grow through."""
    graph = gaussian_graph(trained.model, field.seen.cpu().numpy())
    places = trained.model.means.detach().cpu().double().numpy()
    decoder = None if field.decoder.kind == "conv3x3" else field.decoder
    return Nodes(*evened(field.features, field.seen, decoder), graph, places)


def _votes_for_seen(trained: Trained, field: FeatureField, camera: Camera, maps: Tensor) -> Tensor:
    """`votes` for the Gaussians whose features mean something, where these are. [H, W, k] -> [N, k]"""
    return votes(trained, camera, maps).to(field.features.device) * field.seen[:, None]


def _from_mask(
    trained: Trained, field: FeatureField, camera: Camera, mask: Tensor, query: dict[str, Any]
) -> Selection:
    """The Gaussians of the thing that a mask shows. `mask` [H, W] bool"""
    if not bool(mask.any()):
        return Selection.of(torch.zeros(len(trained.model)), query)
    maps = torch.stack([mask, ~mask], dim=-1).float()
    parts = _votes_for_seen(trained, field, camera, maps)
    scores = grow_from_mask(gaussian_nodes(trained, field), *parts.unbind(1))
    return Selection.of(scores, query)


def _split_at(distances: np.ndarray, threshold: float) -> Split:
    near, far = distances[distances < threshold], distances[distances >= threshold]
    low = float(near.mean()) if len(near) else 0.0
    return Split(threshold, low, float(far.mean()) if len(far) else 2.0, 0.0)


def _about(field: FeatureField, kind: str, camera: Camera) -> dict[str, Any]:
    return {"kind": kind, "teacher": field.teacher, "view": camera.name}


def _listed(points: Sequence[Point]) -> list[list[float]]:
    return [[x, y] for x, y in points]
