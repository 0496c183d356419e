"""Masks from SAM features: a photo's own or rendered ones, asked with points, boxes and masks, or for all.

Only SAM's light part is used, its prompt encoder and mask decoder (Kirillov et al. 2023); the image encoder
is neither built nor kept in memory.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from feature_gs.encoders.sam import sam_grid
from feature_gs.encoders.sam_weights import MODELS, SIDE
from feature_gs.errors import UserError
from feature_gs.queries.sam_everything import Candidates, point_grid
from feature_gs.queries.sam_frame import MASK_SIDE, enlarged, inside, padded
from feature_gs.queries.sam_network import SamNetwork
from feature_gs.queries.sam_onnx import OnnxNetwork

_AT_ONCE = 1 << 26  # pixels of masks that are enlarged at a time


@dataclass(frozen=True, eq=False)
class SamPrompt:
    """What SAM is asked, in pixels of the picture as `SamPredictor` counts them: (0, 0) is the first pixel.

    Attributes:
        points: x and y. [n, 2]
        labels: 1: belongs to what is looked for, 0: does not. [n]
        box: Left, top, right and bottom of a box around it. [4]
        mask: `SamMasks.logits` of an earlier answer to be refined. [256, 256]
    """

    points: Tensor | None = None
    labels: Tensor | None = None
    box: Tensor | None = None
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        if self.points is None and self.box is None and self.mask is None:
            raise ValueError("a prompt needs points, a box or a mask")
        if (self.points is None) != (self.labels is None):
            raise ValueError("points and labels belong together")
        count = 0 if self.points is None else len(self.points)
        shapes = {
            "points": (self.points, (count, 2)),
            "labels": (self.labels, (count,)),
            "box": (self.box, (4,)),
            "mask": (self.mask, (MASK_SIDE, MASK_SIDE)),
        }
        for name, (value, shape) in shapes.items():
            if value is not None and tuple(value.shape) != shape:
                raise ValueError(f"{name} must be {list(shape)}, got {list(value.shape)}")
        if self.labels is not None and not bool(((self.labels == 0) | (self.labels == 1)).all()):
            raise ValueError(f"labels must be 0 or 1, got {self.labels.tolist()}")

    def check(self, width: int, height: int) -> None:
        """Raises UserError where a point or the box lies outside a picture of that size."""
        size = torch.tensor([width, height], dtype=torch.float64)
        corners = [] if self.box is None else [self.box.reshape(2, 2)]
        for places in [*([] if self.points is None else [self.points]), *corners]:
            outside = ~((places >= 0) & (places <= size)).all(1)  # also what is NaN
            if bool(outside.any()):
                x, y = places[outside][0].tolist()
                raise UserError(
                    f"({x:g}, {y:g}) lies outside the picture of {width} x {height} pixels: give points and "
                    "boxes in its pixels, x before y."
                )
        if self.box is not None and not (self.box[0] < self.box[2] and self.box[1] < self.box[3]):
            raise UserError(
                f"the box {self.box.tolist()} is empty: expected left, top, right, bottom with left < right "
                "and top < bottom."
            )


@dataclass(frozen=True, eq=False)
class SamMasks:
    """What SAM answers: one mask, or three of different extent.

    Attributes:
        masks: At the picture's size. [k, H, W] bool
        scores: How good SAM thinks each mask is: an estimate of its intersection over union. [k]
        logits: The masks as SAM gives them, over its padded input, above 0 where they are. [k, 256, 256]
    """

    masks: Tensor
    scores: Tensor
    logits: Tensor


@dataclass(frozen=True, eq=False)
class SamSegment:
    """One mask of those that SAM finds when it is asked everywhere.

    Attributes:
        mask: At the picture's size. [H, W] bool
        score: How good SAM thinks it is.
        stability: Intersection over union of the mask at thresholds of +1 and -1.
        area: Its pixels.
        box: Left, top, right and bottom edge around it, pixels.
        point: x and y of the point that asked for it.
    """

    mask: Tensor
    score: float
    stability: float
    area: int
    box: tuple[int, int, int, int]
    point: tuple[float, float]


class SamDecoder:
    """SAM's mask decoder over features that come from anywhere.

    Attributes:
        network: Prompts in, masks of low resolution out.
    """

    def __init__(self, network: SamNetwork | OnnxNetwork) -> None:
        self.network = network

    @classmethod
    def load(
        cls,
        spec: str = "sam_vit_b",
        weights: Path | None = None,
        onnx_path: Path | None = None,
        device: torch.device | str = "cpu",
    ) -> "SamDecoder":
        """The decoder of a checkpoint, or one exported to ONNX.

        Args:
            spec: sam_vit_b, sam_vit_l or sam_vit_h: whose features are to be decoded.
            weights: The checkpoint; None takes the one in torch's hub folder.
            onnx_path: A file of `feature-gs export-sam-decoder`; it holds its weights, so `spec` and
                `weights` do not matter, and onnxruntime computes.
            device: Where PyTorch computes.

        Raises:
            UserError: There is no such SAM, or the file is missing or wrong.
        """
        if onnx_path is not None:
            return cls(OnnxNetwork(onnx_path))
        if spec not in MODELS:
            raise UserError(f"SAM decodes the features of {', '.join(MODELS)}; got {spec!r}.")
        return cls(SamNetwork(spec, weights, device))

    @staticmethod
    def cell(width: int, height: int) -> tuple[float, float]:
        """Width and height in pixels of SAM's cells on a picture, as `render_features` takes them."""
        grid = sam_grid(width, height)
        return 1 / grid.cells_per_pixel_x, 1 / grid.cells_per_pixel_y

    @torch.no_grad()
    def masks(
        self,
        features: Tensor,  # [256, h, w]
        width: int,
        height: int,
        prompt: SamPrompt,
        *,
        multimask: bool = True,
        padding: Tensor | None = None,  # [256]
    ) -> SamMasks:
        """The masks of one thing in a picture.

        Args:
            features: The features of the cells that show the picture, as `sam_grid(width, height)` counts
                them (one row or column more or less is mended), or SAM's whole embedding [256, 64, 64], which
                is taken as it is: then the answer is `SamPredictor`'s, bit for bit.
            width: Width of the picture in pixels.
            height: Its height.
            prompt: What is asked.
            multimask: Three masks of different extent, for questions that leave it open; else one.
            padding: The feature of the cells beside the picture; see `sam_frame.padded`.

        Returns:
            The masks, on the CPU.

        Raises:
            UserError: The features do not fit the picture, or the prompt lies outside.
        """
        prompt.check(width, height)
        embedding = padded(features, width, height, padding)
        points = None if prompt.points is None else inside(prompt.points, width, height).float()[None]
        labels = None if prompt.labels is None else prompt.labels.int()[None]
        box = None if prompt.box is None else inside(prompt.box.reshape(2, 2), width, height).float()
        mask = None if prompt.mask is None else prompt.mask.float()[None, None]
        logits, scores = self.network(
            embedding[None], points, labels, None if box is None else box.reshape(1, 4), mask, multimask
        )
        return SamMasks(enlarged(logits, width, height)[0].cpu() > 0, scores[0].cpu(), logits[0].cpu())

    @torch.no_grad()
    def everything(
        self,
        features: Tensor,  # [256, h, w]
        width: int,
        height: int,
        *,
        points_per_side: int = 32,
        score: float = 0.88,
        stability: float = 0.95,
        overlap: float = 0.7,
        padding: Tensor | None = None,  # [256]
    ) -> list[SamSegment]:
        """All that SAM finds when it is asked at the points of a grid, as its own automatic mask generator.

        Args:
            features: As for `masks`.
            width: Width of the picture in pixels.
            height: Its height.
            points_per_side: Points across and down, evenly spread over the picture.
            score: Masks that SAM thinks less good are left out.
            stability: Masks that change more between the thresholds +1 and -1 are left out.
            overlap: Of two masks whose boxes overlap more (intersection over union) the better one stays.
            padding: As for `masks`.

        Returns:
            The masks, the best score first.

        Raises:
            UserError: The features do not fit the picture.
        """
        embedding = padded(features, width, height, padding)[None]
        points = point_grid(points_per_side) * torch.tensor([width, height], dtype=torch.float64)
        found = Candidates(width, height)
        step = max(1, _AT_ONCE // (SIDE * SIDE))
        for asked in points.split(self.network.prompts):
            places = inside(asked, width, height)[:, None]
            labels = torch.ones(places.shape[:2], dtype=torch.int)
            logits, scores = self.network(embedding, places, labels, None, None, True)
            keep = (scores > score).nonzero().cpu()  # [m, 2]: point, mask
            for some in keep.split(step):
                chosen = some[:, 0].to(logits.device), some[:, 1].to(logits.device)
                large = enlarged(logits[chosen][:, None], width, height)[:, 0]
                found.add(large.cpu(), scores[chosen].cpu(), asked[some[:, 0]], stability)
        return [SamSegment(*fields) for fields in found.best(overlap)]
