"""`feature-gs edit` and `decompose`: what they write is a model, what they show is true; also in Python."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from blobs import write_blobs
from taught import calm, settings, write_taught_blobs

import feature_gs
from feature_gs.cli.main import main
from feature_gs.editing.scene import GaussianScene
from feature_gs.errors import UserError
from feature_gs.features.field import FeatureField, field_path
from feature_gs.gaussians import GaussianModel
from feature_gs.queries.selection import FILE_NAME, Selection
from feature_gs.training import train
from feature_gs.training.trained import load_trained, ply_path

VIEW = "0.png"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The blobs with a lifted teacher; a model of sixty Gaussians in `model`, its left third selected."""
    folder = write_taught_blobs(tmp_path_factory.mktemp("scene"))
    train(calm(folder, folder / "model", features="lift"))
    left = load_trained(folder / "model").model.means[:, 0].detach() < -0.2
    scores = torch.where(left, 0.9, 0.1)
    Selection.of(scores, {"kind": "test"}).save(folder / "model" / "queries" / "left" / FILE_NAME)
    return folder


@pytest.fixture(scope="module")
def model(scene: Path) -> Path:
    return scene / "model"


def chosen(model: Path) -> torch.Tensor:
    count = len(load_trained(model).model)
    return Selection.load(model / "queries" / "left" / FILE_NAME, count).selected


def edit(model: Path, tmp_path: Path, edits: object, *options: str) -> Path:
    config, out = tmp_path / "edit.yaml", tmp_path / "out"
    config.write_text(edits if isinstance(edits, str) else yaml.safe_dump({"edits": edits}))
    command = ["edit", "-m", str(model), "--config", str(config), "-o", str(out), "--quiet", *options]
    assert main(command) == 0
    return out


