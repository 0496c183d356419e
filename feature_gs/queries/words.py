"""Words put to a scene: which of them each pixel and each Gaussian is likeliest to be."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from feature_gs.encoders.text import encode_text, has_text
from feature_gs.errors import UserError
from feature_gs.features.field import FeatureField
from feature_gs.features.rendering import enlarged
from feature_gs.queries.in_view import ViewMap
from feature_gs.queries.selection import Selection
from feature_gs.queries.similarity import cosines

# What anything is, against which one word is held (LERF, Kerr et al. 2023).
CANONICAL = ("object", "things", "stuff", "texture")
_TEMPERATURES = {"lseg": 0.07}  # LSeg was trained at 1/14.3, CLIP at 1/100
_TEMPERATURE = 0.01
_SOLID = 0.5  # alpha from which a pixel shows something


@dataclass(frozen=True, eq=False)
class Words:
    """Words in the space of a teacher.

    Attributes:
        names: What is looked for. K texts
        negatives: What else there may be. M texts
        vectors: Unit vectors of both. [K + M, C]
        temperature: Divides the cosines before the softmax, > 0.
        templates: Sentences with {} that the words were put into; empty: none.
    """

    names: tuple[str, ...]
    negatives: tuple[str, ...]
    vectors: Tensor
    temperature: float
    templates: tuple[str, ...] = ()

    @classmethod
    def encode(
        cls,
        field: FeatureField,
        names: Sequence[str],
        negatives: Sequence[str] | None = None,
        *,
        templates: Sequence[str] = (),
        temperature: float | None = None,
        weights: Path | None = None,
    ) -> "Words":
        """Brings words into the space of the field's teacher.

        Args:
            field: Features that words can be compared with.
            names: What is looked for.
            negatives: What else there may be. None: CANONICAL beside a single word, nothing beside several.
            templates: Sentences with {} where a word goes, such as "a photo of a {}.".
            temperature: Small values make probabilities sharp; None: as the teacher was trained.
            weights: File of the teacher's weights; None takes its own.

        Raises:
            UserError: The teacher has no words, a word is there twice or empty, or weights are missing.
        """
        check_teacher(field)
        if negatives is None:
            negatives = [word for word in CANONICAL if word not in names] if len(names) == 1 else ()
        every = [*names, *negatives]
        if not names or len(set(every)) < len(every) or not all(word.strip() for word in every):
            raise UserError(
                f"--text {', '.join(names)!r} and --negative_text {', '.join(negatives)!r}: expected words "
                "between commas, each once."
            )
        if temperature is not None and not 0 < temperature < float("inf"):
            raise UserError(f"--temperature must be above 0, got {temperature:g}.")
        vectors = encode_text(every, field.teacher, weights=weights, templates=templates or None)
        if vectors.shape[1] != field.decoder.channels:
            raise UserError(
                f"words of {field.teacher} have {vectors.shape[1]} channels, the model's features "
                f"{field.decoder.channels}: they were taught by something else."
            )
        usual = _TEMPERATURES.get(field.teacher.partition("?")[0], _TEMPERATURE)
        return cls(tuple(names), tuple(negatives), vectors, temperature or usual, tuple(templates))

    def probabilities(self, cosine: Tensor) -> Tensor:  # [..., K + M]
        """The softmax of cosines over all words, also the negative ones. [..., K + M]"""
        return (cosine / self.temperature).softmax(dim=-1)

    def about(self) -> dict[str, Any]:
        """What was asked, in types that JSON has."""
        return {
            "text": list(self.names),
            "negative_text": list(self.negatives),
            "templates": list(self.templates),
            "temperature": self.temperature,
        }


def check_teacher(field: FeatureField) -> None:
    """Raises a UserError where words cannot be compared with a field's features."""
    if not has_text(field.teacher):
        raise UserError(
            f"the features were taught by {field.teacher}, which knows no words. Teachers with words: lseg, "
            "maskclip, and classes of your own with encode_words (docs/teachers.md)."
        )


def gaussian_probabilities(field: FeatureField, words: Words) -> Tensor:
    """The probability of each word for each Gaussian; 0 for those that no view shows. [N, K + M]

    Raises:
        UserError: The decoder is conv3x3, which does not decode single Gaussians.
    """
    shares = words.probabilities(cosines(field.features, words.vectors, field.decoder))
    return shares * field.seen[:, None].to(shares)


def ask_words(field: FeatureField, words: Words) -> tuple[Selection, dict[str, Selection]]:
    """The Gaussians that are likelier one of the words than any of the negative ones.

    Args:
        field: The features.
        words: What is looked for.

    Returns:
        The selection of all that is one of the words, whose scores are their summed probabilities; and for
        each word that some Gaussian is likeliest to be the selection of these.

    Raises:
        UserError: The decoder is conv3x3, which does not decode single Gaussians.
    """
    shares = gaussian_probabilities(field, words)
    labels = labels_of(shares, len(words.names)) * field.seen.to(torch.int64)
    scores = shares[:, : len(words.names)].sum(dim=1).clamp(max=1)
    query = {"kind": "text", "teacher": field.teacher, **words.about()}
    parts = {
        name: Selection(shares[:, number - 1].contiguous(), labels == number, {**query, "part": name})
        for number, name in enumerate(words.names, 1)
        if bool((labels == number).any())
    }
    return Selection(scores, labels > 0, query), parts


def ask_text(
    field: FeatureField,
    names: Sequence[str],
    negatives: Sequence[str] | None = None,
    *,
    templates: Sequence[str] = (),
    temperature: float | None = None,
    weights: Path | None = None,
) -> Selection:
    """The Gaussians that some words mean; see `Words.encode` and `ask_words`."""
    words = Words.encode(
        field, names, negatives, templates=templates, temperature=temperature, weights=weights
    )
    return ask_words(field, words)[0]


@torch.no_grad()
def words_in_view(view: ViewMap, words: Words) -> tuple[Tensor, Tensor]:
    """The likeliest word of each pixel of a view.

    Args:
        view: Its rendered features.
        words: What is looked for.

    Returns:
        Numbers of words from 1, 0 where a negative one is likeliest or nothing is there [H, W] int64; and the
        probability of what was chosen [H, W].
    """
    cosine = cosines(view.features.flatten(0, 1), words.vectors).unflatten(0, view.shown.shape)
    shown = torch.cat([cosine, view.shown[..., None].to(cosine)], dim=-1)
    shown = enlarged(shown, view.cells_x, view.cells_y, view.width, view.height)
    shares = words.probabilities(shown[..., :-1])
    labels = labels_of(shares, len(words.names)) * (shown[..., -1] > _SOLID).to(torch.int64)
    return labels, shares.amax(dim=-1)


def labels_of(shares: Tensor, count: int) -> Tensor:  # [..., K + M] -> [...]
    """The number of the likeliest of the first `count` from 1, 0 where another is likelier. int64"""
    best = shares.argmax(dim=-1)
    return torch.where(best < count, best + 1, 0)
