"""Answers that any view can be asked for: what a selection, words, things or the same pixel are there."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from feature_gs.errors import UserError
from feature_gs.features.field import FeatureField
from feature_gs.queries.in_view import ViewMap, cell_of_view, decoded_map
from feature_gs.queries.sam import SamDecoder
from feature_gs.queries.sam_view import SamView
from feature_gs.queries.selection import Selection
from feature_gs.queries.stopwatch import Stopwatch
from feature_gs.queries.views import Box, Point, check_points, score_images
from feature_gs.queries.words import Words, ask_words, words_in_view
from feature_gs.scenes import Camera
from feature_gs.training.trained import Trained


@dataclass(frozen=True, eq=False)
class ViewAnswer:
    """What one view shows of an answer.

    Attributes:
        labels: 0 where nothing is meant, else from 1. [H, W] int64
        scores: How sure that is, in [0, 1]. [H, W] float32
        masks: Things that may overlap, where there are any. [K, H, W] bool
    """

    labels: Tensor
    scores: Tensor
    masks: Tensor | None = None


class Answer(ABC):
    """The answer of a query.

    Attributes:
        names: Names of the labels from 1; empty: the only label means what was asked for.
        selection: The Gaussians that are meant, where they are known.
        parts: Those of each label, by name.
    """

    names: Sequence[str] = ()
    selection: Selection | None = None
    parts: Mapping[str, Selection] = {}

    @abstractmethod
    def in_view(self, camera: Camera, watch: Stopwatch) -> ViewAnswer:
        """What a view shows of it; stages "rendering" and "decoding"."""


class SelectedGaussians(Answer):
    """A selection: a pixel belongs to it if more than half of what it shows does."""

    def __init__(self, trained: Trained, selection: Selection) -> None:
        self._trained = trained
        self.selection: Selection = selection

    def in_view(self, camera: Camera, watch: Stopwatch) -> ViewAnswer:
        """The scores as the view shows them."""
        with watch.stage("rendering"):
            scores = score_images(self._trained, camera, self.selection.scores[:, None])[..., 0].cpu()
        with watch.stage("decoding"):
            return ViewAnswer((scores > 0.5).long(), scores)


class Things(Answer):
    """All that was found. The label of a pixel is the smallest thing there."""

    def __init__(self, trained: Trained, shares: Tensor, query: Mapping[str, object]) -> None:  # [N, K]
        """Takes the shares of the things in the order of their sizes."""
        self._trained, self._shares = trained, shares
        self.names = [f"{number:03d}" for number in range(1, shares.shape[1] + 1)]
        parts = zip(self.names, shares.unbind(1), strict=True)
        self.parts = {name: Selection.of(share, {**query, "part": name}) for name, share in parts}
        whole = shares.amax(dim=1) if shares.shape[1] else shares.sum(dim=1)
        self.selection = Selection.of(whole, dict(query))

    def in_view(self, camera: Camera, watch: Stopwatch) -> ViewAnswer:
        """The shares as the view shows them."""
        if not self.names:
            empty = torch.zeros(camera.height, camera.width)
            return ViewAnswer(empty.long(), empty, empty[None][:0].bool())
        with watch.stage("rendering"):
            images = score_images(self._trained, camera, self._shares).permute(2, 0, 1).cpu()
        with watch.stage("decoding"):
            masks = images > 0.5
            labels = (masks * torch.arange(1, len(masks) + 1)[:, None, None]).amax(dim=0)
            scores = images.gather(0, (labels - 1).clamp(min=0)[None])[0]
            return ViewAnswer(labels, scores * (labels > 0), masks)


class LikeliestWords(Answer):
    """For every pixel the likeliest word, from the rendered features."""

    def __init__(self, trained: Trained, field: FeatureField, words: Words) -> None:
        """Asks the Gaussians, too, if the decoder decodes single ones."""
        self._trained, self._field, self._words = trained, field, words
        self.names = words.names
        if field.decoder.kind != "conv3x3":
            self.selection, self.parts = ask_words(field, words)

    def in_view(self, camera: Camera, watch: Stopwatch) -> ViewAnswer:
        """Numbers of words, and their probabilities."""
        view = _map_of(self._trained, self._field, camera, watch)
        with watch.stage("decoding"):
            labels, shares = words_in_view(view, self._words)
            return ViewAnswer(labels.cpu(), (shares * (labels > 0)).cpu())


class SamePixels(Answer):
    """A prompt put to every view anew at the same pixels, as Feature 3DGS does; nothing is found in 3D."""

    def __init__(
        self,
        trained: Trained,
        field: FeatureField,
        points: Sequence[Point] = (),
        negatives: Sequence[Point] = (),
        box: Box | None = None,
        sam: SamDecoder | None = None,
    ) -> None:
        """Takes points or a box, and SAM's decoder for features of SAM."""
        self._trained, self._field, self._sam = trained, field, sam
        self._points, self._negatives, self._box = points, negatives, box

    def in_view(self, camera: Camera, watch: Stopwatch) -> ViewAnswer:
        """The answer in the view's own map; nothing where the view is too small for the prompt."""
        try:
            check_points([*self._points, *self._negatives], camera.width, camera.height, "--point")
            if self._box is not None:
                self._box.check(camera.width, camera.height)
        except UserError:
            empty = torch.zeros(camera.height, camera.width)
            return ViewAnswer(empty.long(), empty)
        if self._sam is None:
            view = _map_of(self._trained, self._field, camera, watch)
            with watch.stage("decoding"):
                whole = view.at_points(self._points, self._negatives) if self._box is None else None
                scores = view.in_box(self._box) if self._box is not None else whole
        else:
            with watch.stage("rendering"):
                features = SamView.rendered(self._trained, self._field, camera)
            with watch.stage("decoding"):
                mask = features.mask(self._sam, self._points, self._negatives, self._box)
                scores = mask.float()
        assert scores is not None
        return ViewAnswer((scores > 0.5).long(), scores)


def _map_of(trained: Trained, field: FeatureField, camera: Camera, watch: Stopwatch) -> ViewMap:
    with watch.stage("rendering"):
        rendered = trained.render_features(field, camera, cell_of_view(field, camera))
    with watch.stage("decoding"):
        return decoded_map(field, camera, rendered)