def complaint(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    assert main([*command]) == 2
    return capsys.readouterr().err


def read(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert picture is not None, path
    return picture


def pictures(model: Path, split: str = "test") -> dict[str, np.ndarray]:
    iteration = load_trained(model).iteration
    folder = model / split / f"iteration_{iteration}" / "color"
    return {path.name: read(path) for path in sorted(folder.glob("*.png"))}


def test_nothing_edited_is_the_same_to_the_bit(model: Path, tmp_path: Path) -> None:
    out = edit(model, tmp_path, [])
    there, here = ply_path(model, 150), ply_path(out, 150)
    assert here.read_bytes() == there.read_bytes()
    assert field_path(here).read_bytes() == field_path(there).read_bytes()
    assert (out / "cameras.json").read_bytes() == (model / "cameras.json").read_bytes()
    assert json.loads((out / "config.json").read_text()) == json.loads((model / "config.json").read_text())
    for folder in (model, out):
        assert main(["render", "-m", str(folder), "--skip_train", "--quiet"]) == 0
    first, second = pictures(model), pictures(out)
    assert first.keys() == second.keys() and len(first) == 2
    assert all((first[name] == second[name]).all() for name in first)


def test_what_is_left_keeps_every_bit_and_its_features(model: Path, tmp_path: Path) -> None:
    out = edit(model, tmp_path, [{"delete": "left"}, {"opacity": "all", "factor": 1}])
    before, after = (load_trained(folder) for folder in (model, out))
    kept = ~chosen(model)
    assert 10 < len(after.model) == int(kept.sum()) < len(before.model)
    for name, parameter in before.model.named_parameters():
        assert torch.equal(getattr(after.model, name), parameter[kept]), name
    old, new = before.field(), after.field()
    assert old is not None and new is not None
    assert torch.equal(new.features, old.features[kept]) and torch.equal(new.seen, old.seen[kept])
    assert new.teacher == old.teacher and new.palette is not None


def test_an_edited_model_is_a_model_for_every_verb(scene: Path, model: Path, tmp_path: Path) -> None:
    out = edit(model, tmp_path, [{"rotate": "left", "axis": "z", "degrees": 40}])
    assert main(["render", "-m", str(out), "--novel_view", "--num_views", "2", "--quiet"]) == 0
    assert main(["evaluate", "-m", str(out), "--skip_train", "--quiet"]) == 0
    assert main(["lift", "-m", str(out), "-f", str(scene / "features/own"), "--quiet"]) == 0
    again = edit(out, tmp_path / "out", [{"extract": {"point": [16, 12], "view": VIEW}}])
    assert 0 < len(load_trained(again).model) < len(load_trained(out).model)
    assert (again / "edit.yaml").read_text() == (tmp_path / "out" / "edit.yaml").read_text()


def test_queries_inside_the_edits_are_answered(model: Path, tmp_path: Path) -> None:
    trained = load_trained(model)
    left = chosen(model)
    for number, query in enumerate(
        (
            {"point": [[4, 12]], "negative_point": [28, 12], "view": VIEW},
            {"patch": [5, 12, 5], "view": "0", "smooth": 2, "threshold": 0.4},
            {"box": [0, 0, 11, 24], "view": VIEW, "largest_cluster": True},
            {"selection": "left", "drop_hidden": 1e-6},
            str(model / "queries" / "left" / FILE_NAME),
        )
    ):
        (tmp_path / str(number)).mkdir()
        found = load_trained(edit(model, tmp_path / str(number), [{"extract": query}])).model
        assert 0 < len(found) < 40, query
        assert (found.means[:, 0] < 0).float().mean() > 0.8, query
    assert len(found) == int(left.sum()) < len(trained.model)


def test_another_model_is_inserted_with_its_features(model: Path, tmp_path: Path) -> None:
    edits = [
        {"insert": str(model), "as": "guest", "selection": "left"},
        {"translate": "guest", "by": [0, 1, 0]},
        {"insert": str(ply_path(model, 150))},
    ]
    after, before = load_trained(edit(model, tmp_path, edits)), load_trained(model)
    left, count = chosen(model), len(before.model)
    part = slice(count, count + int(left.sum()))
    assert len(after.model) == 2 * count + int(left.sum())
    moved = before.model.means[left] + torch.tensor([0.0, 1, 0])
    assert torch.allclose(after.model.means[part], moved)
    old, new = before.field(), after.field()
    assert old is not None and new is not None
    assert torch.equal(new.features[part], old.features[left])
    assert torch.equal(new.features[-count:], old.features)


def test_features_in_the_ply_follow_too(scene: Path, tmp_path: Path) -> None:
    train(settings(scene, tmp_path / "columns", features="lift", ply_features=True))
    count = len(load_trained(tmp_path / "columns").model)
    half = torch.arange(count) % 2 == 0
    Selection.of(half.float()).save(tmp_path / "half.safetensors")
    out = edit(tmp_path / "columns", tmp_path, [{"extract": str(tmp_path / "half.safetensors")}])
    ply = ply_path(out, load_trained(out).iteration)
    columns = GaussianModel.load_ply(ply, features=True).features
    assert columns is not None and len(columns) == int(half.sum())
    assert torch.allclose(columns, FeatureField.load(field_path(ply), len(columns)).features, atol=2e-3)


def test_what_cannot_be_edited_is_said_and_nothing_is_written(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, out = tmp_path / "edit.yaml", tmp_path / "out"
    command = ("edit", "-m", str(model), "--config", str(config), "-o", str(out))

    def said(edits: object, *options: str) -> str:
        config.write_text(yaml.safe_dump({"edits": edits}))
        return complaint(capsys, *command, *options)

    assert "cannot read" in complaint(capsys, *command)
    assert "line 2: 'nobody' is no selection" in said([{"delete": "nobody"}])
    assert "there are: left" in said([{"delete": "nobody"}])
    assert "no view 'z.png'" in said([{"delete": {"point": [1, 2], "view": "z.png"}}])
    assert "lies outside" in said([{"delete": {"point": [99, 2], "view": VIEW}}])
    assert "knows no words" in said([{"delete": {"text": "mug"}}])
    assert "line 2: insert: there is no file" in said([{"insert": str(tmp_path / "none")}])
    assert "has no iteration 7" in said([], "--iteration", "7")
    assert not out.exists()
    assert "the model itself" in complaint(capsys, *command[:-1], str(model))
    written = edit(model, tmp_path, [])
    assert "already holds a model" in complaint(capsys, *command)
    assert edit(model, tmp_path, [{"delete": "left"}], "--overwrite") == written
    assert len(load_trained(written).model) < len(load_trained(model).model)


def test_a_model_without_features_can_be_edited_but_not_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blobs = write_blobs(tmp_path / "blobs")
    train(settings(blobs, tmp_path / "plain", foundation_model=""))
    out = edit(tmp_path / "plain", tmp_path, [{"recolour": "all", "to": "teal"}])
    assert load_trained(out).field() is None
    config = tmp_path / "edit.yaml"
    config.write_text(yaml.safe_dump({"edits": [{"delete": {"point": [1, 1], "view": "2.png"}}]}))
    command = ("edit", "-m", str(tmp_path / "plain"), "--config", str(config), "-o", str(tmp_path / "new"))
    assert "has no features" in complaint(capsys, *command)


def test_the_files_of_feature_3dgs_select_by_words(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With words that are the codes of the kinds, its softmax picks the left ones."""
    left, own = chosen(model), tmp_path / "own"
    shutil.copytree(model, own)
    field = load_trained(model).field()
    assert field is not None
    field.seen[torch.nonzero(left)[:3, 0]] = False  # what no view shows has no feature to go by
    field.save(field_path(ply_path(own, 150)))
    means = [field.features[rows].mean(0) for rows in (left, ~left)]
    vectors = torch.nn.functional.normalize(torch.stack(means), dim=1)

    class Words:
        def __init__(self) -> None:
            self.vectors = vectors

        @classmethod
        def encode(cls, field: FeatureField, names: list[str], *_: object, **__: object) -> "Words":
            assert names == ["left blob", "rest"]
            return cls()

    monkeypatch.setattr("feature_gs.editing.answer.Words", Words)
    theirs = {"objects": ["left_blob", "rest"], "targets": "left_blob", "operations": "deletion"}
    out = edit(own, tmp_path, yaml.safe_dump({"edit": {**theirs, "threshold": None}}))
    unit = torch.nn.functional.normalize(field.features, dim=1)
    removed = ((unit @ vectors.T).argmax(dim=1) == 0) & field.seen
    assert 5 < int(removed.sum()) < 40
    assert torch.equal(load_trained(out).model.means, load_trained(model).model.means[~removed])


def test_of_a_model_that_sam_taught_sam_is_asked(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = feature_gs.load(model)
    assert loaded.field is not None
    taught = GaussianScene(loaded.trained, replace(loaded.field, teacher="sam_vit_b?x=1"))
    asked: list[object] = []

    def load(*arguments: object, device: torch.device) -> str:
        asked.append((*arguments, device))
        return "the decoder"

    def ask(*_: object, sam: object) -> Selection:
        asked.append(sam)
        return Selection.of(torch.ones(len(loaded)))

    monkeypatch.setattr("feature_gs.editing.answer.SamDecoder.load", load)
    monkeypatch.setattr("feature_gs.editing.answer.ask_points", ask)
    monkeypatch.setattr("feature_gs.editing.answer.ask_box", ask)
    taught.select(point=(1, 1), view=VIEW, weights=tmp_path)
    taught.select(box=(1, 1, 2, 2), view=VIEW)
    there = loaded.trained.model.means.device
    calls = [("sam_vit_b", tmp_path, there), "the decoder", ("sam_vit_b", None, there), "the decoder"]
    assert asked == calls


def test_decompose_shows_all_only_it_and_the_rest(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", "-m", str(model), "--quiet"]) == 0
    assert main(["decompose", "-m", str(model), "--selection", "left", "--views", "all"]) == 0
    folder = model / "queries" / "left" / "decompose"
    assert str(folder) in capsys.readouterr().out
    plain = {**pictures(model), **pictures(model, "train")}
    assert {path.name for path in (folder / "all").iterdir()} == set(plain)
    alone = feature_gs.load(model)
    only = alone.only(alone.select(selection="left"))
    for name, picture in plain.items():
        assert (read(folder / "all" / name) == picture).all()  # to the bit
        alpha = read(folder / "only_alpha" / name)
        expected = only.render(name).alpha[0]
        assert np.abs(alpha / 255 - expected.numpy()).max() <= 0.5 / 255 + 1e-6
        # Where the selection is not, the rest is all there is; where it alone is, nothing of the rest is.
        assert (read(folder / "without" / name)[alpha == 0] == picture[alpha == 0]).all()
        assert (read(folder / "only" / name)[alpha == 0] == 0).all()
    assert read(folder / "strip.png").shape[2] == 3


def test_decompose_softly_and_elsewhere(model: Path, tmp_path: Path) -> None:
    scores = Selection.load(model / "queries/left" / FILE_NAME, len(load_trained(model).model))
    scores.save(tmp_path / "some.safetensors")
    command = ["decompose", "-m", str(model), "--selection", str(tmp_path / "some.safetensors"), "--soft"]
    assert main([*command, "--views", "novel", "--num_views", "2", "--quiet"]) == 0
    assert len(list((tmp_path / "decompose" / "only").glob("*.png"))) == 2
    assert main([*command, "--output", str(tmp_path / "soft"), "--quiet"]) == 0
    loaded = feature_gs.load(model)
    soft, hard = (loaded.only(scores, soft=soft) for soft in (True, False))
    assert len(soft) == len(loaded) > len(hard)
    alpha = read(tmp_path / "soft" / "only_alpha" / VIEW) / 255
    assert np.abs(alpha - soft.render(VIEW).alpha[0].numpy()).max() < 0.003
    assert soft.trained.model.opacities.allclose(loaded.trained.model.opacities * scores.scores, atol=1e-6)
    rest = loaded.without(scores, soft=True).trained.model.opacities
    assert rest.allclose(loaded.trained.model.opacities * (1 - scores.scores), atol=1e-6)


def test_decompose_cleans_up_first(model: Path, tmp_path: Path) -> None:
    command = ["decompose", "-m", str(model), "--selection", "left", "--quiet", "--views", "test"]
    for name, options in {
        "all": ["--threshold", "0.05", "--largest_cluster"],
        "hidden": ["--drop_hidden", "0.2", "--smooth", "1"],
    }.items():
        assert main([*command, "--output", str(tmp_path / name), *options]) == 0
    full = read(tmp_path / "all" / "all" / VIEW)
    assert (read(tmp_path / "all" / "only" / VIEW) == full).mean() > 0.5
    assert read(tmp_path / "hidden" / "only_alpha" / VIEW).sum() > 0


def test_decompose_says_what_is_wrong(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("decompose", "-m", str(model), "--selection")
    assert "no selection" in complaint(capsys, *command, "right")
    assert "between 0 and 1" in complaint(capsys, *command, "left", "--threshold", "2")
    assert "between 0 and 1" in complaint(capsys, *command, "left", "--drop_hidden", "nan")
    # Before anything is read.
    elsewhere = ("decompose", "-m", str(model / "none"), "--selection", "left")
    assert "smooth must be" in complaint(capsys, *elsewhere, "--smooth", "100000000")
    assert "at least 1" in complaint(capsys, *command, "left", "--views", "novel", "--num_views", "0")


def test_decompose_says_that_a_selection_is_empty(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = tmp_path / "pictures"
    command = ("decompose", "-m", str(model), "--output", str(pictures), "--selection")
    said = complaint(capsys, *command, "left", "--threshold", "0.95")
    assert "The selection holds no Gaussian: " in said and "the highest score is 0.9." in said
    nothing = tmp_path / "nothing.safetensors"
    Selection.of(torch.zeros(len(load_trained(model).model))).save(nothing)
    for options in ((), ("--soft",)):
        assert "The selection holds no Gaussian: " in complaint(capsys, *command, str(nothing), *options)
    assert "--drop_hidden 1 drops all" in complaint(capsys, *command, "left", "--drop_hidden", "1")
    assert not pictures.exists()
    # Softly, scores below the threshold show, too.
    assert main([*command, "left", "--threshold", "0.95", "--soft", "--quiet"]) == 0


def test_the_scene_in_python(model: Path, tmp_path: Path) -> None:
    loaded = feature_gs.load(model)
    assert isinstance(loaded, GaussianScene) and VIEW in loaded.views
    left = loaded.select(point=(4, 12), negative_point=(28, 12), view=VIEW)
    only, rest = loaded.only(left), loaded.without(left)
    assert 0 < len(only) < len(loaded) and len(only) + len(rest) == len(loaded)
    assert torch.equal(rest.render("0").color, rest.render(VIEW).color)
    assert torch.equal(
        loaded.render(VIEW).color,
        load_trained(model)
        .render(next(camera for camera in load_trained(model).cameras["test"] if camera.name == VIEW))
        .color,
    )
    again = rest.select(point=(16, 12), view=VIEW)  # what is left can be asked again
    assert len(again) == len(rest)
    saved = rest.save(tmp_path / "rest")
    assert len(GaussianModel.load_ply(saved)) == len(rest)
    reloaded = feature_gs.load(tmp_path / "rest")
    assert torch.equal(reloaded.render(VIEW).color, rest.render(VIEW).color)
    (tmp_path / "edit.yaml").write_text("edits:\n - recolour: left\n   to: red\n")
    red = loaded.edited(tmp_path / "edit.yaml")
    assert len(red) == len(loaded) and not torch.equal(red.render(VIEW).color, loaded.render(VIEW).color)
    both = left | loaded.select(selection="left")
    assert len(loaded.only(both)) + len(loaded.only(~both)) == len(loaded)


def test_the_scene_in_python_takes_one_query_at_a_time(model: Path) -> None:
    loaded = feature_gs.load(model)
    with pytest.raises(ValueError, match="exactly one"):
        loaded.select()
    with pytest.raises(ValueError, match="exactly one"):
        loaded.select(point=(1, 1), box=(1, 1, 2, 2), view=VIEW)
    with pytest.raises(ValueError, match="needs the view"):
        loaded.select(point=(1, 1))


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        (
            {"box": (1, 1, 9, 9), "view": VIEW, "negative_point": (2, 2)},
            "negative_point does not go with box",
        ),
        ({"selection": "left", "negative_point": (2, 2)}, "negative_point does not go with selection"),
        ({"selection": "left", "view": VIEW}, "view does not go with selection"),
        ({"text": "mug", "view": VIEW}, "view does not go with text"),
        ({"point": (4, 12), "view": VIEW, "negative_text": "cup"}, "negative_text does not go with point"),
        ({"point": "40 30", "view": VIEW}, "point must be 2 numbers, got '40 30'"),
        ({"point": 40, "view": VIEW}, "point must be 2 numbers, got 40"),
        ({"point": (), "view": VIEW}, r"point must be 2 numbers, got \(\)"),
        ({"point": (1, 2, 3), "view": VIEW}, r"point must be 2 numbers, got \(1, 2, 3\)"),
        ({"point": ("1", "2"), "view": VIEW}, "point must be 2 numbers"),
        ({"point": (1, float("nan")), "view": VIEW}, "point must be 2 numbers"),
        ({"point": [(4, 12), 7], "view": VIEW}, "point must be 2 numbers"),
        ({"point": np.zeros((2, 3)), "view": VIEW}, "point must be 2 numbers"),
        ({"point": (1, 2), "negative_point": (3,), "view": VIEW}, "negative_point must be 2 numbers"),
        ({"box": (1, 2, 3), "view": VIEW}, r"box must be 4 numbers, got \(1, 2, 3\)"),
        ({"patch": torch.ones(2), "view": VIEW}, "patch must be 3 numbers, got tensor"),
        ({"point": (4, 12), "view": 5}, "view must be the name of a photo, got 5"),
    ],
)
def test_the_scene_in_python_refuses_what_a_query_does_not_take(
    model: Path, query: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        feature_gs.load(model).select(**query)


def test_the_scene_in_python_takes_arrays_and_tensors(model: Path) -> None:
    loaded = feature_gs.load(model)
    expected = loaded.select(point=(4, 12), negative_point=(28, 12), view=VIEW)
    ways: list[tuple[Any, Any]] = [
        (np.array([4, 12]), np.array([[28.0, 12.0]])),
        (torch.tensor([[4.0, 12.0]]), torch.tensor([28, 12])),
        ([np.array([4, 12])], [torch.tensor(28.0), np.float32(12)]),
    ]
    for point, negative in ways:
        found = loaded.select(point=point, negative_point=negative, view=VIEW)
        assert torch.equal(found.scores, expected.scores)
        json.dumps(found.query)  # as it is saved
    boxes = [loaded.select(box=box, view=VIEW) for box in ((0, 0, 11, 24), np.array([0, 0, 11, 24]))]
    assert torch.equal(boxes[0].scores, boxes[1].scores)
    with pytest.raises(ValueError, match="a camera or the name of a photo, got 5"):
        loaded.render(5)  # type: ignore[arg-type]


def test_the_scene_in_python_knows_its_limits_and_its_selections(model: Path) -> None:
    loaded = feature_gs.load(model)
    left = loaded.select(selection="left")
    for name, value in (("threshold", 5), ("drop_hidden", 9), ("smooth", -3)):
        with pytest.raises(UserError, match=f"{name} must be"):
            loaded.select(selection="left", **{name: value})  # type: ignore[arg-type]
    part = loaded.only(left)
    for change in (part.only, part.without):
        for soft in (False, True):
            with pytest.raises(
                UserError, match=rf"is of {len(loaded)} Gaussians, the scene has {len(part)}: "
            ):
                change(left, soft=soft)
