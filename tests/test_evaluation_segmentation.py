"""Label maps against label maps: one confusion matrix by hand, Feature 3DGS's protocol, the verb."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from blobs import KINDS, make_kinds
from PIL import Image
from taught import CHANNELS, settings, write_taught_blobs

from feature_gs.cli.label_pairs import likeliest
from feature_gs.cli.main import main
from feature_gs.errors import UserError
from feature_gs.evaluation.label_images import cell_labels, label_names, read_label_image, replaced
from feature_gs.evaluation.segmentation import Confusion, feature_3dgs_scores
from feature_gs.features.field import FeatureField
from feature_gs.features.teacher import TeacherStore
from feature_gs.training import train
from feature_gs.training.trained import load_trained


def ids(*rows: str) -> np.ndarray:
    """One digit per pixel."""
    return np.array([[int(digit) for digit in row] for row in rows], dtype=np.int64)


def write(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture.astype(np.uint8)).save(path)


def test_one_matrix_over_two_pictures_by_hand() -> None:
    confusion = Confusion()
    confusion.add(ids("1122", "1122"), ids("1112", "1112"))
    confusion.add(ids("33", "31"), ids("11", "11"))
    scores = confusion.scores()
    # Of 10 true pixels of 1, 5 were found; 2 of 4 predicted 2 are right; 3 is in no label.
    assert scores.classes[1].iou == pytest.approx(5 / 10)
    assert scores.classes[1].accuracy == pytest.approx(5 / 10) and scores.classes[1].pixels == 10
    assert scores.classes[2].iou == pytest.approx(2 / 4) and scores.classes[2].accuracy == 1
    assert scores.miou == pytest.approx(0.5)
    assert scores.pixel_accuracy == pytest.approx(7 / 12)
    assert scores.class_accuracy == pytest.approx(0.75)
    assert scores.only_predicted == [3]


def test_it_is_not_the_mean_over_pictures() -> None:
    confusion = Confusion()
    confusion.add(ids("1" * 9), ids("1" * 9))
    confusion.add(ids("2"), ids("1"))
    assert confusion.scores().miou == pytest.approx(9 / 10)  # pictures alone: 1 and 0


def test_ignored_pixels_count_nowhere() -> None:
    confusion = Confusion(ignore=[0])
    confusion.add(ids("1222"), ids("1200"))
    scores = confusion.scores()
    assert scores.miou == scores.pixel_accuracy == 1 and scores.only_predicted == []
    everything = Confusion(ignore=[0])
    everything.add(ids("12"), ids("00"))
    with pytest.raises(ValueError, match="no pixel"):
        everything.scores()


def test_sizes_must_be_equal() -> None:
    with pytest.raises(ValueError, match="one size"):
        Confusion().add(ids("11"), ids("1", "1"))
    with pytest.raises(ValueError, match="one size"):
        feature_3dgs_scores(ids("11"), ids("1", "1"))


def bands(*shares: tuple[int, int]) -> np.ndarray:
    """A picture of 119 x 159 whose rows are filled with pairs of (label, number of rows)."""
    rows = [np.full((count, 159), label) for label, count in shares]
    return np.concatenate(rows).astype(np.int64)


def test_feature_3dgs_counts_the_seven_most_frequent_labels_only() -> None:
    teacher = bands(*((label, 15) for label in range(3, 10)), (1, 8), (2, 6))
    student = bands(*((label, 15) for label in range(3, 10)), (2, 8), (1, 6))
    accuracy, miou = feature_3dgs_scores(student, teacher)
    assert miou == 1  # 1 and 2, which are wrong everywhere, are the rarest
    assert accuracy == pytest.approx(105 / 119)
    accuracy, miou = feature_3dgs_scores(bands((1, 100), (2, 19)), bands((1, 119)))
    assert miou == pytest.approx((100 / 119 + 0) / 2)


def test_feature_3dgs_looks_at_the_pixels_that_nearest_takes() -> None:
    generator = torch.Generator().manual_seed(0)
    for size in ((360, 480), (119, 159), (100, 50), (301, 477)):
        picture = torch.randint(0, 5, size, generator=generator)
        small = F.interpolate(picture[None, None].float(), size=(119, 159), mode="nearest")[0, 0].long()
        # Against a picture of one label the accuracy counts this label's pixels among those taken.
        accuracy, _ = feature_3dgs_scores(picture.numpy(), np.full(size, 3))
        assert accuracy == pytest.approx((small == 3).double().mean().item())


def test_the_verb_matches_names_and_ids_and_writes_what_it_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "labels/a.png", ids("1155", "1155"))
    write(tmp_path / "labels/left/b.png", ids("0155"))
    write(tmp_path / "labels/unused.png", ids("9"))
    (tmp_path / "labels.json").write_text(json.dumps({"labels": {"0": "void", "1": "Floor", "5": "mug"}}))
    # The predictions have other ids; only the names say which are the same.
    write(tmp_path / "run/masks/a.png", ids("1100", "1177"))
    write(tmp_path / "run/masks/left/b.png", ids("1100"))
    names = {"labels": {"0": "mug", "1": "floor", "7": "cup"}}
    (tmp_path / "run/labels.json").write_text(json.dumps(names))
    command = ["evaluate-segmentation", "--pred", str(tmp_path / "run/masks")]
    command += ["--labels", str(tmp_path / "labels")]
    assert main([*command, "--ignore", "VOID"]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.replace(str(tmp_path), "").splitlines())) <= 80
    found = json.loads((tmp_path / "run/masks/segmentation.json").read_text())
    assert found["pictures"] == 2 and "feature_3dgs" not in found
    assert found["classes"]["1"] == {"name": "Floor", "iou": 1, "accuracy": 1, "pixels": 5}
    assert found["classes"]["5"]["iou"] == pytest.approx(4 / 6)
    assert found["miou"] == pytest.approx(5 / 6) and found["pixel_accuracy"] == pytest.approx(9 / 11)
    assert len(found["only_predicted"]) == 1 and "0.8333" in printed and "cup" in printed

    out = tmp_path / "merged.json"
    options = ["--merge", "cup:mug", "--ignore", "0", "--feature_3dgs", "--output", str(out), "--quiet"]
    assert main([*command, *options]) == 0
    assert capsys.readouterr().out == ""
    merged = json.loads(out.read_text())
    assert merged["miou"] == 1 and merged["only_predicted"] == []
    assert 0 < merged["feature_3dgs"]["miou"] < merged["feature_3dgs"]["accuracy"] < 1  # void counts there


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--ignore", "cat"], "no label 'cat'"),
        (["--merge", "floor"], "takes pairs"),
        (["--ignore", "1"], "nothing is left"),
    ],
)
def test_the_verb_says_what_is_wrong_with_its_flags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], problem: str
) -> None:
    write(tmp_path / "labels/a.png", ids("11"))
    (tmp_path / "labels/labels.json").write_text('{"1": "floor"}')
    write(tmp_path / "pred/a.png", ids("11"))
    folders = ["--pred", str(tmp_path / "pred"), "--labels", str(tmp_path / "labels")]
    assert main(["evaluate-segmentation", *folders, *options]) == 2
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "pred/segmentation.json").exists()


def test_masks_are_not_taken_for_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pred, labels = tmp_path / "pred", tmp_path / "labels"
    write(pred / "a.png", np.array([[0, 255, 255, 0]]))
    write(labels / "a.png", ids("1440"))
    command = ["evaluate-segmentation", "--pred", str(pred), "--labels", str(labels)]
    assert main(command) == 2
    assert "holds masks (0 and 255), and 255 is none of the labels" in capsys.readouterr().err
    assert main([*command, "--merge", "255:4", "--quiet"]) == 0
    assert json.loads((pred / "segmentation.json").read_text())["classes"]["4"]["iou"] == 1
    write(labels / "a.png", np.array([[0, 255, 0, 0]]))  # masks as well
    assert main([*command, "--quiet"]) == 0


def test_the_verb_says_what_is_wrong_with_the_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pred, labels = tmp_path / "pred", tmp_path / "labels"
    command = ["evaluate-segmentation", "--pred", str(pred), "--labels", str(labels)]

    def complaint() -> str:
        assert main(command) == 2
        return capsys.readouterr().err

    assert "no folder" in complaint()
    pred.mkdir()
    assert "no label pictures" in complaint()
    write(pred / "a.png", ids("12"))
    write(labels / "b.png", ids("12"))
    assert "a.png" in complaint()
    write(labels / "a.png", ids("1", "2"))
    assert "2 x 1 and 1 x 2" in complaint()
    (labels / "a.png").write_bytes(b"no picture")
    assert "cannot be read" in complaint()
    write(labels / "a.png", np.zeros((1, 2, 3)))
    assert "colours" in complaint()
    write(labels / "a.png", ids("12"))
    (labels / "labels.json").write_text("[1]")
    assert "names by id" in complaint()


def test_label_pictures_of_all_kinds_hold_ids(tmp_path: Path) -> None:
    picture = np.array([[0, 1], [200, 3]], dtype=np.uint8)
    palette = Image.fromarray(picture, mode="P")
    palette.putpalette([255 - i for i in range(256) for _ in range(3)])
    palette.save(tmp_path / "palette.png")
    Image.fromarray(picture.astype(np.uint16) * 300).save(tmp_path / "deep.png")
    assert (read_label_image(tmp_path / "palette.png") == picture).all()
    assert (read_label_image(tmp_path / "deep.png") == picture.astype(int) * 300).all()
    with pytest.raises(UserError):
        read_label_image(tmp_path / "missing.png")
    assert label_names(tmp_path) == {}


def test_ids_swap_at_once() -> None:
    assert (replaced(ids("123"), {1: 2, 2: 1}) == ids("213")).all()


def test_cells_take_the_label_of_most_of_their_pixels() -> None:
    picture = ids("11223", "12223", "44553")
    # Cells of 2 pixels: the last column and row are narrower.
    assert (cell_labels(picture, 2.5, 1.5, (2, 3)) == ids("123", "453")).all()
    # Cells of 1.5 pixels: a pixel belongs where its centre is, so the second cell has two.
    assert (cell_labels(ids("12234"), 10 / 3, 1, (1, 4)) == ids("1234")).all()
    # Maps may cover less, or hold cells without a pixel.
    assert (cell_labels(picture, 2.5, 1.5, (1, 1)) == ids("1")).all()
    assert (cell_labels(ids("12"), 4, 1, (1, 4)) == np.array([[-1, 1, -1, 2]])).all()


@pytest.fixture
def taught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of the blobs, whose teacher's words are the codes of the three kinds."""
    scene = write_taught_blobs(tmp_path / "scene")
    train(settings(scene, tmp_path / "model", features="lift"))

    class Coded:
        vectors = make_kinds(CHANNELS)[:KINDS]

        @classmethod
        def encode(cls, _: FeatureField, names: list[str], *__: object, **___: object) -> "Coded":
            assert len(names) == KINDS
            return cls()

    monkeypatch.setattr("feature_gs.cli.label_pairs.Words", Coded)
    return tmp_path / "model"


