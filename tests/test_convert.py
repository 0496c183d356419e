"""From photos to a scene, all the way: with COLMAP as a library once, and then around what that found."""

import _thread
import os
import re
import shlex
import shutil
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest
import torch
from fake_colmap import FakeColmap
from PIL import Image
from room_corner import SIZE, corner_pose, photograph

from feature_gs.cli.main import main
from feature_gs.errors import UserError
from feature_gs.rendering.video import write_video
from feature_gs.scenes import load_scene
from feature_gs.scenes.conversion import ConvertConfig, convert, pipeline, reconstruction
from feature_gs.scenes.conversion import database as colmap_database
from feature_gs.scenes.conversion.colmap_library import ColmapLibrary
from feature_gs.scenes.conversion.colmap_process import Command

COUNT = 5
NAMES = ["Nähe/corner 4.png", *(f"corner {i}.png" for i in range(COUNT - 1))]


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A scene converted by the library, with a space and umlauts in its path, and what was said."""
    scene = tmp_path_factory.mktemp("convert") / "Schöne Szene"
    for name in NAMES:
        path = scene / "input" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph(corner_pose(int(path.stem[-1]), COUNT))).save(path)
    said: list[str] = []
    made = convert(ConvertConfig(scene, quiet=True), said.append)
    assert (made.photos, made.placed) == (COUNT, COUNT)
    assert made.points > 500
    assert made.error < 0.5
    return scene, said


@pytest.fixture
def scene(once: tuple[Path, list[str]], tmp_path: Path) -> Path:
    """A copy of the converted scene."""
    return Path(shutil.copytree(once[0], tmp_path / "scene"))


@pytest.fixture
def fake(once: tuple[Path, list[str]], tmp_path: Path) -> FakeColmap:
    return FakeColmap(tmp_path / "programs", once[0] / "distorted")


@pytest.fixture
def bare(once: tuple[Path, list[str]], tmp_path: Path) -> Path:
    """A scene of which there are only the photos."""
    shutil.copytree(once[0] / "input", tmp_path / "bare" / "input")
    return tmp_path / "bare"


def run(scene: Path, **flags: Any) -> list[str]:
    said: list[str] = []
    convert(ConvertConfig(scene, quiet=True, **flags), said.append)
    return said


def stamps(scene: Path) -> dict[str, int]:
    """When the files of a scene were written, the record aside."""
    files = [path for path in scene.rglob("*") if path.is_file() and path.name != "convert.json"]
    return {path.relative_to(scene).as_posix(): path.stat().st_mtime_ns for path in files}


def test_poses_are_the_true_ones(once: tuple[Path, list[str]]) -> None:
    model = pycolmap.Reconstruction(str(once[0] / "sparse" / "0"))
    assert sorted(image.name for image in model.images.values()) == NAMES
    poses = {name: corner_pose(int(Path(name).stem[-1]), COUNT) for name in NAMES}
    centers = np.array([-poses[name][:3, :3].T @ poses[name][:3, 3] for name in NAMES])
    options = pycolmap.RANSACOptions(max_error=0.05)
    world = pycolmap.align_reconstruction_to_locations(model, NAMES, centers, 3, options)
    assert world is not None
    model.transform(world)
    for image in model.images.values():
        pose = poses[image.name]
        assert np.linalg.norm(image.projection_center() - -pose[:3, :3].T @ pose[:3, 3]) < 0.005
        turn = image.cam_from_world().rotation.matrix() @ pose[:3, :3].T
        assert np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))) < 0.5


def test_the_scene_can_be_trained_on(once: tuple[Path, list[str]]) -> None:
    scene = load_scene(once[0])
    assert [view.camera.name for view in scene.train] == NAMES
    assert scene.messages == []
    for view in scene.train:
        assert view.load().shape == (view.camera.height, view.camera.width, 3)
        assert torch.allclose(
            view.camera.K[:2, 2] * 2, torch.tensor([view.camera.width, view.camera.height]) * 1.0
        )
    assert once[1] == []


def test_folders_have_the_names_everybody_expects(once: tuple[Path, list[str]]) -> None:
    found = {path.relative_to(once[0]).as_posix() for path in once[0].rglob("*") if path.is_file()}
    parts = ("cameras.bin", "images.bin", "points3D.bin")
    assert found >= {f"{folder}/0/{part}" for folder in ("sparse", "distorted/sparse") for part in parts}
    assert found >= {f"{folder}/{name}" for folder in ("input", "images") for name in NAMES}
    assert "distorted/database.db" in found
    hidden = [path for path in found if "/." in f"/{path}"]
    assert hidden == []


def test_what_is_done_is_not_done_again(scene: Path) -> None:
    before = stamps(scene)
    assert run(scene) == ["models: done before, kept", "undistorted: done before, kept"]
    assert stamps(scene) == before
    (scene / "distorted" / "database.db").unlink()  # the largest file, of no more use
    assert run(scene) == ["models: done before, kept", "undistorted: done before, kept"]


def test_from_the_distorted_model_alone(once: tuple[Path, list[str]], scene: Path) -> None:
    shutil.rmtree(scene / "images")
    shutil.rmtree(scene / "sparse")
    (scene / "distorted" / "database.db").unlink()
    (scene / "distorted" / "convert.json").unlink()
    run(scene, skip_matching=True)
    for name in [*(f"images/{name}" for name in NAMES), "sparse/0/cameras.bin", "sparse/0/points3D.bin"]:
        assert (scene / name).read_bytes() == (once[0] / name).read_bytes()
    assert run(scene, skip_matching=True) == ["undistorted: done before, kept"]


def test_the_command_of_the_readers_message_mends_the_scene(
    once: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """COLMAP's own folders, never undistorted: the reader refuses them and says what to do."""
    scene = tmp_path / "a scene"
    shutil.copytree(once[0] / "input", scene / "images")
    shutil.copytree(once[0] / "distorted" / "sparse", scene / "sparse")
    with pytest.raises(UserError, match="is of model OPENCV") as error:
        load_scene(scene)
    command = re.search(r"python convert\.py (.*)$", str(error.value))
    assert command is not None
    assert main(["convert", *shlex.split(command[1])]) == 0
    assert f"next:   feature-gs train -s '{scene}'" in capsys.readouterr().out
    assert len(load_scene(scene).train) == COUNT
    for name in NAMES:
        assert (scene / "input" / name).read_bytes() == (once[0] / "input" / name).read_bytes()
    shutil.rmtree(scene / "sparse")  # as if killed between the two moves
    shutil.rmtree(scene / "images")
    (scene / "input").rename(scene / "images")
    run(scene, skip_matching=True)
    assert len(load_scene(scene).train) == COUNT


