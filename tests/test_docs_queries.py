"""The page on queries: every command and its Python work, and every flag in it exists."""

import re
import shlex
from pathlib import Path

import pytest
from things import make_things

from feature_gs.cli import main as cli

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "queries.md").read_text()

pytestmark = pytest.mark.usefixtures("one_thread")


def blocks(language: str) -> str:
    return "".join(re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL))


def test_what_the_page_tells_to_type_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_things(names=lambda number: f"{number + 1:03d}.png").save(tmp_path / "output" / "garden")
    commands = [line for line in blocks("bash").splitlines() if line]
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "feature-gs"
        assert cli.main([*arguments, "--views", "test", "--quiet"]) == 0, command
    folders = list((tmp_path / "output" / "garden" / "queries").iterdir())
    assert len(folders) == len(commands)
    written = {path.name for folder in folders for path in folder.iterdir()}
    named = set(re.findall(r"^\| `([\w.]+)", PAGE, re.MULTILINE)) - {"timing.json"}
    assert named == written
    capsys.readouterr()
    exec(compile(blocks("python"), "queries.md", "exec"), {})
    assert re.fullmatch(r"\d+ of [\d,]+ Gaussians\n", capsys.readouterr().out)


def test_every_flag_exists(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["segment", "--help"])
    there = set(re.findall(r"--\w+", capsys.readouterr().out))
    assert set(re.findall(r"--\w+", PAGE)) <= there
