"""Encoding a scene: what is written, what is kept, what is refused; and the verb `encode`."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_scenes import NAMES, write_blender_scene, write_colmap_scene
from torch import Tensor

from feature_gs.cli.main import main
from feature_gs.encoders.base import Encoder, Grid
from feature_gs.errors import UserError
from feature_gs.features import encoding
from feature_gs.features.encoding import encode_scene, in_words
from feature_gs.features.maps import TeacherMap
from feature_gs.features.palette import Palette
from feature_gs.features.pca import fit_pca, load_pca
from feature_gs.features.preview import map_picture
from feature_gs.features.teacher import TeacherStore, write_map, write_meta
from feature_gs.scenes import Scene, load_scene

pytestmark = pytest.mark.usefixtures("one_thread")

CELL = 5  # divides neither side of the photos of 32 x 24 pixels


class Blocks(Encoder):
    """Eight channels: the mean of a cell's colours, times eight different numbers. Counts its calls."""

    name = "blocks"
    channels = 8
    patch = stride = CELL
    licence = "none"
    origin = "here"

    def __init__(self, weights: Path | None = None, options: Any = None, device: Any = "cpu") -> None:
        super().__init__(weights, options, device)
        self.seen: list[tuple[int, ...]] = []
        self.layer = 11
        self.stop_after: int | None = None

    def grid(self, width: int, height: int) -> Grid:
        return Grid.of_cells(width, height, CELL)

    def encode(self, image: Tensor) -> Tensor:
        if self.stop_after is not None and len(self.seen) == self.stop_after:
            raise KeyboardInterrupt
        self.seen.append(tuple(image.shape))
        grid = self.grid(image.shape[1], image.shape[0])
        grey = image.float().mean(dim=2)
        means = torch.stack(
            [torch.stack([cell.mean() for cell in row.split(CELL, dim=1)]) for row in grey.split(CELL, dim=0)]
        )
        assert means.shape == (grid.rows, grid.columns)
        ramp = torch.arange(grid.rows * grid.columns).reshape(grid.rows, grid.columns) * 0.01
        return torch.stack([means * (c + 1) / 255 + ramp * (c % 2) for c in range(8)])

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "layer": self.layer}


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return load_scene(write_colmap_scene(tmp_path / "scene", names=NAMES), resolution=2, eval=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "scene" / "features" / "blocks"


def encode(scene: Scene, folder: Path, encoder: Encoder | None = None, **options: Any) -> list[str]:
    """Encodes quietly; returns what was said."""
    said: list[str] = []
    encode_scene(scene, encoder or Blocks(), folder, say=said.append, quiet=True, **options)
    return said


def maps(scene: Scene, folder: Path) -> dict[str, Tensor]:
    store = TeacherStore.open(folder)
    return {view.camera.name: store.load(view).features.float() for view in [*scene.train, *scene.test]}


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(".")]


def test_every_photo_is_encoded_at_the_size_of_its_file(scene: Scene, folder: Path) -> None:
    encoder = Blocks()
    said = encode(scene, folder, encoder)
    assert scene.test and encoder.seen == [(24, 32, 3)] * 4  # the cameras have 16 x 12
    assert said == [f"blocks: 4 photos, 7 x 5 cells, 8 channels, 3.26 kB in {folder}"]
    store = TeacherStore.open(folder)
    view = next(view for view in scene.train if view.camera.name == "c.png")
    found = store.load(view)
    assert (found.cells_x, found.cells_y) == pytest.approx(
        (32 / CELL, 24 / CELL)
    ) and found.features.shape == (8, 5, 7)
    assert found.features[7, 0, 0].item() == pytest.approx(20 * 8 / 255, rel=1e-3)  # photo c is grey 20
    assert store.meta["encoder"]["layer"] == 11 and store.name == "blocks" and leftovers(folder) == []


