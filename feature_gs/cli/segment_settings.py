"""What `feature-gs segment` can be asked."""

import hashlib
import math
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import tyro

from feature_gs.errors import UserError

KINDS = ("point", "box", "text", "patch", "everything")
_IN_A_VIEW = ("point", "box", "patch")
_GOES_WITH = {
    "negative_point": ("point",),
    "negative_text": ("text",),
    "template": ("text",),
    "temperature": ("text",),
    "threshold": ("patch",),
    "per_view": ("point", "box"),
    "view": _IN_A_VIEW,
}
_NAME = re.compile(r"\w[\w.-]{0,99}")
_LONGEST_NAME = 60
_UNNAMED = ("negative_text", "template", "temperature", "threshold")  # not said by a folder's own name

Pixel = tuple[float, float]


@dataclass(frozen=True)
class SegmentConfig:
    """Ask a trained model: masks in every view, and the Gaussians that are meant.

    Give exactly one of --point, --box, --text, --patch and --everything.
    """

    model_path: Annotated[Path, tyro.conf.arg(aliases=["-m"])]
    """Folder of the trained model."""
    source_path: Annotated[str, tyro.conf.arg(aliases=["-s"])] = ""
    """Folder of the scene, when it is no longer where it was at training; for the overlays' photos."""
    iteration: int = -1
    """Iteration to ask; -1: the newest."""
    name: str = ""
    """Name of the folder in MODEL/queries; made from the query when empty."""
    view: str = ""
    """The photo that --point, --box or --patch is in, by its name."""
    point: tyro.conf.UseAppendAction[tuple[Pixel, ...]] = ()
    """X Y of what is looked for, in pixels of the photo as the model was trained; may be repeated."""
    negative_point: tyro.conf.UseAppendAction[tuple[Pixel, ...]] = ()
    """X Y of what does not belong to it; may be repeated."""
    box: tuple[float, float, float, float] | None = None
    """X1 Y1 X2 Y2 of a box around what is looked for."""
    text: str | None = None
    """Words between commas, or ade20k for the 150 labels of ADE20K; for teachers with words."""
    negative_text: str | None = None
    """Other words between commas that pixels may be; None: object, things, stuff, texture beside one word."""
    template: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Sentence with {} where a word goes, such as "a photo of a {}."; may be repeated."""
    temperature: float | None = None
    """Divides cosines with words before the softmax; None: as the teacher was trained."""
    patch: tuple[float, float, float] | None = None
    """X Y SIZE of a square patch; asks for all that looks like it."""
    threshold: float | None = None
    """Distance from the patch, 0 to 2, below which something looks like it; None: chosen automatically."""
    everything: bool = False
    """Find all things."""
    per_view: bool = False
    """Ask every view anew at the same pixels, as Feature 3DGS does, instead of finding the thing in 3D."""
    views: Literal["train", "test", "novel", "all"] = "all"
    """The views that get masks; all: train and test."""
    num_views: int = 60
    """novel: number of views on a smooth path through the training views."""
    weights: Path | None = None
    """Weights of the teacher, for SAM's decoder or for words."""
    onnx_path: Path | None = None
    """SAM's decoder as `feature-gs export-sam-decoder` writes it, instead of --weights."""
    timing: int = 0
    """Measure: the median of so many rounds after one to warm up."""
    quiet: bool = False
    """Print nothing but errors."""

    @property
    def kind(self) -> str:
        """Which query it is."""
        return next(kind for kind in KINDS if self._given(kind))

    def check(self) -> None:
        """Raises UserError where the flags do not make one query."""
        given = [kind for kind in KINDS if self._given(kind)]
        if len(given) != 1:
            flags = ", ".join(f"--{kind}" for kind in KINDS)
            got = " and ".join(f"--{kind}" for kind in given) or "none"
            raise UserError(f"a query needs exactly one of {flags}; got {got}.")
        for flag, kinds in _GOES_WITH.items():
            if self._given(flag) and self.kind not in kinds:
                others = " and ".join(f"--{kind}" for kind in kinds)
                raise UserError(f"--{flag} goes with {others}, not with --{self.kind}.")
        if self.kind in _IN_A_VIEW and not self.view:
            raise UserError(f"--{self.kind} is in a photo: name it with --view.")
        if self.num_views < 1 or self.timing < 0:
            got = f"got {self.num_views} and {self.timing}"
            raise UserError(f"--num_views must be at least 1 and --timing at least 0, {got}.")
        if self.name and not _NAME.fullmatch(self.name):
            raise UserError(
                f"--name {self.name!r}: expected at most 100 letters, digits, _, - and dots, not first a dot "
                "or -."
            )

    def folder_name(self) -> str:
        """The name of the query's folder; another one for every other query."""
        if self.name:
            return self.name
        stem = str(PurePosixPath(self.view).with_suffix("")) if self.view else ""
        pixels = [number for pixel in self.point for number in pixel]
        pixels += [*(self.box or ()), *(self.patch or ())]
        without = "not" if self.negative_point else ""
        pushed = [f"{number:g}" for pixel in self.negative_point for number in pixel]
        parts = [self.kind, stem, *(f"{number:g}" for number in pixels), without, *pushed, self.text or ""]
        parts += ["per_view"] if self.per_view else []
        joined = "_".join(part for part in parts if part)
        name = re.sub(r"[^\w.-]+", "_", joined).strip("_.")
        says_all = len(name) <= _LONGEST_NAME and re.sub(r"[ ,_/]+", "_", joined).strip("_") == name
        if says_all and not any(self._given(flag) for flag in _UNNAMED):
            return name
        asked = [getattr(self, flag) for flag in ("view", *KINDS, "negative_point", "per_view", *_UNNAMED)]
        mark = hashlib.sha256(repr(asked).encode()).hexdigest()[:8]
        return f"{name[: _LONGEST_NAME - 9].strip('_.')}_{mark}"

    def command(self) -> str:
        """The command line that asks the same again."""
        return shlex.join(["feature-gs", "segment", *self.arguments()])

    def arguments(self) -> list[str]:
        """The arguments that differ from their defaults; parsed, they give this configuration."""
        return [word for one in fields(self) for word in self._words(one.name, one.default)]

    def _words(self, name: str, default: Any) -> Iterator[str]:
        value = getattr(self, name)
        if value == default:
            return
        flag = f"--{name}"
        if value is True:
            yield flag
        elif name in ("point", "negative_point", "template"):
            for one in value:
                yield from (flag, *map(_text, one if isinstance(one, tuple) else (one,)))
        else:
            yield from (flag, *map(_text, value if isinstance(value, tuple) else (value,)))

    def _given(self, flag: str) -> bool:
        return getattr(self, flag) not in (None, (), False, "")


def words_of(text: str) -> list[str]:
    """The words between commas, without spaces around them and empty ones."""
    return [word.strip() for word in text.split(",") if word.strip()]


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}" if math.isfinite(value) and float(f"{value:g}") == value else repr(value)
    return str(value)