def test_a_model_is_compared_with_its_own_teacher(taught: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate-segmentation", "-m", str(taught), "--text", "left,middle,right"]) == 0
    printed = capsys.readouterr().out
    assert "what the teacher says" in printed and "As Feature 3DGS measures" in printed
    found = json.loads((taught / "segmentation.json").read_text())
    trained = load_trained(taught)
    field = trained.field()
    assert field is not None and found["pictures"] == 2 and found["teacher"] == field.teacher
    # By hand, cell by cell, without any of the verb's helpers.
    codes, pairs = make_kinds(CHANNELS)[:KINDS], []
    store = TeacherStore.open(Path(trained.config.source_path) / "features" / "shared")
    for camera in trained.cameras["test"]:
        view = trained.views()[camera.name]
        teacher = (store.load(view).features.float().permute(1, 2, 0) @ codes.T).argmax(2) + 1
        student = (trained.render_features(field, camera).features @ codes.T).argmax(2) + 1
        pairs.append((student.numpy(), teacher.numpy()))
    equal = np.mean([(student == teacher).mean() for student, teacher in pairs])
    assert found["pixel_accuracy"] == pytest.approx(equal)
    expected = np.mean([feature_3dgs_scores(*pair) for pair in pairs], axis=0)
    assert found["feature_3dgs"] == {"accuracy": expected[0], "miou": expected[1]}
    assert set(found["classes"]) <= {"1", "2", "3"} and found["classes"]["1"]["name"] == "left"

    merge = ["--merge", "left:right", "middle:right", "--quiet"]
    assert main(["evaluate-segmentation", "-m", str(taught), "--text", "left,middle,right", *merge]) == 0
    assert json.loads((taught / "segmentation.json").read_text())["feature_3dgs"]["miou"] == 1


def test_wide_photos_are_compared_at_their_size() -> None:
    maps = torch.randn(7, 11, 5, generator=torch.Generator().manual_seed(0))
    words = F.normalize(torch.randn(4, 5, generator=torch.Generator().manual_seed(1)), dim=1)
    small, large = likeliest(maps, words, None), likeliest(maps, words, (31, 51))
    assert small.shape == (7, 11) and large.shape == (31, 51)
    assert (large[::5, ::5] == small).all()  # corner to corner: these pixels are the cells' own
    assert small.min() >= 1 and small.max() <= 4


def test_the_two_ways_are_not_mixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def complaint(*options: str) -> str:
        assert main(["evaluate-segmentation", *options]) == 2
        return capsys.readouterr().err

    assert "what is compared?" in complaint()
    assert "what is compared?" in complaint("--pred", str(tmp_path))
    assert "--text goes with -m" in complaint("--text", "a", "--pred", str(tmp_path))
    assert "leave out --pred" in complaint("-m", str(tmp_path), "--pred", str(tmp_path))
    assert "compares words" in complaint("-m", str(tmp_path))
    assert "config.json" in complaint("-m", str(tmp_path), "--text", "a,b")