def test_finished_photos_are_kept_and_damaged_ones_redone(scene: Scene, folder: Path) -> None:
    encode(scene, folder)
    whole = maps(scene, folder)
    (folder / "a.safetensors").unlink()
    (folder / "b.safetensors").write_bytes((folder / "b.safetensors").read_bytes()[:-1])
    write_map(folder / "c.safetensors", torch.zeros(8, 2, 2))  # of another grid
    encoder = Blocks()
    said = encode(scene, folder, encoder)
    assert len(encoder.seen) == 3 and said[1] == "1 are finished, 3 to do."
    assert all(torch.equal(a, b) for a, b in zip(whole.values(), maps(scene, folder).values(), strict=True))
    encode(scene, folder, encoder)
    assert len(encoder.seen) == 3


def test_an_interrupted_run_leaves_whole_maps_and_goes_on(scene: Scene, folder: Path) -> None:
    encoder = Blocks()
    encoder.stop_after = 2
    with pytest.raises(KeyboardInterrupt):
        encode(scene, folder, encoder)
    assert sorted(path.name for path in folder.glob("*.safetensors")) == ["a.safetensors", "b.safetensors"]
    assert leftovers(folder) == []
    encoder.stop_after = None
    encode(scene, folder, encoder)
    assert len(encoder.seen) == 4 and len(maps(scene, folder)) == 4


def test_settings_are_not_mixed(scene: Scene, folder: Path) -> None:
    encode(scene, folder)
    other = Blocks()
    other.layer = 9
    with pytest.raises(UserError, match=r"encoder.layer: 11 there, 9 asked for[^~]*--name[^~]*--overwrite"):
        encode(scene, folder, other)
    with pytest.raises(UserError, match="pca: None there, 2 asked for"):
        encode(scene, folder, pca=2)
    encode(scene, folder, other, overwrite=True)
    assert len(other.seen) == 4 and TeacherStore.open(folder).meta["encoder"]["layer"] == 9


def test_only_folders_that_encode_made_are_written_to_or_removed(scene: Scene, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r"meta\.json|by hand"):
            encode(scene, folder, overwrite=overwrite)
    write_meta(folder, "mine", 8)
    for overwrite in (False, True):
        with pytest.raises(UserError, match="did not make|not made"):
            encode(scene, folder, overwrite=overwrite)
    assert (folder / "notes.txt").read_text() == "mine"
    (folder / "meta.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON[^~]*Nothing says who made"):
        encode(scene, folder, overwrite=True)
    assert (folder / "meta.json").is_file()


