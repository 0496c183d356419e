"""Networks of timm that are no plain ViTs: convolutional or hierarchical ones, or of one input size only."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from feature_gs.encoders.base import Grid
from feature_gs.encoders.network import Architecture, NetworkEncoder
from feature_gs.encoders.options import Option
from feature_gs.encoders.picture import network_input
from feature_gs.encoders.vit import block_index
from feature_gs.errors import UserError

_CELLS_BY_DEFAULT = 32  # along the long side


class Pyramid(NetworkEncoder):
    """Features of one level of a network. One of fixed input size sees the photo squeezed to that size."""

    known_options: ClassVar[Mapping[str, Option]] = {
        "layer": Option(block_index, None, "last, or index of the level from 0"),
        **NetworkEncoder.known_options,
    }

    def _prepare(self, architecture: Architecture) -> None:
        model, settings = self.model, self.settings
        if not hasattr(model, "forward_intermediates"):
            raise UserError(
                f"{self.name} has no forward_intermediates in timm, so its features are out of reach."
            )
        levels: list[dict[str, Any]] = list(getattr(model.feature_info, "info", model.feature_info))
        if settings["layer"] is None:
            settings["layer"] = len(levels) - 1
        if settings["layer"] >= len(levels):
            raise UserError(
                f"option layer of {self.name} must be last or 0 to {len(levels) - 1}, "
                f"got {settings['layer']}."
            )
        level = levels[settings["layer"]]
        self.channels = int(level.get("num_chs_norm", level["num_chs"]))
        self.patch = self.stride = int(level["reduction"])
        config = architecture.config
        self._fixed: tuple[int, int] | None = None
        if config.fixed_input_size and not getattr(model, "dynamic_img_size", False):
            self._fixed = config.input_size[1:]
            if settings["size"] or settings["scales"] != (1.0,):
                raise UserError(f"{self.name} takes no size or scales: its input is always {self._fixed}.")
            settings["size"] = max(config.input_size[1:])
            self.sizing = f"squeezed to {config.input_size[2]} x {config.input_size[1]}"
        else:
            settings["size"] = settings["size"] or _CELLS_BY_DEFAULT * self.stride
            self.sizing = f"long side about {settings['size']} pixels, both sides multiples of {self.stride}"

    def _cells(self, width: int, height: int, scale: float) -> tuple[int, int]:
        if self._fixed is None:
            return super()._cells(width, height, scale)
        return math.ceil(self._fixed[0] / self.stride), math.ceil(self._fixed[1] / self.stride)

    def grid(self, width: int, height: int) -> Grid:
        """Cells that together are the photo; of a fixed input the last may reach over the edge."""
        if self._fixed is None:
            return super().grid(width, height)
        rows, columns = self._cells(width, height, 1.0)
        down, across = self._fixed
        return Grid(rows, columns, across / self.stride / width, down / self.stride / height)

    def _input(self, image: Tensor, rows: int, columns: int) -> Tensor:
        if self._fixed is None:
            return super()._input(image, rows, columns)
        return network_input(image, self._fixed[1], self._fixed[0])

    def _forward(self, pixels: Tensor, rows: int, columns: int) -> Tensor:
        maps = self.model.forward_intermediates(
            pixels,
            indices=[self.settings["layer"]],
            norm=True,
            stop_early=True,
            output_fmt="NCHW",
            intermediates_only=True,
        )
        return maps[0][0]
