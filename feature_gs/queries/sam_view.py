"""SAM's masks of a view of a model that was taught by SAM: from its rendered features, without a photo."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from feature_gs.features.field import FeatureField
from feature_gs.features.rendering import decoded
from feature_gs.queries.sam import SamDecoder, SamPrompt
from feature_gs.queries.sam_frame import padding_of
from feature_gs.queries.views import Box, Point
from feature_gs.scenes import Camera
from feature_gs.training.trained import Trained

_SAM = "sam_vit_"


def is_sam(field: FeatureField) -> bool:
    """Whether features were taught by SAM, so that its decoder reads them."""
    return field.teacher.startswith(_SAM)


@dataclass(frozen=True, eq=False)
class SamView:
    """What SAM's decoder reads of a view.

    Attributes:
        features: At SAM's cells. [256, h, w]
        padding: The feature of the cells beside the photos, where the encoder left it. [256]
        width: The picture's width in pixels.
        height: The picture's height in pixels.
    """

    features: Tensor
    padding: Tensor | None
    width: int
    height: int

    @classmethod
    def rendered(cls, trained: Trained, field: FeatureField, camera: Camera) -> "SamView":
        """A view of a model."""
        cell = SamDecoder.cell(camera.width, camera.height)
        features = decoded(field, trained.render_features(field, camera, cell)).permute(2, 0, 1)
        return cls(features, padding_of(field.meta), camera.width, camera.height)

    def mask(
        self,
        sam: SamDecoder,
        points: Sequence[Point] = (),
        negatives: Sequence[Point] = (),
        box: Box | None = None,
    ) -> Tensor:
        """SAM's mask of a thing.

        A single point leaves open what is meant: of SAM's three masks the one that it thinks best is taken.

        Args:
            sam: The decoder.
            points: What is looked for, pixels.
            negatives: What does not belong to it.
            box: A box around it.

        Returns:
            [H, W] bool
        """
        places, labels, corners = None, None, None
        if points or negatives:
            # SAM counts pixels from 0, so the middle of the first is at (0, 0).
            places = torch.tensor([*points, *negatives], dtype=torch.float64).floor()
            labels = torch.tensor([1] * len(points) + [0] * len(negatives))
        if box is not None:
            edges = torch.tensor([box.left, box.top, box.right, box.bottom], dtype=torch.float64)
            corners = edges.clamp(min=0).minimum(torch.tensor([self.width, self.height] * 2))
        single = box is None and len(points) + len(negatives) == 1
        prompt = SamPrompt(places, labels, corners)
        size = (self.width, self.height)
        found = sam.masks(self.features, *size, prompt, multimask=single, padding=self.padding)
        return found.masks[int(found.scores.argmax())]

    def everything(self, sam: SamDecoder) -> list[Tensor]:
        """All masks that SAM finds, the best first. [H, W] bool each"""
        found = sam.everything(self.features, self.width, self.height, padding=self.padding)
        return [segment.mask for segment in found]
