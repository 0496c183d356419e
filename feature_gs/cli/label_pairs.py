"""Pairs of label pictures to be compared: of two folders, or of a model and its teacher."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from feature_gs.cli.teacher_views import Views, distilled, field_of, teacher_of, views_of
from feature_gs.encoders.text import ADE20K_LABELS
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
from feature_gs.queries.similarity import cosines
from feature_gs.queries.words import Words
from feature_gs.training.trained import load_trained

_ADE20K = "ade20k"
_MERGED = ("television:door", "rug:floor", "pillow:cushion")  # by Feature 3DGS, of the words of ADE20K
_WIDEST = 480  # photos that are wider are compared at the size below
_THEIR_SIZE = 360, 480  # rows and columns


class LabelPairs(Protocol):
    """Pictures of ids, two by two.

    Attributes:
        names: What ids are called, as far as they are.
        ignore: True ids that do not count.
    """

    names: dict[int, str]
    ignore: list[int]

    def __len__(self) -> int:
        """The number of pairs."""

    def pictures(self) -> Iterator[tuple[Ids, Ids]]:
        """Predicted and true ids of each pair, of one size. [H, W] each"""


class TwoFolders:
    """Label pictures of the same names in two folders."""

    def __init__(self, pred: Path, labels: Path, ignore: Sequence[str], merge: Sequence[str]) -> None:
        """Finds what belongs together.

        Args:
            pred: The folder of the predictions.
            labels: The folder of the true labels.
            ignore: True labels that do not count, by id or by name.
            merge: Pairs "A:B": A counts as B on both sides.

        Raises:
            UserError: Files are missing, or a label has no such name.
        """
        self._matched = matched(pred, labels)
        theirs, self.names = label_names(pred), label_names(labels)
        self._predicted: dict[int, int] = {}
        if self.names:
            # Ids of the predictions become those of the labels; a name that these lack gets a new id.
            self._predicted = by_name(theirs, self.names)
            fresh = max(*self.names, *theirs, 0) + 1
            for key in theirs.keys() - self._predicted.keys():
                self._predicted[key] = fresh
                self.names[fresh] = theirs[key]
                fresh += 1
        else:
            self.names = theirs
        self.ignore = [find_label(text, self.names) for text in ignore]
        self._merged = merged_ids(merge, self.names)

    def __len__(self) -> int:
        return len(self._matched)

    def pictures(self) -> Iterator[tuple[Ids, Ids]]:
        """See LabelPairs."""
        for name, *paths in self._matched:
            predicted, true = (read_label_image(path) for path in paths)
            if predicted.shape != true.shape:
                sizes = " and ".join(f"{ids.shape[1]} x {ids.shape[0]}" for ids in (predicted, true))
                raise UserError(f"{name}.png: prediction and labels must be of one size, they are {sizes}.")
            predicted = replaced(predicted, self._predicted)
            yield replaced(predicted, self._merged), replaced(true, self._merged)


class StudentAndTeacher:
    """The likeliest words by a model's rendered features and by its teacher's own maps.

    As in Feature 3DGS both maps are looked at where the teacher has its cells, or, for photos wider than 480
    pixels, enlarged to 480 x 360 first (bilinear, corner to corner).

    Attributes:
        teacher: Who taught the model.
    """

    def __init__(
        self,
        model_path: Path,
        text: str,
        *,
        views: Views,
        source_path: str,
        weights: Path | None,
        ignore: Sequence[str],
        merge: Sequence[str],
        quiet: bool,
    ) -> None:
        """Reads the model and brings the words into its teacher's space.

        Args:
            model_path: The model's folder.
            text: Words with commas between them, or "ade20k".
            views: The views to compare.
            source_path: Where the scene's folder is now; empty: where it was at training.
            weights: File of the teacher's weights; None: those it finds itself.
            ignore: Words of the teacher that do not count, or their numbers from 1.
            merge: Pairs "A:B": A counts as B on both sides.
            quiet: Show no progress.

        Raises:
            UserError: The model, its teacher's maps or the words are at fault.
        """
        self._trained = load_trained(model_path)
        self._field = field_of(self._trained)
        self.teacher = self._field.teacher
        ade20k = text.strip().casefold() == _ADE20K
        words = ADE20K_LABELS() if ade20k else [word.strip() for word in text.split(",") if word.strip()]
        self._vectors = Words.encode(self._field, words, (), weights=weights).vectors
        self.names = dict(enumerate(words, start=1))
        self.ignore = [find_label(name, self.names) for name in ignore]
        self._merged = merged_ids([*merge, *(_MERGED if ade20k else ())], self.names)
        self._views = views_of(self._trained, views, source_path)
        self._store = teacher_of(self._trained, self._field, source_path, self._views)
        self._quiet = quiet

    def __len__(self) -> int:
        return len(self._views)

    def pictures(self) -> Iterator[tuple[Ids, Ids]]:
        """See LabelPairs; the teacher's are the true ones."""
        for view in tqdm(self._views, "views", unit="view", ncols=80, disable=self._quiet):
            teacher_map = self._store.load(view)
            student = distilled(self._trained, self._field, view, teacher_map)
            teacher = teacher_map.features.float().permute(1, 2, 0)
            size = _THEIR_SIZE if view.camera.width > _WIDEST else None
            found, true = (likeliest(maps, self._vectors, size) for maps in (student, teacher))
            yield replaced(found, self._merged), replaced(true, self._merged)


@torch.no_grad()
def likeliest(maps: Tensor, vectors: Tensor, size: tuple[int, int] | None) -> Ids:  # [h, w, C], [n, C]
    """The number, from 1, of the word with the largest cosine.

    Args:
        maps: Features. [h, w, C]
        vectors: Unit vectors of the words. [n, C]
        size: Rows and columns to enlarge the features to first; None: as they are.

    Returns:
        [H, W]
    """
    if size is not None:
        channels_first = maps.permute(2, 0, 1)[None]
        larger = F.interpolate(channels_first, size, mode="bilinear", align_corners=True)
        maps = larger[0].permute(1, 2, 0)
    best = cosines(maps.flatten(0, 1), vectors).argmax(dim=1) + 1
    ids: Ids = best.reshape(maps.shape[:2]).cpu().numpy()
    return ids


def merged_ids(pairs: Sequence[str], names: dict[int, str]) -> dict[int, int]:
    """What "rug:floor" and "29:4" mean.

    Raises:
        UserError: A pair is none, or there is no label of a name.
    """
    merged = {}
    for pair in pairs:
        one, _, other = pair.partition(":")
        if not one or not other:
            raise UserError(f"--merge takes pairs as rug:floor or 29:4, got {pair!r}.")
        merged[find_label(one, names)] = find_label(other, names)
    return merged
