"""Teacher folders: where a map lies on its photo, which file is whose, and what is wrong with a bad one."""

import json
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_scenes import circle_pose, write_photo
from torch import Tensor

from feature_gs.errors import UserError
from feature_gs.features.teacher import TeacherStore, find_teacher, teacher_folder, write_map, write_meta
from feature_gs.scenes import Camera, View
from feature_gs.scenes.names import names_without_suffix

DOCS = Path(__file__).resolve().parents[1] / "docs" / "files.md"


def view(folder: Path, name: str = "a.png", width: int = 300, height: int = 200) -> View:
    """A view of half the size of its photo, which is written."""
    write_photo(folder / "images" / name, width, height)
    pose = torch.from_numpy(circle_pose(0, 4)).float()
    camera = Camera(name, width // 2, height // 2, torch.eye(3), pose)
    return View(camera, folder / "images" / name)


def store(folder: Path, channels: int = 2) -> TeacherStore:
    write_meta(folder / "t", "t", channels)
    return TeacherStore.open(folder / "t")


def ramp(channels: int, rows: int, columns: int) -> Tensor:
    return torch.arange(channels * rows * columns).reshape(channels, rows, columns).float()


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    teacher, photo = store(tmp_path), view(tmp_path, "left/a.b.png")
    write_map(teacher.folder / "left" / "a.b.safetensors", ramp(2, 25, 38), 1 / 8, 1 / 8)
    found = teacher.load(photo)
    assert found.features.dtype == torch.float16 and torch.equal(found.features.float(), ramp(2, 25, 38))
    assert (found.cells_x, found.cells_y) == (
        37.5,
        25,
    )  # of the file's 300 x 200 pixels, not the camera's 150


def test_without_a_scale_the_map_spans_the_whole_photo(tmp_path: Path) -> None:
    teacher, photo = store(tmp_path), view(tmp_path)
    write_map(teacher.folder / "a.safetensors", ramp(2, 7, 5))
    found = teacher.load(photo)
    assert (found.cells_x, found.cells_y) == (5, 7)


def test_padding_beyond_the_photo_is_cut_off(tmp_path: Path) -> None:
    teacher, photo = store(tmp_path), view(tmp_path)
    stored = ramp(2, 64, 64) % 2048  # what float16 holds exactly
    write_map(teacher.folder / "a.safetensors", stored, 64 / 300, 64 / 300)
    found = teacher.load(photo)
    assert found.cells_x == 64 and found.cells_y == pytest.approx(64 * 200 / 300)
    assert torch.equal(found.features.float(), stored[:, :43])


def test_a_margin_that_the_teacher_leaves_out_is_kept(tmp_path: Path) -> None:
    teacher, photo = store(tmp_path), view(tmp_path)
    write_map(teacher.folder / "a.safetensors", ramp(2, 14, 21), 1 / 14, 1 / 14)  # 300 = 21 x 14 + 6
    found = teacher.load(photo)
    assert found.features.shape == (2, 14, 21) and found.cells_x == pytest.approx(300 / 14)


def test_a_scale_rounded_on_its_way_still_gives_whole_cells(tmp_path: Path) -> None:
    teacher, photo = store(tmp_path), view(tmp_path, width=147, height=98)
    write_map(teacher.folder / "a.safetensors", ramp(2, 2, 3), 3 / 147 * (1 + 1e-12), 2 / 98 * (1 - 1e-12))
    found = teacher.load(photo)
    assert (found.cells_x, found.cells_y) == (3, 2) and found.features.shape == (2, 2, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_other_types_of_other_tools_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    teacher, photo = store(tmp_path), view(tmp_path)
    save_file({"features": ramp(2, 3, 4).to(dtype)}, teacher.folder / "a.safetensors")
    found = teacher.load(photo).features
    assert found.dtype == torch.float32 and torch.equal(found, ramp(2, 3, 4))


def test_two_images_that_differ_in_their_suffix_have_two_maps(tmp_path: Path) -> None:
    names = ["a.jpg", "a.png", "b.jpg"]
    teacher, views = store(tmp_path), [view(tmp_path, name) for name in names]
    assert names_without_suffix(names) == ["a.jpg", "a.png", "b"]
    for value, name in enumerate(names_without_suffix(names)):
        write_map(teacher.folder / f"{name}.safetensors", torch.full((2, 1, 1), float(value)))
    assert [teacher.load(photo).features[0, 0, 0].item() for photo in views] == [0, 1, 2]
    assert teacher.missing(views) == []


def test_one_map_is_not_taken_for_two_images(tmp_path: Path) -> None:
    teacher = store(tmp_path)
    write_map(teacher.folder / "a.safetensors", ramp(2, 1, 1))
    with pytest.raises(UserError, match="two images, a.jpg and a.png"):
        teacher.missing([view(tmp_path, "a.jpg"), view(tmp_path, "a.png")])


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_umlauts_and_spaces_are_found_in_either_spelling(tmp_path: Path, form: str) -> None:
    teacher, photo = store(tmp_path), view(tmp_path, "küche 1/süß o.png")
    stored = unicodedata.normalize(form, "küche 1/süß o.safetensors")  # type: ignore[arg-type]
    write_map(teacher.folder / stored, ramp(2, 1, 1))
    assert teacher.missing([photo]) == []
    teacher.load(photo)


def test_missing_names_the_images_without_map(tmp_path: Path) -> None:
    teacher, views = store(tmp_path), [view(tmp_path, name) for name in ("a.png", "b.png", "c.png")]
    write_map(teacher.folder / "b.safetensors", ramp(2, 1, 1))
    assert teacher.missing(views) == ["a.png", "c.png"]


def test_a_name_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    for name in ("../a.png", "/etc/a.png", "b/../../a.png"):
        with pytest.raises(UserError, match="leads out"):
            store(tmp_path).path(name)


def test_a_map_is_read_only_when_it_is_asked_for(tmp_path: Path) -> None:
    teacher, views = store(tmp_path), [view(tmp_path, name) for name in ("a.png", "b.png")]
    write_map(teacher.folder / "a.safetensors", ramp(2, 3, 4))
    (teacher.folder / "b.safetensors").write_bytes(b"nonsense")
    opened = TeacherStore.open(teacher.folder)
    assert opened.missing(views) == []
    opened.load(views[0])
    with pytest.raises(UserError, match="b.safetensors is unusable"):
        opened.load(views[1])


def damage_truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def damage_header(path: Path) -> None:
    path.write_bytes(b"\xff" * 8 + path.read_bytes()[8:])


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def saving(tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Callable[[Path], None]:
    return lambda path: save_file(tensors, path, metadata=metadata)


def scales(x: str, y: str) -> dict[str, str]:
    return {"cells_per_pixel_x": x, "cells_per_pixel_y": y}


GOOD = {"features": torch.zeros(2, 3, 4)}


@pytest.mark.parametrize(
    "damage, says",
    [
        (damage_truncated, "damaged"),
        (damage_header, "damaged"),
        (damage_empty, "damaged"),
        (saving({"other": torch.zeros(2, 3, 4)}), "expected a tensor `features`"),
        (saving({"features": torch.zeros(2, 3)}), r"got \[2, 3\]"),
        (saving({"features": torch.zeros(2, 0, 4)}), r"got \[2, 0, 4\]"),
        (saving({"features": torch.zeros(3, 3, 4)}), "expected 2 channels.*got 3"),
        (saving({"features": torch.zeros(2, 3, 4, dtype=torch.int32)}), "int32"),
        (saving({"features": torch.full((2, 3, 4), torch.nan)}), "NaN"),
        (saving({"features": torch.full((2, 3, 4), -torch.inf, dtype=torch.float16)}), "infinite"),
        (saving(GOOD, {"cells_per_pixel_x": "0.1"}), "cells_per_pixel_y"),
        (saving(GOOD, scales("a", "0.1")), "expected numbers"),
        (saving(GOOD, scales("0", "0.1")), "above 0"),
        (saving(GOOD, scales("inf", "0.1")), "above 0"),
        (saving(GOOD, scales("nan", "0.1")), "above 0"),
        (saving(GOOD, scales("75", "66")), "the photo's width spans 22500 cells, the map has 4"),
        (saving(GOOD, scales("1e-9", "1e-9")), "width spans"),
    ],
)
def test_an_unusable_map_is_named_with_its_fault(
    tmp_path: Path, damage: Callable[[Path], None], says: str
) -> None:
    teacher, photo = store(tmp_path), view(tmp_path)
    path = teacher.folder / "a.safetensors"
    write_map(path, torch.zeros(2, 3, 4))
    damage(path)
    with pytest.raises(UserError, match=says) as caught:
        teacher.load(photo)
    assert str(path) in str(caught.value)


def test_the_remedy_is_a_command_where_encode_made_the_maps(tmp_path: Path) -> None:
    folder = teacher_folder(tmp_path / "my scene", "codes")
    write_meta(folder, "codes", 4, encoder={"layer": 11}, flags="-f codes --pca 4")
    with pytest.raises(UserError, match="there is no teacher map") as caught:
        TeacherStore.open(folder).load(view(tmp_path))
    assert f"feature-gs encode -s '{tmp_path / 'my scene'}' -f codes --pca 4" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"teacher": "t"}',
        '{"teacher": 1, "channels": 2}',
        '{"teacher": "t", "channels": 0}',
        '{"teacher": "t", "channels": true}',
        '{"teacher": "t", "channels": 1e99}',
        "[" * 100_000,
    ],
)
def test_a_bad_meta_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "meta.json").write_text(text)
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "meta.json"))):
        TeacherStore.open(tmp_path)


