"""Which photo each step looks at, and having it ready in time."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from feature_gs.features.maps import TeacherMap
from feature_gs.scenes import View

Maps = Callable[[View], TeacherMap | None]


def view_order(views: int, seed: int, epoch: int) -> list[int]:
    """The order of the views in one pass over all: a permutation fixed by seed and epoch alone.

    So a resumed run meets the photos in the order in which the first one would have.
    """
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    order: list[int] = torch.randperm(views, generator=generator).tolist()
    return order


class PhotoQueue:
    """Photos by iteration, each view once per pass in a new order; kept as uint8, prepared one step ahead.

    For a GPU, a thread of its own brings photos and teacher maps into pinned memory one step ahead; they are
    uploaded without waiting.

    Args:
        views: The training views, at least one.
        seed: Decides the order.
        data_device: Where the uint8 photos are kept.
        device: Where the training is.
        maps: Reads the teacher's map of a view, or gives None where no map is needed. Only asked for a GPU;
            the CPU reads maps where they lie, in memory-mapped files.
    """

    def __init__(
        self,
        views: Sequence[View],
        seed: int,
        data_device: torch.device,
        device: torch.device,
        maps: Maps = lambda view: None,
    ) -> None:
        self.views = views
        self.seed = seed
        self.data_device = data_device
        self.device = device
        self._maps = maps
        self._photos: dict[int, Tensor] = {}
        self._epoch = -1
        self._order: list[int] = []
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="photos")
        self._ahead: tuple[int, Future[tuple[Tensor, TeacherMap | None]]] | None = None

    def get(self, iteration: int) -> tuple[View, Tensor, TeacherMap | None]:
        """What the step of an iteration, counted from 1, looks at.

        Returns:
            The view; its photo in [0, 1], [1, H, W, 3] float32 on the training's device; and for a GPU the
            teacher's map, on that device in the precision of its file.
        """
        index = self._index(iteration)
        if self._ahead is not None and self._ahead[0] == iteration:
            photo, teacher_map = self._ahead[1].result()
        else:
            photo, teacher_map = self._prepare(index)
        following = self._index(iteration + 1)
        self._ahead = (iteration + 1, self._worker.submit(self._prepare, following))
        if self.device.type != "cpu":
            photo = photo.to(self.device, non_blocking=True)[None].float() / 255
            if teacher_map is not None:
                uploaded = teacher_map.features.to(self.device, non_blocking=True)
                teacher_map = TeacherMap(uploaded, teacher_map.cells_x, teacher_map.cells_y)
        return self.views[index], photo, teacher_map

    def close(self) -> None:
        """Ends the thread."""
        self._worker.shutdown(wait=True, cancel_futures=True)

    def _index(self, iteration: int) -> int:
        epoch, place = divmod(iteration - 1, len(self.views))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, view_order(len(self.views), self.seed, epoch)
        return self._order[place]

    def _prepare(self, index: int) -> tuple[Tensor, TeacherMap | None]:
        """For the CPU the photo in [0, 1] [1, H, W, 3] float32; for a GPU as uint8 [H, W, 3], and the map."""
        photo = self._photos.get(index)
        if photo is None:
            photo = self._photos[index] = self.views[index].load().to(self.data_device)
        if self.device.type == "cpu":
            # NumPy rather than torch: torch would start a second team of threads beside the main thread's.
            target = torch.from_numpy(np.divide(photo.numpy(), np.float32(255), dtype=np.float32))[None]
            return target, None
        teacher_map = self._maps(self.views[index])
        if teacher_map is not None:
            pinned = teacher_map.features.pin_memory()
            teacher_map = TeacherMap(pinned, teacher_map.cells_x, teacher_map.cells_y)
        return photo.pin_memory() if photo.device.type == "cpu" else photo, teacher_map
