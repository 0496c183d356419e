"""Selections: set operations, and the file."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from feature_gs.errors import UserError
from feature_gs.queries.selection import Selection


def selection(*scores: float) -> Selection:
    return Selection.of(torch.tensor(scores), {"kind": "test"})


def test_more_than_half_is_selected() -> None:
    assert selection(0, 0.5, 0.51, 1).selected.tolist() == [False, False, True, True]


def test_set_operations_are_those_of_fuzzy_sets() -> None:
    a, b = selection(0.1, 0.9, 0.9), selection(0.2, 0.3, 0.8)
    assert (a & b).scores.tolist() == pytest.approx([0.1, 0.3, 0.8])
    assert (a | b).scores.tolist() == pytest.approx([0.2, 0.9, 0.9])
    assert (~a).scores.tolist() == pytest.approx([0.9, 0.1, 0.1])
    assert (a & b).selected.tolist() == [False, False, True]
    assert (a | b).selected.tolist() == [False, True, True]
    assert (a & b).query == {"and": [{"kind": "test"}, {"kind": "test"}]}


def test_a_part_and_its_complement_are_everything_and_nothing_twice() -> None:
    part = selection(0, 0.3, 0.5, 0.7, 1)  # one half as well
    assert (part | ~part).selected.all()
    assert not (part & ~part).selected.any()
    assert torch.equal((~~part).selected, part.selected)


def test_de_morgan() -> None:
    a, b = selection(0.1, 0.9, 0.9), selection(0.2, 0.3, 0.8)
    assert torch.equal((~(a & b)).scores, (~a | ~b).scores)
    assert torch.equal((~(a & b)).selected, (~a | ~b).selected)


def test_the_file_brings_back_what_was_saved(tmp_path: Path) -> None:
    saved = selection(0, 0.25, 1) | ~selection(0.5, 1, 1)
    saved.save(tmp_path / "selection.safetensors")
    loaded = Selection.load(tmp_path / "selection.safetensors", 3)
    assert torch.equal(loaded.scores, saved.scores)
    assert torch.equal(loaded.selected, saved.selected)
    assert loaded.query == saved.query


def test_selections_of_different_models_do_not_combine() -> None:
    with pytest.raises(UserError, match="2 and of 3"):
        selection(0, 1) & selection(0, 1, 1)


def test_what_is_wrong_with_a_file_is_said(tmp_path: Path) -> None:
    path = tmp_path / "selection.safetensors"
    with pytest.raises(UserError, match="feature-gs segment"):
        Selection.load(path, 2)
    selection(0, 1).save(path)
    with pytest.raises(UserError, match="among 2 Gaussians, the model has 3"):
        Selection.load(path, 3)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="damaged"):
        Selection.load(path, 2)


@pytest.mark.parametrize("scores", [[0.0, 1.5], [0.0, float("nan")]])
def test_scores_of_a_file_must_lie_between_0_and_1(tmp_path: Path, scores: list[float]) -> None:
    path = tmp_path / "selection.safetensors"
    tensors = {"scores": torch.tensor(scores), "selected": torch.ones(2, dtype=torch.uint8)}
    save_file(tensors, path, {"feature_gs": json.dumps({"format": 1, "query": {}})})
    with pytest.raises(UserError, match=r"\[0, 1\]"):
        Selection.load(path, 2)
