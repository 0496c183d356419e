"""`feature-gs segment` from the command line to its files."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from things import KINDS, SIZE, Things, kind_codes, make_things, small_decoder

from feature_gs.cli.main import main
from feature_gs.cli.segment import parsed
from feature_gs.cli.segment_output import folder_names, prepare
from feature_gs.errors import UserError
from feature_gs.queries.coco import decode_rle
from feature_gs.queries.sam import SamDecoder, SamMasks, SamPrompt
from feature_gs.queries.selection import Selection
from feature_gs.queries.views import score_images
from feature_gs.training.trained import load_trained

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def scene() -> Things:
    return make_things()


@pytest.fixture(scope="module")
def model(scene: Things, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scene.save(tmp_path_factory.mktemp("model") / "balls")


def segment(model: Path, *arguments: str) -> int:
    return main(["segment", "-m", str(model), "--quiet", *arguments])


def image(path: Path) -> np.ndarray:
    with Image.open(path) as opened:
        return np.asarray(opened).copy()


def at(scene: Things, label: int, view: int) -> list[str]:
    """A view and the middle of a thing in it, as flags."""
    camera = next(
        camera
        for cameras in scene.trained.cameras.values()
        for camera in cameras
        if camera.name == f"{view}.png"
    )
    x, y = scene.middle(label, camera)
    return ["--view", str(view), "--point", f"{x:.1f}", f"{y:.1f}"]


def test_a_point_gets_masks_in_every_view(scene: Things, model: Path) -> None:
    assert segment(model, *at(scene, 2, 3), "--name", "green") == 0
    folder = model / "queries" / "green"
    for cameras in scene.trained.cameras.values():
        for camera in cameras:
            mask = image(folder / "masks" / camera.name)
            assert mask.shape == (SIZE[1], SIZE[0]) and set(np.unique(mask)) == {0, 255}
            true = scene.pixels(2, camera).numpy()
            assert ((mask > 0) & true).sum() / ((mask > 0) | true).sum() > 0.95
            scores = image(folder / "scores" / camera.name)
            assert scores.dtype in (np.uint16, np.int32)
            assert ((scores > 32767.5) == (mask > 0)).mean() > 0.999
            assert image(folder / "overlay" / camera.name).shape == (SIZE[1], SIZE[0], 3)
    selection = Selection.load(folder / "selection.safetensors", len(scene.labels))
    assert (selection.selected == (scene.labels == 2)).float().mean() > 0.99
    query = json.loads((folder / "query.json").read_text())
    assert query["query"]["kind"] == "point" and query["query"]["view"] == "3.png"
    assert query["iteration"] == 7 and query["gaussians"] == len(scene.labels)
    assert not (folder / "labels.json").exists() and not (folder / "timing.json").exists()


def test_the_command_in_the_file_asks_the_same(scene: Things, model: Path) -> None:
    given = [*at(scene, 1, 3), "--negative_point", "10.5", "60", "--negative_point", "11", "61.25"]
    config = parsed(["-m", str(model), *given, "--views", "test", "--timing", "2", "--name", "again"])
    assert parsed(config.arguments()) == config
    words = parsed(["-m", "a b", "--text", "chair,table", "--template", "a {}.", "--temperature", "0.013"])
    assert parsed(words.arguments()) == words
    box = parsed(["-m", "m", "--view", "3", "--box", "1", "2", "3.123456789", "4", "--per_view"])
    assert parsed(box.arguments()) == box


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (["--view", "left/003.png", "--point", "12.5", "7"], "point_left_003_12.5_7"),
        (
            ["--view", "3", "--point", "1", "2", "--negative_point", "3", "4", "--per_view"],
            "point_3_1_2_not_3_4_per_view",
        ),
        (["--text", "chair, the big table,floor"], "text_chair_the_big_table_floor"),
        (["--everything"], "everything"),
        (["--view", "3", "--patch", "1", "2", "8", "--name", "mine"], "mine"),
    ],
)
def test_a_query_names_its_folder(given: list[str], name: str) -> None:
    assert parsed(["-m", "m", *given]).folder_name() == name


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("--patch 1 2 8 --threshold 0.2", "--patch 1 2 8 --threshold 1.2"),
        ("--text red", "--text red --template {}s"),
        ("--text red", "--text red --negative_text blue"),
        ("--text a.b", "--text a!b"),
        (" ".join(f"--point {x} 30" for x in range(40)), " ".join(f"--point {x} 30" for x in range(41))),
    ],
)
def test_another_query_has_another_folder(one: str, other: str) -> None:
    view = [] if "text" in one else ["--view", "8"]
    names = [parsed(["-m", "m", *view, *query.split()]).folder_name() for query in (one, other)]
    assert names[0] != names[1]
    assert all(re.fullmatch(r"\w[\w.-]{0,59}", name) for name in names)


def test_words_that_look_alike_have_folders_of_their_own() -> None:
    names = folder_names(["mug (red)", "mug [red]", "floor", "a" * 300])
    assert names[:3] == ["mug_red_", "mug_red__2", "floor"] and len(names[3]) == 60


def test_a_folder_that_cannot_be_used_is_found_out_before_asking(tmp_path: Path) -> None:
    (tmp_path / "queries").write_text("a file")
    with pytest.raises(UserError, match="cannot write to .*thing: Not a directory"):
        prepare(tmp_path / "queries" / "thing")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds no query"):
        prepare(tmp_path / "mine")


def test_a_box_a_patch_and_the_same_pixels_leave_their_files(scene: Things, model: Path) -> None:
    x, y = scene.middle(1, scene.trained.cameras["test"][0])
    view = ["--view", "3", "--views", "test"]
    assert segment(model, *view, "--box", f"{x - 13}", f"{y - 13}", f"{x + 13}", f"{y + 13}") == 0
    assert segment(model, *view, "--patch", f"{x}", f"{y}", "6", "--name", "patch") == 0
    assert segment(model, *view, "--point", f"{x}", f"{y}", "--per_view", "--name", "same") == 0
    queries = model / "queries"
    assert any(path.name.startswith("box_3_") for path in queries.iterdir())
    assert image(queries / "patch" / "histogram.png").ndim == 3
    assert (queries / "patch" / "selection.safetensors").is_file()
    assert not (queries / "same" / "selection.safetensors").exists()
    assert {path.name for path in (queries / "same" / "masks").iterdir()} == {"3.png", "7.png"}


def test_words_label_pixels_and_gaussians(scene: Things, model: Path) -> None:
    assert segment(model, "--text", "red, blue,green", "--name", "words", "--negative_text", "floor") == 0
    folder = model / "queries" / "words"
    names = json.loads((folder / "labels.json").read_text())["labels"]
    assert names == {"0": "other", "1": "red", "2": "blue", "3": "green"}
    for camera in scene.trained.cameras["test"]:
        labels = image(folder / "masks" / camera.name)
        for number, label in ((1, 1), (2, 3), (3, 2)):
            true = scene.pixels(label, camera).numpy()
            assert ((labels == number) & true).sum() / ((labels == number) | true).sum() > 0.9
    parts = folder / "parts"
    blue = Selection.load(parts / "blue" / "selection.safetensors", len(scene.labels))
    assert (blue.selected == (scene.labels == 3)).float().mean() > 0.98
    whole = Selection.load(folder / "selection.safetensors", len(scene.labels))
    assert (whole.selected == (scene.labels > 0)).float().mean() > 0.98
    assert {path.name for path in parts.iterdir()} == {"red", "green", "blue"}


def test_one_word_is_held_against_what_anything_is(scene: Things, model: Path) -> None:
    assert segment(model, "--text", "green", "--views", "test") == 0
    folder = model / "queries" / "text_green"
    query = json.loads((folder / "query.json").read_text())["query"]
    assert query["negative_text"] == ["object", "things", "stuff", "texture"]
    selection = Selection.load(folder / "selection.safetensors", len(scene.labels))
    assert selection.selected[scene.labels == 2].all()


def test_ade20k_stands_for_its_labels(model: Path) -> None:
    assert segment(model, "--text", "ADE20K", "--views", "test", "--name", "ade") == 0
    names = json.loads((model / "queries" / "ade" / "labels.json").read_text())["labels"]
    assert len(names) == 151 and names["1"] == "wall"


def test_everything_is_written_as_coco(scene: Things, model: Path) -> None:
    assert segment(model, "--everything", "--views", "test") == 0
    folder = model / "queries" / "everything"
    file = json.loads((folder / "instances.json").read_text())
    assert [entry["file_name"] for entry in file["images"]] == ["3.png", "7.png"]
    assert len(file["annotations"]) == 8
    for annotation in file["annotations"]:
        name = file["images"][annotation["image_id"] - 1]["file_name"]
        mask = decode_rle(annotation["segmentation"])
        assert annotation["area"] == mask.sum() > 0
        labels = image(folder / "masks" / name)
        assert (mask[labels == annotation["instance_id"]]).all()
    assert {path.name for path in (folder / "parts").iterdir()} == {"001", "002", "003", "004"}


def test_novel_views_are_asked_on_a_path(scene: Things, model: Path) -> None:
    given = at(scene, 2, 3)
    assert segment(model, *given, "--views", "novel", "--num_views", "3", "--name", "path") == 0
    masks = model / "queries" / "path" / "masks"
    assert sorted(path.name for path in masks.rglob("*.png")) == ["00000.png", "00001.png", "00002.png"]
    assert all(image(path).any() for path in masks.rglob("*.png"))


def test_times_are_split_by_stage(scene: Things, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["segment", "-m", str(model), *at(scene, 2, 3), "--views", "test", "--timing", "2"]
    assert main([*arguments, "--name", "timed"]) == 0
    times = json.loads((model / "queries" / "timed" / "timing.json").read_text())
    assert times["rounds"] == 2 and times["query"] > 0
    assert set(times["stages"]) == {"rendering", "decoding", "pictures", "writing"}
    said = capsys.readouterr().out
    assert "for 2 views" in said and "feature-gs decompose" in said


def test_a_query_of_the_same_name_replaces_the_earlier_one(scene: Things, model: Path) -> None:
    assert segment(model, "--everything", "--views", "test", "--name", "twice") == 0
    (model / "queries" / "twice" / "decompose").mkdir()  # of the answer that goes
    assert segment(model, *at(scene, 1, 3), "--views", "test", "--name", "twice") == 0
    left = {path.name for path in (model / "queries" / "twice").iterdir()}
    assert left == {"masks", "overlay", "scores", "query.json", "selection.safetensors"}


def test_what_is_no_query_is_not_overwritten(scene: Things, model: Path) -> None:
    mine = model / "queries" / "mine" / "notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("keep")
    assert segment(model, *at(scene, 1, 3), "--name", "mine") == 2
    assert [path.name for path in mine.parent.iterdir()] == ["notes.txt"]


VIEW = ("--view", "3")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((), "exactly one of"),
        ((*VIEW, "--point", "1", "2", "--everything"), "got --point and --everything"),
        (("--point", "1", "2"), "name it with --view"),
        (("--everything", *VIEW), "--view goes with --point and --box and --patch"),
        (
            (*VIEW, "--box", "1", "2", "3", "4", "--negative_point", "1", "2"),
            "--negative_point goes with --point",
        ),
        ((*VIEW, "--patch", "1", "2", "3", "--per_view"), "--per_view goes with --point and --box"),
        ((*VIEW, "--point", "1", "2", "--threshold", "1"), "--threshold goes with --patch"),
        (("--view", "3.jpg", "--point", "1", "2"), "Did you mean 3.png"),
        ((*VIEW, "--point", "200", "2"), "outside the picture of 96 x 64"),
        ((*VIEW, "--box", "20", "2", "10", "4"), "is empty"),
        ((*VIEW, "--patch", "20", "2", "-1"), "size above 0"),
        ((*VIEW, "--point", "1", "2", "--name", "../out"), "--name '../out'"),
        (("--text", "red,,red"), "each once"),
        (("--text", ","), "expected words"),
        (("--text", "red", "--temperature", "0"), "--temperature must be above 0"),
        (("--everything", "--onnx_path", "sam.onnx"), "--onnx_path is SAM's decoder"),
        (("--everything", "--iteration", "5"), "--iteration can be 7"),
        (("--everything", "--timing", "-1"), "--timing at least 0"),
    ],
)
def test_what_cannot_be_asked_is_said_first(
    model: Path, given: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set((model / "queries").iterdir()) if (model / "queries").is_dir() else set()
    assert segment(model, *given) == 2
    assert message in capsys.readouterr().err
    assert (set((model / "queries").iterdir()) if (model / "queries").is_dir() else set()) == before


def test_a_model_without_features_cannot_be_asked(
    scene: Things, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = scene.save(tmp_path / "plain")
    next(folder.rglob("features.safetensors")).unlink()
    assert segment(folder, "--everything") == 2
    assert "feature-gs lift" in capsys.readouterr().err


def test_a_teacher_without_words_is_not_asked_for_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = make_things()
    scene.field.teacher = "handcrafted"
    assert segment(scene.save(tmp_path / "mute"), "--text", "chair") == 2
    assert "handcrafted, which knows no words" in capsys.readouterr().err


def test_through_a_3x3_decoder_words_label_pixels_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = make_things(decoder=small_decoder("conv3x3"))
    folder = scene.save(tmp_path / "conv")
    assert main(["segment", "-m", str(folder), "--text", "red,green,blue,floor", "--name", "w"]) == 0
    assert "does not decode single Gaussians" in capsys.readouterr().out
    assert not (folder / "queries" / "w" / "selection.safetensors").exists()
    labels = image(folder / "queries" / "w" / "masks" / "3.png")
    true = scene.pixels(1, scene.trained.cameras["test"][0]).numpy()
    assert ((labels == 1) & true).sum() / true.sum() > 0.7
    assert segment(folder, "--view", "3", "--patch", "50", "30", "8") == 2
    assert "conv3x3" in capsys.readouterr().err


class ByColor:
    """In SAM's place: a mask of all cells whose feature is like that at the prompt."""

    def masks(self, features: Any, width: int, height: int, prompt: SamPrompt, **_: Any) -> SamMasks:
        if prompt.points is not None:
            x, y = prompt.points[0].tolist()
        else:
            assert prompt.box is not None
            x, y = ((prompt.box[:2] + prompt.box[2:]) / 2).tolist()
        mask = self._like(
            features, features[:, int(y * features.shape[1] / height), int(x * features.shape[2] / width)]
        )
        full = torch.nn.functional.interpolate(mask[None, None].float(), (height, width))[0] > 0.5
        return SamMasks(full, torch.ones(1), torch.zeros(1, 256, 256))

    def everything(self, features: Any, width: int, height: int, **_: Any) -> list[Any]:
        found = [self._like(features, code) for code in kind_codes()]
        size = (height, width)
        sized = [torch.nn.functional.interpolate(m[None, None].float(), size)[0, 0] > 0.5 for m in found]
        return [type("Segment", (), {"mask": mask})() for mask in sized if mask.any()]

    @staticmethod
    def _like(features: Any, code: Any) -> Any:
        cosine = torch.nn.functional.cosine_similarity(features, code[:, None, None], dim=0)
        return (cosine > 0.8) & (features.norm(dim=0) > 0.5)


