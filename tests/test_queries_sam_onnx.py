"""SAM's decoder through onnxruntime: the same masks as PyTorch's, and the verb that writes the file."""

import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from random_sam import NAME, SMALL, random_sam, sam_file

from feature_gs.cli.main import main
from feature_gs.encoders import sam_weights
from feature_gs.encoders.timm_import import import_with_torchvision
from feature_gs.errors import UserError
from feature_gs.queries.sam import SamDecoder, SamMasks, SamPrompt

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

pytestmark = [
    pytest.mark.usefixtures("one_thread", "small_models"),
    pytest.mark.filterwarnings("ignore"),  # of torch's exporter
]

WIDTH, HEIGHT = 60, 90
FEATURES = torch.randn(256, 64, 43, generator=torch.Generator().manual_seed(0))
POINTS = torch.tensor([[12.0, 30], [40, 70]])
BOX = torch.tensor([5.0, 10, 50, 80])
MASK = torch.randn(256, 256, generator=torch.Generator().manual_seed(1)) * 10
PROMPTS = {
    "point": SamPrompt(POINTS[:1], torch.tensor([1])),
    "negative point": SamPrompt(POINTS, torch.tensor([1, 0])),
    "box": SamPrompt(box=BOX),
    "box and points": SamPrompt(POINTS, torch.tensor([0, 1]), BOX),
    "refined": SamPrompt(POINTS[:1], torch.tensor([1]), mask=MASK),
    "mask alone": SamPrompt(mask=MASK),
}


@pytest.fixture
def small_models(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sam_weights.MODELS, NAME, SMALL)
    yield


@cache
def exported() -> Path:
    path = Path(mkdtemp(prefix="feature_gs_")) / "decoder.onnx"
    argv = ["export-sam-decoder", "--model", NAME, "--weights", str(sam_file()), "-o", str(path)]
    assert main(argv) == 0
    return path


@cache
def by_onnx() -> SamDecoder:
    return SamDecoder.load(onnx_path=exported())


@cache
def by_torch() -> SamDecoder:
    return SamDecoder.load(NAME, sam_file())


def assert_same(found: SamMasks, expected: SamMasks) -> None:
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-3)  # of about 15
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-5, atol=1e-5)
    assert (found.masks != expected.masks).float().mean() < 1e-3  # a logit may be 0 but for rounding


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("kind", list(PROMPTS))
def test_masks_are_those_of_pytorch(kind: str, multimask: bool) -> None:
    asked = FEATURES, WIDTH, HEIGHT, PROMPTS[kind]
    expected = by_torch().masks(*asked, multimask=multimask)
    assert expected.logits.std() > 1 and 0.02 < expected.masks.float().mean() < 0.98
    assert_same(by_onnx().masks(*asked, multimask=multimask), expected)


def test_everything_mode_by_onnxruntime() -> None:
    options: dict[str, Any] = {"points_per_side": 2, "score": 0.9, "stability": 0.5, "overlap": 1}
    expected = by_torch().everything(FEATURES, WIDTH, HEIGHT, **options)
    found = by_onnx().everything(FEATURES, WIDTH, HEIGHT, **options)
    assert len(found) == len(expected) > 2
    assert [a.area for a in found] == pytest.approx([b.area for b in expected], abs=3)


def test_a_file_of_the_packages_own_export_is_read(tmp_path: Path) -> None:
    """Its prompts are one at a time; with `return_single_mask` it chooses the mask itself."""
    module: Any = import_with_torchvision("segment_anything.utils.onnx")
    single = module.SamOnnxModel(random_sam(), return_single_mask=True)
    example = (
        torch.zeros(1, 256, 64, 64),
        torch.zeros(1, 5, 2),
        torch.ones(1, 5),
        torch.zeros(1, 1, 256, 256),
        torch.ones(1),
        torch.tensor([1500.0, 2250.0]),
    )
    names = ["image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input"]
    path = tmp_path / "sam_onnx_example.onnx"
    axes = {"point_coords": {1: "num_points"}, "point_labels": {1: "num_points"}}
    torch.onnx.export(
        single,
        example,
        str(path),
        input_names=[*names, "orig_im_size"],
        output_names=["masks", "iou_predictions", "low_res_masks"],
        opset_version=17,
        dynamic_axes=axes,
        dynamo=False,
    )
    made = SamDecoder.load(onnx_path=path)
    asked = (
        FEATURES,
        WIDTH,
        HEIGHT,
        PROMPTS["box and points"],
    )  # four tokens: the package takes the first mask
    assert_same(made.masks(*asked, multimask=False), by_torch().masks(*asked, multimask=False))
    with pytest.raises(UserError, match="sam_onnx_example.onnx gives one mask per prompt"):
        made.masks(*asked)
    assert made.network.prompts == 1


def test_a_missing_or_foreign_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file .*none.onnx.\n.*export-sam-decoder"):
        SamDecoder.load(onnx_path=tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(UserError, match="cannot read .*text.onnx"):
        SamDecoder.load(onnx_path=tmp_path / "text.onnx")
    torch.onnx.export(
        torch.nn.Linear(2, 2), (torch.zeros(1, 2),), str(tmp_path / "linear.onnx"), dynamo=False
    )
    with pytest.raises(UserError, match="is no SAM decoder: expected the inputs image_embeddings"):
        SamDecoder.load(onnx_path=tmp_path / "linear.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(UserError, match=rf"the package {package}: pip install 'feature-gs\[onnx\]'"):
        if package == "onnx":
            from feature_gs.queries.sam_onnx import export_onnx

            export_onnx(by_torch().network, tmp_path / "x.onnx")  # type: ignore[arg-type]
        else:
            SamDecoder.load(onnx_path=tmp_path / "x.onnx")


def test_the_verb_refuses_other_models_and_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export-sam-decoder", "--model", "sam_vit_x"]) == 2
    assert "--model takes sam_vit_b, sam_vit_l, sam_vit_h; got 'sam_vit_x'" in capsys.readouterr().err
    assert main(["export-sam-decoder", "-o", str(tmp_path / "decoder.pt")]) == 2
    assert "expected a name that ends in .onnx" in capsys.readouterr().err