def test_sizes_follow_the_photos(scene: Path) -> None:
    run(scene, resize=True)
    with Image.open(scene / "images" / NAMES[0]) as image:
        width, height = image.size
    for factor in (2, 4, 8):
        with Image.open(scene / f"images_{factor}" / NAMES[0]) as image:
            assert image.size == (round(width / factor), round(height / factor))
    assert len(load_scene(scene, images="images_4").train) == COUNT
    assert "images_8: done before, kept" in run(scene, resize=True)
    run(scene, skip_matching=True, overwrite=True)
    assert not (scene / "images_2").exists()  # of photos that are gone


def test_a_photo_on_its_side_comes_out_upright(once: tuple[Path, list[str]], scene: Path) -> None:
    name = NAMES[2]
    with Image.open(scene / "input" / name) as image:
        exif = image.getexif()
        exif[274] = 6
        image.save(scene / "input" / name, exif=exif)
    with pytest.raises(UserError, match="made of another model"):
        run(scene, skip_matching=True)
    said = run(scene, skip_matching=True, overwrite=True)
    assert said == [
        f"1 of 5 photos stored sideways (EXIF orientation), which COLMAP will see, upright in images/: {name}"
    ]
    flat = np.asarray(Image.open(once[0] / "images" / name))
    assert np.array_equal(np.asarray(Image.open(scene / "images" / name)), np.rot90(flat, -1))
    plain = {view.camera.name: view.camera for view in load_scene(once[0]).train}
    for view in load_scene(scene).train:
        old = plain[view.camera.name]
        if view.camera.name == name:
            assert (view.camera.width, view.camera.height) == (old.height, old.width)
            assert torch.allclose(view.camera.center, old.center, atol=1e-5)
        else:
            assert torch.allclose(view.camera.cam_from_world, old.cam_from_world, atol=1e-6)


