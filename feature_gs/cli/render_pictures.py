"""The pictures of `feature-gs render`: colour, photo, depth and alpha of some views."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from feature_gs.files import atomic_write
from feature_gs.rasterizer import RenderOutput
from feature_gs.rendering.colormap import DepthRange, Picture, depth_colors
from feature_gs.rendering.pictures import depth_scale_for, depth_to_uint16, save_picture, to_uint8
from feature_gs.scenes import Camera, View
from feature_gs.training.trained import Trained

_PROBES = 12  # views that decide the range of depths of a run
_FAR_MARGIN = 3.0  # 16-bit depth reaches this many times as far as the colours


class PictureWriter:
    """Renders views and writes their pictures, with one scale of depth for the whole run."""

    def __init__(self, trained: Trained, photos: dict[str, View]) -> None:
        self._trained = trained
        self._photos = photos
        cameras = trained.cameras["train"]
        probes = [trained.render(camera) for camera in cameras[:: -(-len(cameras) // _PROBES)]]
        self._range = DepthRange.of((probe.depth, probe.alpha) for probe in probes)
        self._depth_scale = depth_scale_for(_FAR_MARGIN * self._range.far)

    def write(self, folder: Path, cameras: Sequence[Camera]) -> Iterator[Picture]:
        """Writes the pictures of each camera under `folder` and yields its colours."""
        with atomic_write(folder / "depth" / "meta.json") as temporary:
            meta = {"depth_scale": self._depth_scale, "zero": "nothing", "kind": "expected z, scene units"}
            temporary.write_text(json.dumps(meta, indent=2) + "\n")
        for camera, name in zip(cameras, picture_names(cameras), strict=True):
            color = self._write_one(folder, name, self._trained.render(camera))
            if camera.name in self._photos:
                save_picture(folder / "gt" / name, self._photos[camera.name].load().numpy())
            yield color

    def _write_one(self, folder: Path, name: str, output: RenderOutput) -> Picture:
        color, depth, alpha = to_uint8(output.color[0]), output.depth[0], output.alpha[0]
        save_picture(folder / "color" / name, color)
        save_picture(folder / "depth" / name, depth_to_uint16(depth, alpha, self._depth_scale))
        save_picture(folder / "depth_color" / name, depth_colors(depth, alpha, self._range))
        save_picture(folder / "alpha" / name, to_uint8(alpha))
        return color


def picture_names(cameras: Sequence[Camera]) -> list[str]:
    """Names of the pictures of some cameras: "left/0001.jpg" becomes "left/0001.png".

    Where two images differ only in their suffix, both keep it: "0001.jpg.png".
    """
    stems = [str(PurePosixPath(camera.name).with_suffix("")) for camera in cameras]
    uses = Counter(stems)
    return [
        f"{stem if uses[stem] == 1 else camera.name}.png" for stem, camera in zip(stems, cameras, strict=True)
    ]
