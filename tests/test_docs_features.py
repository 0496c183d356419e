"""The page on features: its Python runs, its commands work in their order, its flags and verbs exist."""

import re
import runpy
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from tiny_scenes import write_colmap_scene

from feature_gs.cli import main as cli

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "features.md").read_text()
SHORTER = {
    "train.py": ["--iterations", "40", "--quiet"],
    "render.py": ["--num_views", "3", "--quiet"],
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def run(command: str) -> int:
    """Runs `python FILE ...` or `feature-gs ...` in this process; returns the exit code."""
    program, *arguments = shlex.split(command)
    if program == "feature-gs":
        return _code(lambda: cli.main(arguments))
    assert program == "python", f"no test runs {command!r}"
    sys.argv = [str(ROOT / arguments[0]), *arguments[1:], *SHORTER.get(arguments[0], [])]
    return _code(lambda: runpy.run_path(sys.argv[0], run_name="__main__"))


def _code(call: Callable[[], object]) -> int:
    try:
        return int(cast(int, call() or 0))
    except SystemExit as end:
        return int(end.code or 0)


def test_what_the_page_tells_to_type_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    write_colmap_scene(tmp_path / "data" / "garden")
    for command in (line for block in blocks("bash") for line in block.splitlines()):
        assert run(command.replace("iteration_30000", "iteration_40")) == 0, command
    for name in ("garden", "lifted", "both"):
        assert (tmp_path / f"output/{name}/point_cloud/iteration_40/features.safetensors").is_file()
    assert (tmp_path / "output/any/point_cloud/iteration_0/features.safetensors").is_file()

    (tmp_path / "output/any/point_cloud/iteration_0/point_cloud.ply").rename(tmp_path / "any.ply")
    (example,) = blocks("python")
    capsys.readouterr()
    exec(compile(example, "features.md", "exec"), {})
    assert re.fullmatch(r"torch.Size\(\[\d+, 28\]\) torch.Size\(\[3, 4, 28\]\)\n", capsys.readouterr().out)