def test_no_teacher_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        TeacherStore.open(tmp_path / "none")
    with pytest.raises(UserError, match="holds no teacher maps"):
        TeacherStore.open(tmp_path)


def test_meta_keeps_further_keys(tmp_path: Path) -> None:
    write_meta(tmp_path, "tëst", 3, encoder={"layer": 11})
    opened = TeacherStore.open(tmp_path)
    assert (opened.name, opened.channels, opened.meta["encoder"]) == ("tëst", 3, {"layer": 11})


def test_write_map_refuses_what_float16_cannot_hold(tmp_path: Path) -> None:
    for value in (1e5, float("nan"), float("-inf")):
        with pytest.raises(ValueError, match="65504"):
            write_map(tmp_path / "a.safetensors", torch.full((1, 1, 1), value))
    with pytest.raises(ValueError, match="or neither"):
        write_map(tmp_path / "a.safetensors", torch.zeros(1, 1, 1), 0.1)
    with pytest.raises(ValueError, match="channels, rows, columns"):
        write_map(tmp_path / "a.safetensors", torch.zeros(1, 1))
    assert list(tmp_path.iterdir()) == []


def test_find_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scene, own, other = Path("scene"), Path("scene/features/timm_vit"), Path("elsewhere/maps")
    assert find_teacher(scene, "timm:vit") is None and find_teacher(scene, "") is None
    (tmp_path / "vit").mkdir()
    assert find_teacher(scene, "vit") is None  # a folder, but without maps
    write_meta(own, "timm:vit", 1)
    write_meta(other, "maps", 1)
    write_meta(scene / "rgb_maps", "maps", 1)
    assert find_teacher(scene, "timm:vit") == own
    assert find_teacher(scene, "elsewhere/maps") == other
    assert find_teacher(scene, "rgb_maps") == scene / "rgb_maps"


