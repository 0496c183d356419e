"""A folder of teacher maps: what a 2D model says about every photo of a scene.

FOLDER/meta.json                 {"teacher": name, "channels": C, ...}
FOLDER/IMAGE.safetensors         one per image, named by its path without suffix (with it, where two images
                                 differ in nothing else): `features` [C, h, w] float16; metadata
                                 cells_per_pixel_x, cells_per_pixel_y of the photo's own file, absent = the
                                 map spans the whole photo

Folders of Feature 3DGS are read as well.
"""

import json
import re
import shlex
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from feature_gs.errors import UserError
from feature_gs.features.feature3dgs import SUFFIX, file_name, is_feature3dgs_folder, read_feature3dgs
from feature_gs.features.maps import TeacherMap, read_map, write_map
from feature_gs.files import atomic_write
from feature_gs.scenes import View
from feature_gs.scenes.images import image_size

__all__ = ["TeacherMap", "TeacherStore", "find_teacher", "teacher_folder", "write_map", "write_meta"]

META = "meta.json"
MOST_CHANNELS = 1 << 16


@dataclass(frozen=True, eq=False)
class TeacherStore:
    """The maps of one teacher for one scene. Only the map asked for is read.

    Attributes:
        folder: The folder.
        name: The teacher's name.
        channels: Channels of every map.
        meta: What meta.json says; empty for a folder of Feature 3DGS.
        from_feature3dgs: Whether Feature 3DGS wrote the folder.
    """

    folder: Path
    name: str
    channels: int
    meta: dict[str, Any] = field(default_factory=dict)
    from_feature3dgs: bool = False

    @classmethod
    def open(cls, folder: Path) -> "TeacherStore":
        """Opens a folder; no map is read.

        Raises:
            UserError: It is no folder of teacher maps.
        """
        folder = Path(folder)
        if (folder / META).is_file():
            meta = _read_meta(folder / META)
            return cls(folder, meta["teacher"], meta["channels"], meta)
        if folder.is_dir() and is_feature3dgs_folder(folder):
            first = min(folder.glob(f"*{SUFFIX}"))
            try:
                channels = read_feature3dgs(first, 1, 1).features.shape[0]
            except (OSError, ValueError) as error:
                raise UserError(f"{first}: {error}. Encode the photo again with Feature 3DGS.") from None
            return cls(folder, folder.name, channels, from_feature3dgs=True)
        what = "holds no teacher maps" if folder.is_dir() else "does not exist"
        raise UserError(
            f"{folder} {what}: expected {META} and one .safetensors file per image (docs/files.md shows how "
            f"to write them), or *{SUFFIX} files. Make maps with `feature-gs encode -s SCENE -f TEACHER`."
        )

    @property
    def reference(self) -> str:
        """What `-f` takes to find these maps again: the folder's name below SCENE/features, or its path."""
        inside = self.folder.resolve().parent.name == "features"
        return self.folder.resolve().name if inside else str(self.folder.resolve())

    def path(self, image_name: str) -> Path:
        """The file with an image's map, or where it belongs if there is none.

        Args:
            image_name: Path of the image relative to the folder of images, with suffix.

        Raises:
            UserError: The name leads out of the folder.
        """
        name = PurePosixPath(image_name)
        if name.is_absolute() or ".." in name.parts:
            raise UserError(f"the image name {image_name!r} leads out of the folder of images.")
        if self.from_feature3dgs:
            return _on_disk(self.folder, file_name(image_name))
        short, long = (_on_disk(self.folder, f"{base}.safetensors") for base in (name.with_suffix(""), name))
        return long if long.is_file() and not short.is_file() else short

    def load(self, view: View) -> TeacherMap:
        """Reads the map of a photo. Its pixels are read when used, straight from the file.

        Raises:
            UserError: The map is missing, damaged or another teacher's; names the file and the remedy.
        """
        path = self.path(view.camera.name)
        if not path.is_file():
            raise UserError(
                f"there is no teacher map {path} of the image {view.camera.name}. {self._remedy()}"
            )
        width, height = image_size(view.image_path)
        read = read_feature3dgs if self.from_feature3dgs else read_map
        try:
            teacher_map = read(path, width, height)
            channels = teacher_map.features.shape[0]
            if channels != self.channels:
                raise ValueError(
                    f"expected {self.channels} channels as in {self._reference()}, got {channels}"
                )
        except (OSError, ValueError) as error:
            raise UserError(f"the teacher map {path} is unusable: {error}. {self._remedy()}") from None
        return teacher_map

    def missing(self, views: Iterable[View]) -> list[str]:
        """Names of the images that have no map; files are looked for, not read.

        Raises:
            UserError: Two images would read one and the same file.
        """
        owners: dict[Path, str] = {}
        lacking = []
        for view in views:
            name = view.camera.name
            path = self.path(name)
            if not path.is_file():
                lacking.append(name)
            elif owners.setdefault(path, name) != name:
                mend = (
                    "Rename one of the photos." if self.from_feature3dgs else f"Remove it. {self._remedy()}"
                )
                raise UserError(f"{path} would be the map of two images, {owners[path]} and {name}. {mend}")
        return lacking

    def _reference(self) -> str:
        return "the folder's first file" if self.from_feature3dgs else str(self.folder / META)

    def _remedy(self) -> str:
        if "encoder" not in self.meta:
            tool = "Feature 3DGS" if self.from_feature3dgs else "the tool that made the others"
            return f"Write it with {tool}."
        scene = self.folder.parent.parent if self.folder.parent.name == "features" else "SCENE"
        flags = self.meta.get("flags", f"-f {self.name}")
        return f"This makes it: feature-gs encode -s {shlex.quote(str(scene))} {flags}"


