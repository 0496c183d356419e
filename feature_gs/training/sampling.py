"""Which photo each step looks at, and having it ready in time."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from feature_gs.scenes import View


def view_order(views: int, seed: int, epoch: int) -> list[int]:
    """The order of the views in one pass over all: a permutation fixed by seed and epoch alone.

    So a resumed run meets the photos in the order in which the first one would have.
    """
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    order: list[int] = torch.randperm(views, generator=generator).tolist()
    return order


class PhotoQueue:
    """Photos by iteration, each view once per pass in a new order; kept as uint8, prepared one step ahead.

    Args:
        views: The training views, at least one.
        seed: Decides the order.
        data_device: Where the uint8 photos are kept.
    """

    def __init__(self, views: Sequence[View], seed: int, data_device: torch.device) -> None:
        self.views = views
        self.seed = seed
        self.data_device = data_device
        self._photos: dict[int, Tensor] = {}
        self._epoch = -1
        self._order: list[int] = []
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="photos")
        self._ahead: tuple[int, Future[Tensor]] | None = None

    def get(self, iteration: int) -> tuple[View, Tensor]:
        """The view of an iteration, counted from 1, and its photo in [0, 1], [1, H, W, 3] float32."""
        index = self._index(iteration)
        if self._ahead is not None and self._ahead[0] == iteration:
            target = self._ahead[1].result()
        else:
            target = self._prepare(index)
        following = self._index(iteration + 1)
        self._ahead = (iteration + 1, self._worker.submit(self._prepare, following))
        return self.views[index], target

    def close(self) -> None:
        """Ends the thread."""
        self._worker.shutdown(wait=True, cancel_futures=True)

    def _index(self, iteration: int) -> int:
        epoch, place = divmod(iteration - 1, len(self.views))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, view_order(len(self.views), self.seed, epoch)
        return self._order[place]

    def _prepare(self, index: int) -> Tensor:
        photo = self._photos.get(index)
        if photo is None:
            photo = self._photos[index] = self.views[index].load().to(self.data_device)
        if photo.device.type != "cpu":
            return photo[None].float() / 255
        # NumPy rather than torch: torch would start a second team of threads beside the main thread's.
        return torch.from_numpy(np.divide(photo.numpy(), np.float32(255), dtype=np.float32))[None]