def test_a_teacher_folder_stays_inside_the_scene() -> None:
    for spec in ("../../x", "..", "/etc", "a/b", "package.module:Class"):
        assert teacher_folder(Path("scene"), spec).parent == Path("scene/features")
        assert teacher_folder(Path("scene"), spec).name not in ("", ".", "..")


# Feature 3DGS


def feature3dgs(folder: Path, features: object, name: str = "a") -> TeacherStore:
    folder = folder / "rgb_feature_langseg"
    folder.mkdir(exist_ok=True)
    torch.save(features, folder / f"{name}_fmap_CxHxW.pt")
    return TeacherStore.open(folder)


def test_lseg_maps_span_the_photo_whatever_its_proportions(tmp_path: Path) -> None:
    teacher = feature3dgs(tmp_path, ramp(6, 36, 48).half())
    found = teacher.load(view(tmp_path, "sub/a.b.png"))  # named up to the first dot, without sub-folder
    assert (teacher.name, teacher.channels) == ("rgb_feature_langseg", 6)
    assert torch.equal(found.features, ramp(6, 36, 48).half())
    assert (found.cells_x, found.cells_y) == (48, 36)


def test_sam_landscape_is_cut_in_the_file(tmp_path: Path) -> None:
    # 480 x 300 pixels on 64 cells of 7.5 pixels: 40 rows; 310 pixels: 41.33 cells, of which 41 rows are kept
    for height, rows in ((300, 40), (310, 41)):
        teacher = feature3dgs(tmp_path, torch.randn(256, rows, 64))
        found = teacher.load(view(tmp_path, width=480, height=height))
        assert found.features.shape == (256, rows, 64)
        assert found.cells_x == 64 and found.cells_y == pytest.approx(height / 7.5)


