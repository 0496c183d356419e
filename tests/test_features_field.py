"""FeatureField: what features.safetensors holds, and that damaged or foreign files are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from feature_gs.errors import UserError
from feature_gs.features.decoders import DECODERS, make_decoder
from feature_gs.features.field import FeatureField, field_path
from feature_gs.features.palette import Palette


def random_field(kind: str = "linear", count: int = 7, palette: bool = True) -> FeatureField:
    generator = torch.Generator().manual_seed(count)
    channels = 4 if kind == "none" else 6
    return FeatureField(
        features=torch.randn(count, 4, generator=generator).half().float(),
        decoder=make_decoder(kind, 4, channels, generator=generator),
        teacher="dinov2_small",
        cell=(14.0, 13.5),
        seen=torch.rand(count, generator=generator) > 0.3,
        meta={"layer": 11, "weights": "abc"},
        palette=Palette(torch.randn(channels, 3, generator=generator), torch.zeros(3)) if palette else None,
    )


@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize("count", [0, 1, 50])
def test_a_field_comes_back(tmp_path: Path, kind: str, count: int) -> None:
    saved = random_field(kind, count)
    path = field_path(tmp_path / "iteration_30" / "point_cloud.ply")
    assert path == tmp_path / "iteration_30" / "features.safetensors"
    saved.save(path)
    loaded = FeatureField.load(path, count)
    assert torch.equal(loaded.features, saved.features) and loaded.features.dtype == torch.float32
    assert torch.equal(loaded.seen, saved.seen) and loaded.seen.dtype == torch.bool
    assert (loaded.teacher, loaded.cell, loaded.meta) == ("dinov2_small", (14.0, 13.5), saved.meta)
    assert loaded.decoder.kind == kind
    state, expected = loaded.decoder.state_dict(), saved.decoder.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state)
    assert loaded.palette is not None and saved.palette is not None
    assert torch.equal(loaded.palette.matrix, saved.palette.matrix)
    assert torch.equal(loaded.palette.bias, saved.palette.bias)
    assert [file.name for file in path.parent.iterdir()] == ["features.safetensors"]


def test_the_file_is_what_is_documented(tmp_path: Path) -> None:
    random_field(palette=False).save(tmp_path / "a.safetensors")
    tensors = load_file(tmp_path / "a.safetensors")
    assert {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()} == {
        "features": (torch.float16, (7, 4)),
        "seen": (torch.uint8, (7,)),
        "decoder.weight": (torch.float32, (6, 4)),
        "decoder.bias": (torch.float32, (6,)),
    }
    assert FeatureField.load(tmp_path / "a.safetensors", 7).palette is None


def test_values_too_large_for_half_precision_are_kept(tmp_path: Path) -> None:
    field = random_field()
    field.features[2, 1] = 1e6
    field.save(tmp_path / "a.safetensors")
    assert torch.equal(FeatureField.load(tmp_path / "a.safetensors", 7).features, field.features)


def test_what_is_not_finite_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    random_field().save(path)
    before = path.read_bytes()
    field = random_field()
    field.features[2, 1] = torch.nan
    with pytest.raises(UserError, match="NaN"):
        field.save(path)
    assert path.read_bytes() == before


def test_other_gaussians_are_refused(tmp_path: Path) -> None:
    random_field(count=7).save(tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="features of 7 Gaussians, the PLY beside it 8"):
        FeatureField.load(tmp_path / "a.safetensors", 8)


def test_missing_and_truncated_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(UserError, match="there is no file .*feature-gs lift"):
        FeatureField.load(path, 7)
    random_field().save(path)
    whole = path.read_bytes()
    for content in (
        b"",
        bytes(range(256)) * 4,
        whole[:4],
        whole[:100],
        whole[:-1],
        b"\xff" * 8 + whole[8:],  # a header of 2^64 bytes
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match="a.safetensors is damaged"):
            FeatureField.load(path, 7)


@pytest.mark.parametrize(
    ("tensors", "about", "message"),
    [
        ({"features": None}, {}, "features"),
        ({"features": torch.zeros(7, dtype=torch.float16)}, {}, r"\[N, c\]"),
        ({"features": torch.zeros(7, 4, dtype=torch.int32)}, {}, r"\[N, c\]"),
        ({"features": torch.full((7, 4), torch.inf)}, {}, "infinity"),
        ({"features": torch.zeros(7, 3)}, {}, "linear decoder 3 -> 6"),
        ({"seen": torch.zeros(6, dtype=torch.uint8)}, {}, "seen"),
        ({"seen": torch.zeros(7)}, {}, "seen must be uint8"),
        ({"decoder.bias": None}, {}, "linear decoder"),
        ({"decoder.more": torch.zeros(1)}, {}, "linear decoder"),
        ({"palette.matrix": torch.zeros(5, 3)}, {}, "palette"),
        ({"palette.bias": None}, {}, "palette.bias"),
        ({"palette.bias": torch.full((3,), torch.nan)}, {}, "palette"),
        ({}, {"format": 2}, "format 2"),
        ({}, {"channels": 10**15}, "linear decoder"),
        ({}, {"channels": True}, "channels"),
        ({}, {"decoder": "eval"}, "unknown decoder"),
        ({}, {"decoder": ["linear"]}, "unhashable|unknown"),
        ({}, {"cell": [8]}, "unpack"),
        ({}, {"cell": [8, -1]}, "cell"),
        ({}, {"cell": [8, "nan"]}, "cell"),
        ({}, {"teacher": 3}, "teacher"),
        ({}, {"meta": []}, "meta"),
        ({}, None, "feature_gs"),
        ({}, [], "indices"),
    ],
)
def test_files_that_lie_are_refused(
    tmp_path: Path, tensors: dict[str, torch.Tensor | None], about: Any, message: str
) -> None:
    path = tmp_path / "a.safetensors"
    random_field().save(path)
    with safe_open(path, framework="pt") as file:
        written = json.loads(file.metadata()["feature_gs"])
    content = {**load_file(path), **tensors}
    described = {**written, **about} if isinstance(about, dict) else about
    metadata = {} if about is None else {"feature_gs": json.dumps(described)}
    save_file({name: tensor for name, tensor in content.items() if tensor is not None}, path, metadata)
    with pytest.raises(UserError, match=f"is damaged or no file of features .*({message})"):
        FeatureField.load(path, 7)


def test_a_field_that_cannot_be_written_leaves_the_previous_file(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.safetensors"
    path.mkdir(parents=True)
    with pytest.raises(UserError, match="cannot write"):
        random_field().save(path)
    assert [file.name for file in path.parent.iterdir()] == ["a.safetensors"]


def test_shapes_are_checked_when_made() -> None:
    decoder = make_decoder("linear", 4, 6)
    seen = torch.ones(3, dtype=torch.bool)
    for features, seen_by, cell in (
        (torch.zeros(3, 5), seen, (8.0, 8.0)),
        (torch.zeros(3, 4), torch.ones(3), (8.0, 8.0)),
        (torch.zeros(2, 4), seen, (8.0, 8.0)),
        (torch.zeros(3, 4), seen, (0.0, 8.0)),
    ):
        with pytest.raises(ValueError, match="must be"):
            FeatureField(features, decoder, "t", cell, seen_by)