@pytest.mark.parametrize("asked", ["point", "box", "per_view", "everything"])
def test_a_model_that_sam_taught_is_asked_through_sam(
    asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make_things()
    scene.field.teacher = "sam_vit_b"
    folder = scene.save(tmp_path / "sam")
    monkeypatch.setattr(SamDecoder, "load", classmethod(lambda cls, *_: ByColor()))
    monkeypatch.setattr(SamDecoder, "cell", staticmethod(lambda width, height: (2.0, 2.0)))
    camera = scene.trained.cameras["test"][0]
    x, y = scene.middle(2, camera)
    prompt = {
        "point": at(scene, 2, 3),
        "per_view": [*at(scene, 2, 3), "--per_view"],
        "box": ["--view", "3", "--box", f"{x - 11}", f"{y - 11}", f"{x + 11}", f"{y + 11}"],
        "everything": ["--everything"],
    }[asked]
    assert segment(folder, *prompt, "--name", "q") == 0
    if asked == "everything":
        assert len([*(folder / "queries" / "q" / "parts").iterdir()]) == 4
        return
    true = scene.pixels(2, camera).numpy()
    mask = image(folder / "queries" / "q" / "masks" / "3.png") > 0
    assert (mask & true).sum() / (mask | true).sum() > 0.8
    if asked != "per_view":
        selection = Selection.load(folder / "queries" / "q" / "selection.safetensors", len(scene.labels))
        own = selection.selected[scene.labels == 2].float().mean()
        assert own > 0.9 and selection.selected[scene.labels != 2].float().mean() < 0.02


def test_without_weights_a_model_that_sam_taught_says_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    scene = make_things()
    scene.field.teacher = "sam_vit_b"
    folder = scene.save(tmp_path / "sam")
    assert segment(folder, *at(scene, 2, 3), "--weights", str(tmp_path / "none.pth")) == 2
    assert "none.pth" in capsys.readouterr().err
    assert not (folder / "queries").exists()


def test_a_saved_scene_is_the_scene(scene: Things, model: Path) -> None:
    """The helper of these tests: what is loaded shows what was made."""
    trained = load_trained(model)
    camera = trained.cameras["test"][0]
    scores = (scene.labels == 1).float()[:, None]
    assert torch.equal(score_images(trained, camera, scores)[..., 0] > 0.5, scene.pixels(1, camera))
    assert len(KINDS) == 4
    with pytest.raises(UserError):
        Selection.load(model / "nothing", 1)
