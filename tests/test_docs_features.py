"""The page on features: its Python runs, its commands work in their order, its flags and verbs exist."""

import re
from pathlib import Path

import pytest
from tiny_scenes import write_colmap_scene
from typed import ROOT, blocks, commands, run

PAGE = (ROOT / "docs" / "features.md").read_text()
SHORTER = {
    "python train.py": "--iterations 40 --quiet",
    "python render.py": "--num_views 3 --quiet",
}


def test_what_the_page_tells_to_type_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_colmap_scene(tmp_path / "data" / "garden")
    for command in commands(PAGE):
        name = " ".join(command.split()[:2])
        command = command.replace("iteration_30000", "iteration_40")
        assert run(f"{command} {SHORTER.get(name, '')}") == 0, command
    for name in ("garden", "lifted", "both"):
        assert (tmp_path / f"output/{name}/point_cloud/iteration_40/features.safetensors").is_file()
    assert (tmp_path / "output/any/point_cloud/iteration_0/features.safetensors").is_file()

    (tmp_path / "output/any/point_cloud/iteration_0/point_cloud.ply").rename(tmp_path / "any.ply")
    (example,) = blocks(PAGE, "python")
    capsys.readouterr()
    exec(compile(example, "features.md", "exec"), {})
    assert re.fullmatch(r"torch.Size\(\[\d+, 28\]\) torch.Size\(\[3, 4, 28\]\)\n", capsys.readouterr().out)
