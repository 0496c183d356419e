"""The demo on a smaller scene: what it leaves, that it learnt something, and what it refuses to touch."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from feature_gs.cli import demo
from feature_gs.errors import UserError

SMALL = {"views": 16, "width": 96, "height": 72}
ITERATIONS = 200


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Scene and model folder after one run of the demo."""
    base = tmp_path_factory.mktemp("demo")
    data, output = base / "data", base / "output"
    demo.prepare_scene(data, **SMALL)
    assert demo.main(["--data", str(data), "--output", str(output), "--iterations", str(ITERATIONS)]) == 0
    return data, output


def test_the_pictures_show_something(folders: tuple[Path, Path]) -> None:
    strip = cv2.imread(str(folders[1] / "strip.png"))
    assert strip is not None
    assert strip.shape[0] > 2 * SMALL["height"]
    for part in np.array_split(strip.astype(float), 4, axis=1):
        assert part.std() > 20
    photo, features = strip[:, : SMALL["width"]], strip[:, -SMALL["width"] :]
    assert np.abs(features.astype(float) - photo).mean() > 20


def test_the_video_has_every_frame(folders: tuple[Path, Path]) -> None:
    video = cv2.VideoCapture(str(folders[1] / "video.mp4"))
    count = 0
    shape: tuple[int, ...] = ()
    while True:
        more, frame = video.read()
        if not more:
            break
        count, shape = count + 1, frame.shape
    assert count == demo._VIDEO_FRAMES
    assert shape == (SMALL["height"], 3 * SMALL["width"], 3)


def test_it_learnt_the_scene(folders: tuple[Path, Path]) -> None:
    entry = json.loads((folders[1] / "results.json").read_text())[f"iteration_{ITERATIONS}"]
    assert entry["test"]["views"] == SMALL["views"] // 8
    assert entry["test"]["psnr"] > 16  # 11.5 before the first step
    assert entry["gaussians"] > 0
    assert entry["features"]["teacher"] == "handcrafted"
    assert entry["features"]["cosine"]["test"] > 0.6


def test_a_second_run_uses_the_scene_again_and_trains_anew(
    folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(demo, "_VIDEO_FRAMES", 8)
    photo = next((folders[0] / "images").iterdir())
    before = photo.stat().st_mtime_ns
    for iterations in ("10", "11"):
        demo.main(["--data", str(folders[0]), "--output", str(tmp_path), "--iterations", iterations])
    assert photo.stat().st_mtime_ns == before
    assert set(json.loads((tmp_path / "results.json").read_text())) == {"iteration_11"}
    printed = capsys.readouterr().out.replace(str(tmp_path), "output/demo")
    assert "output/demo/strip.png" in printed
    assert "train.py -s" in printed
    closing = printed[printed.rindex("Gaussians after") :]
    assert max(map(len, closing.splitlines())) <= 80
    first, second = printed.split("is used again")[1:]
    for run in (first, second):
        trained, lifted = map(float, re.findall(r"(\d\.\d{3}) (?:trained|lifted)", run))
        assert 0.2 < trained < 1
        assert 0.2 < lifted < 1


def test_a_scene_with_a_hole_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_photo(folder: Path) -> None:
        (folder / "images").mkdir(parents=True)
        (folder / "images" / "000.png").write_bytes(b"whole")

    monkeypatch.setattr(demo, "write_demo_scene", write_photo)
    data = tmp_path / "scene"
    photo = data / "images" / "000.png"
    assert "Made a scene of 1 photos" in demo.prepare_scene(data)
    assert "used again" in demo.prepare_scene(data)
    photo.write_bytes(b"who")
    assert "Made" in demo.prepare_scene(data)
    assert photo.read_bytes() == b"whole"
    photo.unlink()
    assert "Made" in demo.prepare_scene(data)
    assert "used again" in demo.prepare_scene(data)
    assert [path.name for path in tmp_path.iterdir()] == ["scene"]


def test_it_leaves_alone_what_it_did_not_make(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(UserError, match="--data"):
        demo.main(["--data", str(tmp_path), "--output", str(tmp_path / "output")])
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_it_leaves_the_model_of_another_scene_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"source_path": "data/fox"}')
    with pytest.raises(UserError, match="--output"):
        demo.main(["--data", str(tmp_path / "data"), "--output", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
