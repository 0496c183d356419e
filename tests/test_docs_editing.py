"""The page on editing: what it tells to type works in its order, and its five lines of Python run."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from typed import ROOT, blocks, commands, run

from feature_gs.editing.plan import KINDS
from feature_gs.editing.questions import QUERIES
from feature_gs.features.field import field_path
from feature_gs.scenes import raytracer
from feature_gs.scenes.procedural import write_demo_scene
from feature_gs.training import TrainConfig, train
from feature_gs.training.trained import load_trained, ply_path

PAGE = (ROOT / "docs" / "editing.md").read_text()


def test_what_the_page_tells_to_type_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # Even light, which takes no time to find, is good enough.
    monkeypatch.setattr(raytracer, "_irradiance", lambda points, *_: np.full_like(points, 0.7))
    write_demo_scene(tmp_path / "data" / "garden", views=16, width=64, height=48)
    train(
        TrainConfig(
            source_path="data/garden",
            model_path="output/garden",
            foundation_model="handcrafted",
            features="lift",
            iterations=40,
            eval=True,
            quiet=True,
        )
    )
    (tmp_path / "edit.yaml").write_text(blocks(PAGE, "yaml")[0])
    for command in commands(PAGE):
        assert run(f"{command} --quiet" if command.startswith("python") else command) == 0, command
    folder = tmp_path / "output/garden/queries/thing/decompose"
    assert {path.name for path in folder.iterdir()} == {"all", "only", "only_alpha", "without", "strip.png"}
    changed = load_trained(tmp_path / "output/changed")
    assert field_path(ply_path(changed.path, changed.iteration)).is_file()
    assert list((tmp_path / "output/changed/test").rglob("color/*.png"))

    (example,) = blocks(PAGE, "python")
    capsys.readouterr()
    exec(compile(example, "editing.md", "exec"), {})
    count = len(load_trained(tmp_path / "output/garden").model)
    assert capsys.readouterr().out == f"{count} torch.Size([1, 48, 64])\n"
    assert 0 < len(load_trained(tmp_path / "output/without").model) < count


def test_the_page_names_every_operation_and_query() -> None:
    offered = set(re.findall(r"`([a-z_]+)(?:`|:)", PAGE)) | set(re.findall(r"\{([a-z_]+):", PAGE))
    assert {*KINDS, *QUERIES} <= offered
    for block in blocks(PAGE, "yaml"):
        assert set(yaml.safe_load(block)) == {"selections", "edits"}