# --- interrupted --------------------------------------------------------------------------------------------


def test_features_go_on_where_they_were_left(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extract, whole = ColmapLibrary.extract, reconstruction.run
    todo: list[list[str]] = []

    def two(self: ColmapLibrary, path: Path, photos: Path, names: list[str], *rest: Any) -> Command:
        todo.append(names)
        return extract(self, path, photos, names[:2], *rest)

    def killed(*arguments: Any) -> None:
        whole(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(ColmapLibrary, "extract", two)
    monkeypatch.setattr(reconstruction, "run", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(bare)
    assert todo == [NAMES, NAMES[2:]]
    finished = colmap_database.finished_photos(bare / "distorted" / "database.db")
    assert finished.keys() == set(NAMES[:4])
    assert len(set(finished.values())) == 1  # one calibration, as without the interruption


@pytest.mark.parametrize("stage", ["exhaustive_matcher", "mapper"])
def test_a_stage_that_did_not_end_is_done_again(
    bare: Path, once: tuple[Path, list[str]], tmp_path: Path, fake: FakeColmap, stage: str
) -> None:
    failing = FakeColmap(tmp_path / "failing", once[0] / "distorted", failing=stage)
    with pytest.raises(UserError, match="COLMAP failed"):
        run(bare, colmap_executable=str(failing.path))
    assert not (bare / "distorted" / "sparse").exists()
    said = run(bare, colmap_executable=str(fake.path))
    kept = {"exhaustive_matcher": ["features"], "mapper": ["features", "matches"]}[stage]
    assert said == [f"{name}: done before, kept" for name in kept]
    assert len(load_scene(bare).train) == COUNT


def test_ctrl_c_ends_colmap_too(bare: Path, once: tuple[Path, list[str]], tmp_path: Path) -> None:
    hanging = FakeColmap(tmp_path / "hanging", once[0] / "distorted", hanging="mapper")

    def press() -> None:
        while len(hanging.calls()) < 3:
            time.sleep(0.02)
        _thread.interrupt_main()

    threading.Thread(target=press).start()
    with pytest.raises(KeyboardInterrupt):
        run(bare, colmap_executable=str(hanging.path))
    with pytest.raises(ProcessLookupError):
        os.kill(hanging.last_process(), 0)


def test_the_library_ends_when_its_caller_has_gone(bare: Path) -> None:
    """Two that write to one database would damage it."""
    database = bare / "database.db"
    command = ColmapLibrary(False).extract(database, bare / "input", NAMES, "OPENCV", None)
    process = subprocess.Popen(command.arguments, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    process.communicate(command.task.encode())  # and closes its input, as the end of this process would
    assert process.returncode == 1
    assert len(colmap_database.finished_photos(database)) < COUNT


def test_half_written_folders_are_not_trusted(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pipeline.undistort

    def killed(model: Any, photos: Any, output: Path, **rest: Any) -> None:
        (output / "images").mkdir()
        (output / "images" / NAMES[1]).write_bytes(b"half")
        raise KeyboardInterrupt

    shutil.rmtree(scene / "images")
    monkeypatch.setattr(pipeline, "undistort", killed)
    with pytest.raises(KeyboardInterrupt):
        run(scene)
    assert not (scene / "images").exists()
    monkeypatch.setattr(pipeline, "undistort", whole)
    run(scene)
    assert len(load_scene(scene).train) == COUNT
    assert not (scene / "distorted" / ".undistorted").exists()


def test_killed_between_two_folders(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """images/ is new and sparse/ is old: the next run puts the rest in place, without being asked again."""
    whole, calls = pipeline.install, []

    def killed(made: Path, target: Path) -> None:
        calls.append(target.name)
        if target.name == "sparse":
            raise KeyboardInterrupt
        whole(made, target)

    (scene / "sparse" / "0" / "cameras.bin").write_bytes(b"old")
    monkeypatch.setattr(pipeline, "install", killed)
    with pytest.raises(KeyboardInterrupt):
        run(scene, skip_matching=True, overwrite=True)
    assert calls == ["images", "sparse"]
    assert (scene / "sparse" / "0" / "cameras.bin").read_bytes() == b"old"
    monkeypatch.setattr(pipeline, "install", whole)
    monkeypatch.setattr(pipeline, "undistort", None)  # it is not needed again
    run(scene, skip_matching=True)
    assert len(load_scene(scene).train) == COUNT


def test_a_damaged_database_is_made_anew(scene: Path, fake: FakeColmap) -> None:
    shutil.rmtree(scene / "distorted" / "sparse")
    shutil.rmtree(scene / "images")
    shutil.rmtree(scene / "sparse")
    path = scene / "distorted" / "database.db"
    path.write_bytes(path.read_bytes()[:50_000])
    said = run(scene, colmap_executable=str(fake.path))
    assert said == [f"{path} is damaged and made anew"]
    assert [stage for stage, _, _ in fake.calls()] == ["feature_extractor", "exhaustive_matcher", "mapper"]


# --- what is there already ----------------------------------------------------------------------------------


def test_other_photos_need_a_word(scene: Path, fake: FakeColmap) -> None:
    (scene / "input" / NAMES[1]).unlink()
    with pytest.raises(UserError, match=r"images and sparse already, made of other photos.*--overwrite"):
        run(scene, colmap_executable=str(fake.path))
    with pytest.raises(UserError, match="made of other photos or with other settings"):
        run(scene, camera="SIMPLE_RADIAL", colmap_executable=str(fake.path))
    assert fake.calls() == []


def test_overwriting_starts_anew_once_and_then_goes_on(scene: Path, tmp_path: Path, fake: FakeColmap) -> None:
    failing = FakeColmap(tmp_path / "failing", scene / "distorted", failing="mapper")
    shutil.copytree(scene / "distorted", tmp_path / "kept")
    failing = FakeColmap(tmp_path / "failing", tmp_path / "kept", failing="mapper")
    with pytest.raises(UserError, match=r"COLMAP failed \(mapping, exit code 3\)"):
        run(scene, overwrite=True, colmap_executable=str(failing.path))
    assert len(load_scene(scene).train) == COUNT  # what was there is there until the new is whole
    said = run(scene, overwrite=True, colmap_executable=str(fake.path))
    assert said == ["features: done before, kept", "matches: done before, kept"]
    assert [stage for stage, _, _ in fake.calls()] == ["mapper"]
    run(scene, overwrite=True, colmap_executable=str(fake.path))
    assert [stage for stage, _, _ in fake.calls()][1:] == [
        "feature_extractor",
        "exhaustive_matcher",
        "mapper",
    ]


@pytest.mark.parametrize("name", ["database.db", "sparse"])
def test_a_reconstruction_of_somebody_else(scene: Path, fake: FakeColmap, name: str) -> None:
    for folder in ("images", "sparse"):
        shutil.rmtree(scene / folder)
    distorted = scene / "distorted"
    (distorted / "convert.json").unlink()
    shutil.rmtree(distorted / "sparse") if name != "sparse" else (distorted / "database.db").unlink()
    with pytest.raises(UserError, match=r"has not made.*--skip_matching.*--overwrite"):
        run(scene, colmap_executable=str(fake.path))
    run(scene, overwrite=True, colmap_executable=str(fake.path))
    assert len(load_scene(scene).train) == COUNT


def test_smaller_photos_of_somebody_else(scene: Path) -> None:
    (scene / "images_4").mkdir()
    with pytest.raises(UserError, match=r"--resize: .*images_4 is there already"):
        run(scene, resize=True)
    assert not (scene / "images_2").exists()


# --- programs -----------------------------------------------------------------------------------------------


def test_how_a_program_is_called(bare: Path, fake: FakeColmap) -> None:
    run(bare, colmap_executable=str(fake.path), camera="SIMPLE_RADIAL")
    (features, matching, mapping) = fake.calls()
    database = str(bare / "distorted" / "database.db")
    assert Path(features[1].pop("--image_list_path")).parent == bare / "distorted"
    assert features == (
        "feature_extractor",
        {
            "--database_path": database,
            "--image_path": str(bare / "input"),
            "--ImageReader.single_camera": "1",
            "--ImageReader.camera_model": "SIMPLE_RADIAL",
            "--FeatureExtraction.use_gpu": "1",
        },
        NAMES,
    )
    assert matching[0] == "exhaustive_matcher"
    assert matching[1]["--database_path"] == database
    assert matching[1]["--FeatureMatching.use_gpu"] == "1"
    assert mapping[0] == "mapper"
    assert mapping[1]["--image_path"] == str(bare / "input")
    assert mapping[1]["--Mapper.ba_global_function_tolerance"] == "1e-06"
    assert len(load_scene(bare).train) == COUNT
    logs = [bare / "distorted" / "log" / f"{name}.log" for name in ("features", "matching", "mapping")]
    assert [log.read_text() for log in logs] == [f"{stage} said this\n" for stage, _, _ in fake.calls()]


def test_older_programs_have_other_flags(bare: Path, once: tuple[Path, list[str]], tmp_path: Path) -> None:
    options = ("--SiftExtraction.use_gpu", "--SiftMatching.use_gpu")
    old = FakeColmap(tmp_path / "old", once[0] / "distorted", options=options)
    run(bare, colmap_executable=str(old.path), no_gpu=True, matcher="sequential")
    (features, matching, _) = old.calls()
    assert features[1]["--SiftExtraction.use_gpu"] == "0"
    assert matching[0] == "sequential_matcher"
    assert matching[1]["--SiftMatching.use_gpu"] == "0"


def test_a_program_looks_photos_up_in_a_tree(bare: Path, fake: FakeColmap, tmp_path: Path) -> None:
    tree = tmp_path / "tree.bin"
    tree.touch()
    run(bare, colmap_executable=str(fake.path), matcher="vocabtree", vocab_tree=tree)
    assert fake.calls()[1][0] == "vocab_tree_matcher"
    assert fake.calls()[1][1]["--VocabTreeMatching.vocab_tree_path"] == str(tree)


def test_a_program_that_fails(bare: Path, once: tuple[Path, list[str]], tmp_path: Path) -> None:
    program = FakeColmap(tmp_path / "p", once[0] / "distorted", failing="exhaustive_matcher")
    with pytest.raises(UserError, match=r"COLMAP failed \(matching, exit code 3\)") as error:
        run(bare, colmap_executable=str(program.path))
    assert str(error.value).endswith("exhaustive_matcher said this\n  and then that it cannot go on")


def test_what_is_no_colmap(bare: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such program"):
        run(bare, colmap_executable=str(tmp_path / "nothing"))
    echo = shutil.which("echo")
    assert echo is not None
    with pytest.raises(UserError, match="is not COLMAP: .*answered 'feature_extractor -h'"):
        run(bare, colmap_executable=echo)
    assert sorted(path.name for path in bare.iterdir()) == ["input"]


# --- flags --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"camera": "FISHEYE_LENS"}, "--camera FISHEYE_LENS: expected one of SIMPLE_PINHOLE, PINHOLE,"),
        ({"camera": "EQUIRECTANGULAR"}, "--camera EQUIRECTANGULAR: expected one of"),
        (
            {"matcher": "vocabtree"},
            "needs the file of a vocabulary tree: --vocab_tree FILE. There is one at http",
        ),
        (
            {"matcher": "vocabtree", "vocab_tree": Path("no.bin")},
            r"--vocab_tree no\.bin: there is no such file",
        ),
        ({"matcher": "vocabtree", "vocab_tree": Path(__file__)}, "is no vocabulary tree"),
        ({"vocab_tree": Path("x.bin")}, "is for --matcher vocabtree"),
        ({"video": Path("no.mp4")}, r"--video no\.mp4: there is no such file"),
        ({"video": Path(__file__), "skip_matching": True}, "give one"),
        ({"fps": 0.0}, "--fps 0: expected"),
        ({"fps": float("nan")}, "--fps nan: expected"),
        ({"skip_matching": True}, "sparse holds no model with photos"),
    ],
)
def test_flags_that_make_no_sense(bare: Path, flags: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(bare, **flags)
    assert sorted(path.name for path in bare.iterdir()) == ["input"]


def test_a_film_becomes_photos(once: tuple[Path, list[str]], tmp_path: Path, fake: FakeColmap) -> None:
    film, scene = tmp_path / "walk.mp4", tmp_path / "new" / "scene"
    scene.mkdir(parents=True)
    frames = [photograph(corner_pose(i, 8)) for i in range(8) for _ in range(3)]
    write_video(film, iter(frames), fps=12)
    failing = FakeColmap(tmp_path / "failing", once[0] / "distorted", failing="feature_extractor")
    flags: dict[str, Any] = {"video": film, "fps": 4.0, "colmap_executable": str(failing.path)}
    said: list[str] = []
    with pytest.raises(UserError, match=r"COLMAP failed \(features"):
        convert(replace(ConvertConfig(scene, quiet=True), **flags), said.append)
    assert said == ["film: 24 frames in 1.9 s; the sharpest of every 1/4 s, 0 blurred ones dropped: 8 photos"]
    photos = sorted((scene / "input").iterdir())
    assert len(photos) == 8
    with Image.open(photos[0]) as image:
        assert image.size == SIZE
    said.clear()
    with pytest.raises(UserError, match=r"COLMAP failed \(features"):
        convert(replace(ConvertConfig(scene, quiet=True), **flags), said.append)
    assert said == ["film: taken before, 8 photos kept"]
    with pytest.raises(UserError, match="8 photos already, of another film or --fps. --overwrite"):
        run(scene, video=film, fps=2.0, colmap_executable=str(failing.path))
    with pytest.raises(UserError, match=r"COLMAP failed \(features"):
        run(scene, video=film, fps=2.0, colmap_executable=str(failing.path), overwrite=True)
    assert len(list((scene / "input").iterdir())) == 4


def test_a_film_does_not_replace_photos(bare: Path, tmp_path: Path, fake: FakeColmap) -> None:
    write_video(tmp_path / "walk.mp4", iter([photograph(corner_pose(0, 8))] * 3), fps=12)
    for overwrite in (False, True):
        with pytest.raises(UserError, match="holds 5 photos already, of yours. Move them away"):
            run(bare, video=tmp_path / "walk.mp4", colmap_executable=str(fake.path), overwrite=overwrite)
    with pytest.raises(UserError, match=r"1 photos of 0\.2 s are too few"):
        run(tmp_path, video=tmp_path / "walk.mp4", colmap_executable=str(fake.path))
    assert not (tmp_path / "input").exists()
