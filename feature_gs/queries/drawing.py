"""Answers as pictures: masks over a photo, with the prompt, and the histogram of distances."""

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from feature_gs.queries.thresholds import Split
from feature_gs.queries.views import Box, Point
from feature_gs.rendering.colormap import Picture

Labels = NDArray[np.integer]  # [H, W]

_COVER = 0.55  # of the colour over the photo
_GOLDEN = 0.61803398875
_YES, _NO, _INK = (60, 220, 60), (230, 40, 40), (40, 40, 40)
_LINE = 18  # height of a line of the legend, pixels
_BINS = 80


@dataclass(frozen=True)
class Marks:
    """What was asked in a view, to be drawn on it. Pixels."""

    points: Sequence[Point] = ()
    negatives: Sequence[Point] = ()
    box: Box | None = None


def label_colors(count: int) -> NDArray[np.uint8]:
    """Colours of the labels 0 (black) to `count`; neighbours in number differ most. [count + 1, 3] uint8"""
    shades = [(0.0, 0.0, 0.0)]
    for number in range(count):
        value = (1.0, 0.75)[number % 2]
        shades.append(colorsys.hsv_to_rgb((number * _GOLDEN) % 1, (0.9, 0.65, 1.0)[number % 3], value))
    return (np.array(shades) * 255 + 0.5).astype(np.uint8)


def overlay(
    picture: Picture, labels: Labels, colors: NDArray[np.uint8], marks: Marks | None = None
) -> Picture:
    """A picture under the colours of its labels, with their outlines; where the label is 0 as it is.

    Args:
        picture: RGB. [H, W, 3] uint8
        labels: From 0 to K. [H, W]
        colors: Of the labels. [K + 1, 3] uint8
        marks: What was asked here.

    Returns:
        [H, W, 3] uint8
    """
    chosen = (labels > 0)[..., None]
    covered = np.where(chosen, picture * (1 - _COVER) + colors[labels] * _COVER + 0.5, picture)
    result = covered.astype(np.uint8)
    result[_outlines(labels) & chosen[..., 0]] = 255
    if marks is not None:
        _draw(result, marks)
    return result


def with_legend(picture: Picture, colors: NDArray[np.uint8], names: Mapping[int, str]) -> Picture:
    """A picture above the names of its labels in their colours, on white."""
    if not names:
        return picture
    font = ImageFont.load_default(12)
    width = picture.shape[1]
    places: list[tuple[int, int, int, str]] = []
    x, line = 4, 0
    for label, name in names.items():
        length = 16 + int(font.getlength(name)) + 12
        if x + length > width and x > 4:
            x, line = 4, line + 1
        places.append((x, line, label, name))
        x += length
    canvas = Image.new("RGB", (width, picture.shape[0] + (line + 1) * _LINE + 4), (255, 255, 255))
    canvas.paste(Image.fromarray(picture))
    pen = ImageDraw.Draw(canvas)
    for x, line, label, name in places:
        y = picture.shape[0] + 2 + line * _LINE
        pen.rectangle((x, y + 3, x + 11, y + 14), fill=tuple(colors[label].tolist()))
        pen.text((x + 16, y + 1), name, fill=_INK, font=font)
    return np.asarray(canvas)


def histogram_picture(distances: NDArray[np.floating], split: Split) -> Picture:  # [n]
    """How many Gaussians are how far from the query; what is nearer than the threshold in green.

    Args:
        distances: Of unit vectors, 0 to 2. [n]
        split: The threshold and the means of both groups.

    Returns:
        RGB, counts on a logarithmic scale. [360, 640, 3] uint8
    """
    width, height, left, bottom, top = 640, 360, 56, 308, 34
    canvas = Image.new("RGB", (width, height), (255, 255, 255))
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    counts = np.histogram(distances, _BINS, (0.0, 2.0))[0]
    most = np.log10(1 + max(1, counts.max()))
    scale = (width - left - 14) / 2.0

    def at(distance: float) -> int:
        return round(left + distance * scale)

    def up(count: float) -> int:
        return round(bottom - (bottom - top) * float(np.log10(1 + count) / most))

    for index, count in enumerate(counts.tolist()):
        start, end = 2 * index / _BINS, 2 * (index + 1) / _BINS
        color = _YES if (start + end) / 2 < split.threshold else (150, 150, 150)
        if count:
            pen.rectangle((at(start), up(count), at(end) - 1, bottom), fill=color)
    pen.line((at(split.threshold), top - 6, at(split.threshold), bottom), fill=_NO, width=2)
    for mean in (split.low, split.high):
        pen.line((at(mean), bottom, at(mean), bottom + 7), fill=_INK, width=2)
    for tenths in range(0, 21, 5):
        pen.text((at(tenths / 10), bottom + 8), f"{tenths / 10:g}", fill=_INK, font=font, anchor="ma")
    for power in range(int(most) + 1):
        pen.text((left - 6, up(10**power)), f"{10**power:,}", fill=_INK, font=font, anchor="rm")
    near = int((distances < split.threshold).sum())
    title = f"threshold {split.threshold:.3f}: {near:,} of {len(distances):,} Gaussians are nearer"
    pen.text((left, 8), title, fill=_INK, font=font)
    pen.text((width - 14, height - 20), "distance, sqrt(2 - 2 cos)", fill=_INK, font=font, anchor="ra")
    return np.asarray(canvas)


def _outlines(labels: Labels) -> NDArray[np.bool_]:
    """Pixels beside another label."""
    edges = np.zeros(labels.shape, dtype=bool)
    edges[1:] |= labels[1:] != labels[:-1]
    edges[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edges[:-1] |= labels[1:] != labels[:-1]
    edges[:, :-1] |= labels[:, 1:] != labels[:, :-1]
    return edges


def _draw(picture: Picture, marks: Marks) -> None:
    size = max(1, round(picture.shape[1] / 300))
    for some, color in ((marks.points, _YES), (marks.negatives, _NO)):
        for x, y in some:
            cv2.circle(picture, (int(x), int(y)), 4 * size, (255, 255, 255), -1, cv2.LINE_AA)
            cv2.circle(picture, (int(x), int(y)), 3 * size, color, -1, cv2.LINE_AA)
    if marks.box is not None:
        box = marks.box
        corners = [(round(box.left), round(box.top)), (round(box.right), round(box.bottom))]
        cv2.rectangle(picture, corners[0], corners[1], _YES, size)
