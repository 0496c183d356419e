"""Every photo of a scene through an encoder, into a teacher folder."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from feature_gs.encoders.base import Encoder, Grid
from feature_gs.errors import UserError
from feature_gs.features.maps import write_map
from feature_gs.features.pca import Pca, PcaAccumulator, load_pca, save_pca
from feature_gs.features.preview import PREVIEW, write_preview
from feature_gs.features.settings import clear_folder, open_folder
from feature_gs.features.teacher import TeacherStore, write_meta
from feature_gs.scenes import Scene, View
from feature_gs.scenes.images import image_size, load_image
from feature_gs.scenes.names import names_without_suffix

PCA_FILE = "pca.npz"
_FULL = ".full"  # maps of all channels, until the PCA over them is done
_HEADER = 256  # bytes of a map's file besides its features, at most


@dataclass(frozen=True)
class _Photo:
    """A photo to encode: its view, its size in pixels, its grid of cells, and the name of its map."""

    view: View
    size: tuple[int, int]
    grid: Grid
    name: str

    def write(self, folder: Path, features: Tensor) -> None:  # [C, h, w]
        path = folder / f"{self.name}.safetensors"
        try:
            write_map(path, features, self.grid.cells_per_pixel_x, self.grid.cells_per_pixel_y)
        except ValueError as error:
            raise UserError(f"the features of {self.view.image_path} cannot be stored: {error}.") from None

    def bytes(self, channels: int) -> int:
        return 2 * channels * self.grid.rows * self.grid.columns + _HEADER


def encode_scene(
    scene: Scene,
    encoder: Encoder,
    folder: Path,
    *,
    pca: int | None = None,
    overwrite: bool = False,
    flags: str | None = None,
    say: Callable[[str], None] = print,
    quiet: bool = False,
) -> TeacherStore:
    """Encodes all photos of a scene, those of training and of testing, at the size of their files.

    Maps that are there and whole are kept, so an interrupted run goes on where it stopped. Memory does not
    grow with the number of photos. With `pca`, maps of all channels are first kept in a hidden folder inside
    `folder`; once the PCA over all cells of all photos is known, they are projected and removed. The basis
    stays in pca.npz: photos that join the scene later are projected onto it.

    Args:
        scene: The scene.
        encoder: The teacher.
        folder: Where the maps go, usually <scene>/features/<teacher>.
        pca: Number of principal components to keep; None keeps all channels.
        overwrite: Start anew where the folder holds maps of other settings.
        flags: The flags of `feature-gs encode` that ask for the same maps, for messages; None: -f and --pca.
        say: Takes the messages.
        quiet: Show no progress bar.

    Returns:
        The finished folder.

    Raises:
        UserError: The folder holds maps of other settings, the disk is too small, a photo cannot be read, or
            the encoder does not keep its promises.
    """
    if pca is not None and not 1 <= pca <= encoder.channels:
        raise UserError(f"--pca takes 1 to {encoder.channels} dimensions for {encoder.name}, got {pca}.")
    photos = _photos(scene, encoder)
    settings = {"encoder": json.loads(json.dumps(encoder.describe())), "pca": pca}
    if overwrite:
        clear_folder(folder)
    if not open_folder(folder, settings):
        flags = flags or f"-f {encoder.name}" + (f" --pca {pca}" if pca else "")
        write_meta(folder, encoder.name, pca or encoder.channels, **settings, flags=flags)
    store = TeacherStore.open(folder)
    store.missing([photo.view for photo in photos])
    run = _Run(encoder, store, photos, say, quiet)
    run.announce()
    if run.todo:
        run.check_disk()
        run.encode() if pca is None else run.encode_with_pca(pca)
        run.keep_findings()
    if run.todo or not (folder / PREVIEW).is_file():
        write_preview(store, [photo.view for photo in photos])
    return TeacherStore.open(folder)


@dataclass
class _Run:
    """One call of `encode_scene`: what is to do, and doing it."""

    encoder: Encoder
    store: TeacherStore
    photos: Sequence[_Photo]
    say: Callable[[str], None]
    quiet: bool
    basis: Pca | None = None
    todo: list[_Photo] = field(default_factory=list)
    full: TeacherStore | None = None

    def __post_init__(self) -> None:
        projected = self.store.meta["pca"] is not None
        self.basis = load_pca(self.store.folder / PCA_FILE) if projected else None
        if projected:
            full = self.store.folder / _FULL
            self.full = TeacherStore(full, self.encoder.name, self.encoder.channels)
        keep = not projected or self.basis is not None  # another basis would not fit the maps that are there
        self.todo = [photo for photo in self.photos if not (keep and _is_whole(self.store, photo))]

    def announce(self) -> None:
        """Says how many photos, which grid, how many bytes."""
        channels = self.store.channels
        grids = Counter((photo.grid.columns, photo.grid.rows) for photo in self.photos).most_common()
        sizes = ", ".join(f"{w} x {h}" for (w, h), _ in grids[:3]) + (", ..." if len(grids) > 3 else "")
        total = sum(photo.bytes(channels) for photo in self.photos)
        self.say(
            f"{self.encoder.name}: {len(self.photos)} photos, {sizes} cells, {channels} channels, "
            f"{in_words(total)} in {self.store.folder}"
        )
        done = len(self.photos) - len(self.todo)
        if done:
            self.say(f"{done} are finished, {len(self.todo)} to do.")
        if self.full is not None and self.basis is None:
            aside = in_words(sum(photo.bytes(self.full.channels) for photo in self.photos))
            self.say(f"All {self.full.channels} channels are kept until the PCA is done: {aside} more.")

    def check_disk(self) -> None:
        """Raises UserError where the disk has no room for what is to be written."""
        needed = sum(photo.bytes(self.store.channels) for photo in self.todo)
        if self.full is not None and self.basis is None:
            lacking = [photo for photo in self.photos if not self.full.path(photo.view.camera.name).is_file()]
            needed += sum(photo.bytes(self.full.channels) for photo in lacking)
        free = shutil.disk_usage(self.store.folder).free
        if needed > free:
            raise UserError(
                f"the maps need {in_words(needed)}, the disk of {self.store.folder} has {in_words(free)} "
                "left. Free some space, or store fewer channels with --pca."
            )

    def encode(self) -> None:
        for photo in self._progress(self.todo):
            photo.write(self.store.folder, _encode(self.encoder, photo))

    def encode_with_pca(self, dimensions: int) -> None:
        assert self.full is not None
        if self.basis is None:
            lacking = [photo for photo in self.photos if not _is_whole(self.full, photo)]
            for photo in self._progress(lacking):
                photo.write(self.full.folder, _encode(self.encoder, photo))
            self.basis = self._fit(dimensions)
        for photo in self.todo:
            features = self._full_map(photo).permute(1, 2, 0)
            photo.write(self.store.folder, self.basis.project(features).permute(2, 0, 1))
        shutil.rmtree(self.full.folder, ignore_errors=True)
        self.say(f"{dimensions} components hold {self.basis.explained:.1%} of the variance.")

    def keep_findings(self) -> None:
        """Writes what the encoder found out to meta.json; what is known from earlier photos stays."""
        known = TeacherStore.open(self.store.folder).meta
        meta = {**self.encoder.findings(), **known}
        if meta != known:
            write_meta(self.store.folder, **meta)

    def _fit(self, dimensions: int) -> Pca:
        assert self.full is not None
        sums = PcaAccumulator()
        for photo in self.photos:
            sums.add(self.full.load(photo.view).features.flatten(1).T)
        basis = sums.fit(dimensions)
        (self.store.folder / PREVIEW).unlink(missing_ok=True)
        save_pca(self.store.folder / PCA_FILE, basis)
        meta = {key: value for key, value in self.store.meta.items() if key not in ("teacher", "channels")}
        meta |= {"variance_explained": basis.explained, "variances": basis.variances.tolist()}
        write_meta(self.store.folder, self.store.name, dimensions, **meta)
        return basis

    def _full_map(self, photo: _Photo) -> Tensor:  # [C, h, w]
        assert self.full is not None
        if _is_whole(self.full, photo):
            return self.full.load(photo.view).features
        return _encode(self.encoder, photo)

    def _progress(self, photos: Sequence[_Photo]) -> Iterator[_Photo]:
        yield from tqdm(photos, "encode", unit="photo", ncols=80, disable=self.quiet)


def in_words(count: float) -> str:
    """A number of bytes for people: 88 MB."""
    value, unit = count, "bytes"
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 999.5 or unit == "GB":
            break
        value /= 1000
    return f"{value:.3g} {unit}" if value < 999.5 else f"{value:,.0f} {unit}"


def _photos(scene: Scene, encoder: Encoder) -> list[_Photo]:
    views = sorted([*scene.train, *scene.test], key=lambda view: view.camera.name)
    names = names_without_suffix([view.camera.name for view in views])
    photos = []
    for view, name in zip(views, names, strict=True):
        size = image_size(view.image_path)
        photos.append(_Photo(view, size, encoder.grid(*size), name))
    return photos


def _is_whole(store: TeacherStore, photo: _Photo) -> bool:
    """Whether a photo's map is there, can be read, and lies on the grid that the encoder would give it."""
    try:
        found = store.load(photo.view)
    except UserError:
        return False
    width, height = photo.size
    wanted = (photo.grid.cells_per_pixel_x * width, photo.grid.cells_per_pixel_y * height)
    near = all(abs(a - b) < 1e-5 * b for a, b in zip((found.cells_x, found.cells_y), wanted, strict=True))
    rows, columns = found.features.shape[1:]
    return near and rows <= photo.grid.rows and columns <= photo.grid.columns


def _encode(encoder: Encoder, photo: _Photo) -> Tensor:
    """Features [C, rows, columns] of a photo at its file's size, held against what the encoder declares."""
    return encoder(load_image(photo.view.image_path, *photo.size, photo.view.white_background))