def write_meta(folder: Path, teacher: str, channels: int, **further: Any) -> None:
    """Writes meta.json.

    Args:
        folder: The teacher's folder, created if missing.
        teacher: The teacher's name.
        channels: Channels of its maps, at least 1.
        **further: Anything that JSON can hold: the weights' SHA-256, the input size, ...
    """
    meta = {"teacher": teacher, "channels": channels, **further}
    with atomic_write(folder / META) as temporary:
        temporary.write_text(json.dumps(meta, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def teacher_folder(scene_path: Path, teacher: str) -> Path:
    """Where the maps of a teacher belong: <scene>/features/<teacher>, odd characters replaced by "_"."""
    return scene_path / "features" / (re.sub(r"[^\w.+-]", "_", teacher).lstrip(".") or "_")


def find_teacher(scene_path: Path, spec: str) -> Path | None:
    """The folder of maps that the flag -f means, if it is there.

    Args:
        scene_path: The scene's folder.
        spec: A teacher's name, or the path of a folder of maps, also relative to the scene.

    Returns:
        <scene>/features/<spec>, else the folder itself; None if neither holds teacher maps.
    """
    if not spec:
        return None
    for folder in (teacher_folder(scene_path, spec), Path(spec), scene_path / spec):
        if (folder / META).is_file() or (folder.is_dir() and is_feature3dgs_folder(folder)):
            return folder
    return None


def _read_meta(path: Path) -> dict[str, Any]:
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is not JSON ({error}). Remove the folder and encode the scene again."
        ) from None
    teacher = meta.get("teacher") if isinstance(meta, dict) else None
    channels = meta.get("channels") if isinstance(meta, dict) else None
    if not isinstance(teacher, str) or type(channels) is not int or not 1 <= channels <= MOST_CHANNELS:
        raise UserError(
            f'{path}: expected {{"teacher": NAME, "channels": 1 to {MOST_CHANNELS}}}, got teacher '
            f"{teacher!r} and channels {channels!r}."
        )
    return dict(meta)


def _on_disk(folder: Path, name: str) -> Path:
    """The path as the disk spells it, where it stores an umlaut as two characters."""
    path = folder / name
    if path.is_file() or name.isascii():
        return path
    path = folder
    for part in map(_composed, PurePosixPath(name).parts):
        entries = path.iterdir() if path.is_dir() else iter(())
        path = next((entry for entry in entries if _composed(entry.name) == part), path / part)
    return path


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)
