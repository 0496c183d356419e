"""What the README tells people to type works, in its order, on a small scene."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from typed import ROOT, blocks, commands, run

from feature_gs.scenes.procedural import write_demo_scene

README = (ROOT / "README.md").read_text()

# Commands that are run elsewhere, and where.
ELSEWHERE = {
    "make demo": "tests/test_demo.py runs what it calls",
    "make test": "this run",
    "make install": "make test begins with it",
    "python convert.py -s data/garden": "tests/test_convert.py runs it on photos; the scene here is made",
    "source .venv/bin/activate": "the next commands are called as it would find them",
    "pip install -c constraints.txt torch numpy setuptools pybind11 ninja": "the second step of make install",
    "pip install -c constraints.txt --no-build-isolation -e .": "the third step of make install",
}
# What makes a command short enough for a test.
SHORTER = {
    "python train.py": "--iterations 40 --checkpoint_iterations 20",
    "python render.py": "--num_views 12",
    "feature-gs benchmark": "--gaussians 500 --width 64 --height 48 --channels 0 8 --cells 8 --repeats 1",
}


def python_block(part: str) -> str:
    """The example that has `part` in it."""
    (found,) = (block for block in blocks(README, "python") if part in block)
    return found


def test_every_command_is_run_somewhere() -> None:
    runnable = [command for command in commands(README) if re.match(r"(python|feature-gs) ", command)]
    here = [command for command in runnable if command not in ELSEWHERE]
    assert set(commands(README)) - set(here) == set(ELSEWHERE)
    assert {" ".join(command.split()[:2]) for command in here} >= set(SHORTER)


def test_make_installs_as_the_readme_does() -> None:
    steps = subprocess.run(
        ["make", "-B", "-n", "install"], cwd=ROOT, capture_output=True, check=True, text=True
    )
    installed = [set(shlex.split(match)) for match in re.findall(r"-m pip install (.*?);? *\}", steps.stdout)]
    for command in commands(README):
        if command.startswith("pip install"):
            wanted = {".[dev]" if word == "." else word for word in shlex.split(command)[2:]}
            assert any(wanted <= words for words in installed), f"make install does not run {command!r}"


def test_the_commands_work_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_demo_scene(tmp_path / "data" / "garden", views=10, width=64, height=48)
    for command in commands(README):
        if command in ELSEWHERE:
            continue
        name = " ".join(command.split()[:2])
        command = command.replace("iteration_30000", "iteration_40")
        assert run(f"{command} {SHORTER.get(name, '')}") == 0, command
    exec(compile(python_block("feature_gs.load"), "README.md", "exec"), {})
    written = {
        path.relative_to(tmp_path / "output").as_posix() for path in (tmp_path / "output").rglob("*.*")
    }
    assert "garden/point_cloud/iteration_40/point_cloud.ply" in written
    assert {
        "garden/results.json",
        "garden/per_view.json",
        "half/results.json",
        "mcmc/results.json",
        "garden/point_cloud/iteration_40/features.safetensors",
        "garden/novel/iteration_40/feature_video.mp4",
        "colours/point_cloud/iteration_40/features.safetensors",
        "any/point_cloud/iteration_0/features.safetensors",
        "any/test/iteration_0/compare_teacher/000.png",
        "garden/queries/thing/masks/008.png",
        "garden/queries/thing/decompose/strip.png",
        "garden_without/point_cloud/iteration_40/point_cloud.ply",
    } <= written
    assert json.loads((tmp_path / "output/garden/results.json").read_text())["iteration_40"]["features"]


def test_the_python_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(python_block("rasterize("), "README.md", "exec"), {})
    height, width = 96, 128
    shapes = ([1, height, width, 3], [1, height, width], [1, height // 16, width // 16, 384])
    assert capsys.readouterr().out.split("\n")[0] == " ".join(f"torch.Size({shape})" for shape in shapes)


def test_the_files_it_points_to_are_there() -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    for page in pages:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).is_file(), f"{page.name} points to {target}"
