"""The photos a reconstruction starts from: which there are, and whether they are fit for it.

Everything that can be told from the files alone is told here, before hours of matching.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NoReturn

from PIL import Image

from feature_gs.errors import UserError
from feature_gs.scenes.conversion.progress import for_each
from feature_gs.scenes.images import SUFFIXES, has_alpha, index_images
from feature_gs.scenes.source import some_of

FEWEST = 3
_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
_FOREIGN = {".heic", ".heif", ".avif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".gif"}
_FOREIGN |= {".webp", ".jp2", ".jxl"}  # COLMAP reads none of these
_FILMS = {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v"}
_ORIENTATION, _MAKE, _MODEL, _FOCAL_LENGTH, _DETAILS = 274, 271, 272, 37386, 0x8769  # EXIF tags
_CLOCKWISE = {3: 2, 6: 1, 8: 3}  # quarter turns that make upright, by orientation
_MIRRORED = (2, 4, 5, 7)


@dataclass(frozen=True)
class Photo:
    """A photo as its file has it.

    Attributes:
        name: Path below the folder of photos, with forward slashes and composed Unicode.
        path: The file.
        width: Width in pixels as stored.
        height: Height in pixels as stored.
        turns: Clockwise quarter turns that make it upright, from EXIF.
        mirrored: EXIF says that it is stored mirrored.
        alpha: It has an alpha channel.
        sha256: Of the file.
        taken_with: Make, model and focal length of the camera, from EXIF; equal for photos that may share
            one calibration.
    """

    name: str
    path: Path
    width: int
    height: int
    turns: int
    mirrored: bool
    alpha: bool
    sha256: str
    taken_with: str


def read_photos(folder: Path, names: Iterable[str] | None = None, *, quiet: bool = False) -> list[Photo]:
    """Reads the headers of all photos in a folder and its sub-folders, sorted by name.

    Args:
        folder: The folder.
        names: Only these, which must be there; None: all.
        quiet: Show no progress bar.

    Raises:
        UserError: There are none, some of `names` are missing, or some are no images.
    """
    found = {n: p for n, p in index_images(folder).items() if p.suffix.lower() not in _FOREIGN}
    if names is not None:
        wanted = set(names)
        missing = sorted(wanted - found.keys())
        if missing:
            raise UserError(
                f"{len(missing)} of {len(wanted)} photos of the model are not in {folder}: "
                f"{some_of(missing)}. Put them there under these names."
            )
        found = {name: found[name] for name in wanted}
    if not found:
        _refuse_empty(folder)
    broken: list[str] = []

    def read(name: str) -> Photo | None:
        try:
            return _read(name, found[name])
        except _UNREADABLE:
            broken.append(name)
            return None

    photos = for_each(read, sorted(found), "reading", quiet)
    _refuse_broken(folder, broken, len(found))
    return [photo for photo in photos if photo is not None]


def check_readable(photos: list[Photo], folder: Path, *, quiet: bool = False) -> None:
    """Decodes every photo whole: COLMAP takes the grey rest of a cut-off JPEG for part of the scene.

    Raises:
        UserError: Some are damaged; names them.
    """
    broken: list[str] = []

    def decode(photo: Photo) -> None:
        try:
            with Image.open(photo.path) as image:
                image.load()
        except _UNREADABLE:
            broken.append(photo.name)

    for_each(decode, photos, "checking", quiet)
    _refuse_broken(folder, broken, len(photos))


def choose_photos(photos: list[Photo], folder: Path) -> tuple[list[Photo], list[str]]:
    """The photos to reconstruct from, without copies of the same one, and what the user should be told.

    Raises:
        UserError: Too few, all the same, or two whose names differ only in their suffix.
    """
    by_stem: dict[str, str] = {}
    for photo in photos:
        stem = str(PurePosixPath(photo.name).with_suffix(""))
        if stem in by_stem:
            raise UserError(
                f"{by_stem[stem]!r} and {photo.name!r} in {folder} differ in nothing but their suffix; what "
                "is made of them would overwrite each other. Rename one."
            )
        by_stem[stem] = photo.name
    first: dict[str, str] = {}
    copies = [photo for photo in photos if first.setdefault(photo.sha256, photo.name) != photo.name]
    kept = [photo for photo in photos if first[photo.sha256] == photo.name]
    if len(kept) == 1 and copies:
        raise UserError(
            f"the {len(photos)} photos in {folder} are all the same picture. Depth needs parallax: walk "
            "around the scene and take a photo every few steps."
        )
    if len(kept) < FEWEST:
        what = "different photos" if copies else "photos"
        raise UserError(
            f"too few {what} in {folder}: {len(kept)}. At least {FEWEST} are needed; 30 to 300, each "
            "sharing two thirds with the next, make a good scene."
        )
    messages = []
    foreign = _of(folder, _FOREIGN)
    if foreign:
        messages.append(f"left out, COLMAP does not read them: {some_of(foreign)}")
    if copies:
        pairs = [f"{photo.name} (= {first[photo.sha256]})" for photo in copies]
        messages.append(
            f"{len(copies)} of {len(photos)} photos left out as copies of others: {some_of(pairs)}"
        )
    return kept, messages + describe(kept)


def describe(photos: list[Photo]) -> list[str]:
    """What is special about these photos and what becomes of it, one message per kind."""
    special = {
        "stored sideways (EXIF orientation), which COLMAP will see, upright in images/": "turns",
        "marked as mirrored (EXIF orientation), which no camera is, and taken as stored": "mirrored",
        "with an alpha channel; images/ will keep it, but COLMAP will see what it hides, too": "alpha",
    }
    messages = []
    for what, attribute in special.items():
        names = [photo.name for photo in photos if getattr(photo, attribute)]
        if names:
            messages.append(f"{len(names)} of {len(photos)} photos {what}: {some_of(names)}")
    cameras = {(photo.width, photo.height, photo.taken_with) for photo in photos}
    if len(cameras) > 1:
        shown = [f"{w}x{h} {what}".strip() for w, h, what in sorted(cameras)]
        messages.append(f"photos of {len(cameras)} cameras, each calibrated by itself: {some_of(shown)}")
    return messages


def same_camera(photos: list[Photo]) -> list[list[Photo]]:
    """The photos in groups that may share one calibration: same size, camera and focal length."""
    groups: dict[tuple[int, int, str], list[Photo]] = {}
    for photo in photos:
        groups.setdefault((photo.width, photo.height, photo.taken_with), []).append(photo)
    return list(groups.values())


def check_input_folder(source: Path, folder: Path) -> None:
    """Checks that there is a folder of photos.

    Raises:
        UserError: There is none; says where the photos seem to be and what to do.
    """
    if not source.is_dir():
        what = "is a file" if source.exists() else "does not exist"
        raise UserError(f"{source} {what}; -s takes a folder whose sub-folder input/ holds the photos.")
    if folder.is_dir():
        return
    here = [path for path in source.iterdir() if path.is_file()]
    photos = [path for path in here if path.suffix.lower() in SUFFIXES]
    films = [path for path in here if path.suffix.lower() in _FILMS]
    if photos:
        advice = f"{len(photos)} photos lie in {source} itself: move them into a folder named input."
    elif (source / "images").is_dir():
        advice = "There is a folder images: if it holds the photos as taken, rename it to input."
    elif films:
        advice = f"Of the film that lies there photos are taken by: --video {str(films[0])!r}"
    else:
        advice = "Put the photos there."
    raise UserError(f"there is no folder {folder}. {advice}")


def _of(folder: Path, suffixes: set[str]) -> list[str]:
    """Names of the files with one of these suffixes."""
    files = [path for path in folder.rglob("*") if path.suffix.lower() in suffixes]
    return sorted(p.relative_to(folder).as_posix() for p in files if not p.name.startswith("."))


def _refuse_empty(folder: Path) -> NoReturn:
    foreign, films = _of(folder, _FOREIGN), _of(folder, _FILMS)
    if foreign:
        raise UserError(
            f"{folder} holds {len(foreign)} files, all of formats that COLMAP does not read: "
            f"{some_of(foreign)}. Convert them to JPEG or PNG."
        )
    if films:
        raise UserError(f"{folder} holds a film and no photos: move it out and name it with --video.")
    raise UserError(f"{folder} holds no photos ({', '.join(sorted(SUFFIXES - _FOREIGN))}).")


def _refuse_broken(folder: Path, broken: list[str], count: int) -> None:
    if broken:
        raise UserError(
            f"{len(broken)} of {count} photos in {folder} damaged or only partly copied: "
            f"{some_of(sorted(broken))}. Copy them again, or remove them."
        )


def _read(name: str, path: Path) -> Photo:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with Image.open(path) as image:
        width, height = image.size
        alpha = has_alpha(image)
        orientation, taken_with = _exif(image)
    mirrored = orientation in _MIRRORED
    turns = _CLOCKWISE.get(orientation, 0)
    return Photo(name, path, width, height, turns, mirrored, alpha, digest, taken_with)


def _exif(image: Image.Image) -> tuple[int, str]:
    """Orientation (1: upright) and the camera in words; damaged EXIF counts as none."""
    try:
        exif = image.getexif()
        words = [str(exif.get(tag, "")).strip("\0 ") for tag in (_MAKE, _MODEL)]
        focal = exif.get_ifd(_DETAILS).get(_FOCAL_LENGTH)
        words += [f"{float(focal):g} mm"] if focal else []
        return int(exif.get(_ORIENTATION, 1)), " ".join(filter(None, words))
    except Exception:  # Pillow lets through whatever its parser stumbled over
        return 1, ""
