"""The page on queries: every command and its Python work, and every flag in it exists."""

import re
from pathlib import Path

import pytest
from things import make_things
from typed import ROOT, blocks, commands, run

from feature_gs.cli import main as cli

PAGE = (ROOT / "docs" / "queries.md").read_text()

pytestmark = pytest.mark.usefixtures("one_thread")


def test_what_the_page_tells_to_type_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_things(names=lambda number: f"{number + 1:03d}.png").save(tmp_path / "output" / "garden")
    for command in commands(PAGE):
        assert run(f"{command} --views test --quiet") == 0, command
    folders = list((tmp_path / "output" / "garden" / "queries").iterdir())
    assert len(folders) == len(commands(PAGE))
    written = {path.name for folder in folders for path in folder.iterdir()}
    named = set(re.findall(r"^\| `([\w.]+)", PAGE, re.MULTILINE)) - {"timing.json"}
    assert named == written
    capsys.readouterr()
    exec(compile("".join(blocks(PAGE, "python")), "queries.md", "exec"), {})
    assert re.fullmatch(r"\d+ of [\d,]+ Gaussians\n", capsys.readouterr().out)


def test_every_flag_exists(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["segment", "--help"])
    there = set(re.findall(r"--\w+", capsys.readouterr().out))
    assert set(re.findall(r"--\w+", PAGE)) <= there