def test_a_full_disk_is_noticed_first(scene: Scene, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(scene.source_path)._replace(free=3000)
    monkeypatch.setattr(encoding.shutil, "disk_usage", lambda _: usage)
    encoder = Blocks()
    with pytest.raises(UserError, match=r"need 3\.26 kB.* has 3 kB left"):
        encode(scene, folder, encoder)
    assert encoder.seen == []
    with pytest.raises(UserError, match="need 4.85 kB"):  # 2 of 8 channels, and all 8 for a while
        encode(scene, folder.with_name("small"), encoder, pca=2)


def test_features_that_do_not_fit_are_named(scene: Scene, folder: Path) -> None:
    class Loud(Blocks):
        def encode(self, image: Tensor) -> Tensor:
            return super().encode(image) + 1e5

    with pytest.raises(UserError, match=r"a\.png cannot be stored.*65504"):
        encode(scene, folder, Loud())


def test_two_photos_that_differ_in_their_suffix(scene: Scene, folder: Path) -> None:
    names = iter(["ä b/a.jpg", "ä b/a.png", "c.png"])  # COLMAP scenes refuse this, other readers do not
    scene.train = [replace(view, camera=replace(view.camera, name=next(names))) for view in scene.train]
    scene.test = []
    encode(scene, folder)
    found = maps(scene, folder)
    assert found["ä b/a.jpg"][7, 0, 0] < found["ä b/a.png"][7, 0, 0] < found["c.png"][7, 0, 0]
    assert (folder / "ä b" / "a.jpg.safetensors").is_file() and (folder / "c.safetensors").is_file()


def test_photos_of_different_sizes(tmp_path: Path, folder: Path) -> None:
    root = write_colmap_scene(tmp_path / "scene")
    Image.fromarray(np.zeros((48, 64, 3), dtype=np.uint8)).save(root / "images" / "a.png")
    scene = load_scene(root)
    said = encode(scene, folder)
    assert "7 x 5, 13 x 10 cells" in said[0]
    assert TeacherStore.open(folder).load(scene.train[0]).cells_x == 64 / CELL


# PCA


def test_pca_is_over_all_cells_of_all_photos(scene: Scene, folder: Path) -> None:
    encode(scene, folder.with_name("full"))
    full = maps(scene, folder.with_name("full"))
    said = encode(scene, folder, pca=2)
    expected = fit_pca(full.values(), 2)
    for name, projected in maps(scene, folder).items():
        wanted = expected.project(full[name].permute(1, 2, 0)).permute(2, 0, 1)
        torch.testing.assert_close(projected, wanted, atol=2e-3, rtol=2e-3)
    store = TeacherStore.open(folder)
    assert store.channels == 2 and store.meta["pca"] == 2
    assert store.meta["variance_explained"] == pytest.approx(expected.explained)
    assert "2 components hold 100.0% of the variance." in said and leftovers(folder) == []


def test_pca_goes_on_where_it_stopped(scene: Scene, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode(scene, folder.with_name("once"), pca=2)
    encoder = Blocks()
    encoder.stop_after = 3
    with pytest.raises(KeyboardInterrupt):
        encode(scene, folder, encoder, pca=2)
    encoder.stop_after = 4
    stopping = monkeypatch.context()
    with stopping as patch:
        patch.setattr(encoding, "save_pca", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            encode(scene, folder, encoder, pca=2)
    assert list(folder.glob("*.safetensors")) == []
    encode(scene, folder, encoder, pca=2)
    assert len(encoder.seen) == 4 and leftovers(folder) == []
    once, again = maps(scene, folder.with_name("once")), maps(scene, folder)
    assert all(torch.equal(once[name], again[name]) for name in once)


def test_a_photo_that_joins_is_projected_onto_the_basis_that_is_there(scene: Scene, folder: Path) -> None:
    encode(scene, folder, pca=2)
    before = maps(scene, folder)
    (folder / "b.safetensors").unlink()
    encoder = Blocks()
    encode(scene, folder, encoder, pca=2)
    after = maps(scene, folder)
    assert len(encoder.seen) == 1
    torch.testing.assert_close(after["b.png"], before["b.png"], atol=2e-3, rtol=2e-3)
    assert torch.equal(after["a.png"], before["a.png"])


def test_without_its_basis_everything_is_projected_anew(scene: Scene, folder: Path) -> None:
    encode(scene, folder, pca=2)
    (folder / "pca.npz").write_bytes(b"nonsense")
    assert load_pca(folder / "pca.npz") is None
    encoder = Blocks()
    encode(scene, folder, encoder, pca=2)
    basis = load_pca(folder / "pca.npz")
    assert len(encoder.seen) == 4 and basis is not None and basis.components.shape == (8, 2)


@pytest.mark.parametrize("pca", [0, 9, -1])
def test_impossible_numbers_of_components(scene: Scene, folder: Path, pca: int) -> None:
    with pytest.raises(UserError, match="--pca takes 1 to 8"):
        encode(scene, folder, pca=pca)
    assert not folder.exists()


# Preview


def test_a_cell_is_shown_where_it_lies() -> None:
    features = torch.tensor(
        [[[0.0, 1.0, 0.5]]]
    )  # three cells over 2.5 cells of photo: 4, 4 and 2 of 10 pixels
    red = Palette(torch.tensor([[1.0, 0, 0]]), torch.tensor([0.0, 0, 1]))
    picture = map_picture(TeacherMap(features, 2.5, 1.0), red, 10, 2)
    assert picture.shape == (2, 10, 3)
    assert picture[0, :, 0].tolist() == [0] * 4 + [255] * 4 + [128] * 2 and (picture[..., 2] == 255).all()


def test_the_preview_shows_photos_above_their_maps(scene: Scene, folder: Path) -> None:
    encode(scene, folder)
    picture = np.asarray(Image.open(folder / "preview.png"))
    assert picture.shape[1] >= 4 * 32
    (folder / "preview.png").unlink()
    encode(scene, folder)
    assert (folder / "preview.png").is_file()


def test_bytes_in_words() -> None:
    assert [in_words(n) for n in (0, 999, 1000, 88_400_000, 2.5e9, 1.2345e12)] == [
        *("0 bytes", "999 bytes", "1 kB", "88.4 MB", "2.5 GB", "1,234 GB")
    ]


# The verb


def test_the_verb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    root = write_colmap_scene(tmp_path / "my scene")
    command = ["encode", "-s", str(root), "-f", "test_features_encoding:Blocks"]
    assert main(command) == 0
    said = capsys.readouterr().out
    folder = root / "features" / "test_features_encoding_Blocks"
    assert f"maps:     {folder}" in said
    next_command = re.search(r"^next:     (.*)$", said, re.MULTILINE)
    assert next_command and next_command[1].endswith("-f test_features_encoding:Blocks")
    assert len(list(folder.glob("*.safetensors"))) == 4

    assert main([*command, "--pca", "3", "--quiet"]) == 2
    assert "other settings" in capsys.readouterr().err
    assert main([*command, "--pca", "3", "--name", "small", "--quiet"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "" and "encode" not in printed.err
    small = root / "features" / "small"
    meta = json.loads((small / "meta.json").read_text())
    assert (meta["teacher"], meta["channels"]) == ("blocks", 3)

    (small / "a.safetensors").unlink()
    store = TeacherStore.open(small)
    with pytest.raises(UserError) as caught:
        store.load(load_scene(root).train[0])
    expected = f"encode -s '{root}' -f test_features_encoding:Blocks --pca 3 --name small"
    assert str(caught.value).endswith(expected)


def test_the_verb_encodes_test_views_of_blender_scenes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    root = write_blender_scene(tmp_path / "scene")
    assert main(["encode", "-s", str(root), "-f", "test_features_encoding:Blocks", "--name", "b", "-w"]) == 0
    found = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.safetensors"))
    assert found == [f"features/b/{split}/r_{i}.safetensors" for split in ("test", "train") for i in range(2)]
    store = TeacherStore.open(root / "features" / "b")
    view = load_scene(root).train[0]
    assert store.load(view).features[7, 0, -1].item() == pytest.approx(8, rel=1e-2)  # white where transparent


def test_the_verb_refuses_before_it_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_colmap_scene(tmp_path / "scene")
    write_meta(root / "features" / "mine", "mine", 4)
    assert main(["encode", "-s", str(root), "-f", "mine"]) == 2
    assert "train on them with -f mine" in capsys.readouterr().err
    assert main(["encode", "-s", str(root), "-f", "handcraftd"]) == 2
    assert "there is no encoder" in capsys.readouterr().err
    assert main(["encode", "-s", str(tmp_path / "none"), "-f", "handcrafted"]) == 2
    assert not (root / "features" / "handcraftd").exists()


class Finder(Blocks):
    """Finds out how many photos it has seen."""

    def findings(self) -> dict[str, Any]:
        return {"photos": len(self.seen)}


def test_findings_of_the_encoder_are_kept_beside_the_maps(scene: Scene, folder: Path) -> None:
    encode(scene, folder, Finder())
    meta = json.loads((folder / "meta.json").read_text())
    assert meta["photos"] == len(NAMES) and meta["channels"] == 8
    removed = next(iter(folder.glob("*.safetensors")))
    removed.unlink()
    encode(scene, folder, Finder())  # knows one photo only: what was found from all of them stays
    assert json.loads((folder / "meta.json").read_text()) == meta
    assert removed.is_file()


def test_findings_are_kept_with_a_pca_too(scene: Scene, folder: Path) -> None:
    encode(scene, folder, Finder(), pca=2)
    meta = json.loads((folder / "meta.json").read_text())
    assert meta["photos"] == len(NAMES) and meta["channels"] == 2 and "variances" in meta