def test_sam_portrait_is_cut_here(tmp_path: Path) -> None:
    stored = torch.randn(256, 64, 64)
    found = feature3dgs(tmp_path, stored).load(view(tmp_path, width=300, height=480))
    assert torch.equal(found.features, stored[:, :, :40]) and (found.cells_x, found.cells_y) == (40, 64)


@pytest.mark.parametrize(
    "stored, says",
    [
        ({"features": torch.zeros(2, 3, 4)}, "dict"),
        (torch.zeros(2, 3), r"got \[2, 3\]"),
        (torch.zeros(2, 3, 4, dtype=torch.int64), "int64"),
        (torch.full((2, 3, 4), torch.nan), "NaN"),
        (torch.zeros(1).expand(64, 1000, 1000), "larger than itself"),
        (re.compile("code"), "damaged or no map"),
    ],
)
def test_an_unusable_map_of_feature_3dgs_is_named(tmp_path: Path, stored: object, says: str) -> None:
    feature3dgs(tmp_path, torch.zeros(2, 3, 4), "0")  # the first by name: says how many channels
    teacher = feature3dgs(tmp_path, stored)
    with pytest.raises(UserError, match=says) as caught:
        teacher.load(view(tmp_path))
    assert "a_fmap_CxHxW.pt" in str(caught.value) and "Feature 3DGS" in str(caught.value)


def test_a_truncated_map_of_feature_3dgs_is_named(tmp_path: Path) -> None:
    teacher = feature3dgs(tmp_path, torch.zeros(2, 3, 4))
    path = teacher.folder / "a_fmap_CxHxW.pt"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"a_fmap_CxHxW\.pt is unusable: it is damaged"):
        teacher.load(view(tmp_path))


def test_one_map_of_feature_3dgs_is_not_taken_for_two_images(tmp_path: Path) -> None:
    teacher = feature3dgs(tmp_path, torch.zeros(2, 3, 4))
    with pytest.raises(UserError, match="two images"):
        teacher.missing([view(tmp_path, "left/a.png"), view(tmp_path, "right/a.png")])


def test_the_documented_way_to_write_a_folder_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    photo = view(tmp_path / "garden", "left/a.png", 320, 200)
    example = re.search(r"^```python\n(.*?)^```$", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    assert example is not None
    exec(example[1], {})
    folder = find_teacher(Path("garden"), "mine")
    assert folder is not None
    teacher = TeacherStore.open(folder)
    assert teacher.missing([photo]) == [] and json.loads((folder / "meta.json").read_text())
    found = teacher.load(photo)
    assert (found.cells_x, found.cells_y) == (20, 12.5) and found.features.shape == (teacher.channels, 13, 20)
