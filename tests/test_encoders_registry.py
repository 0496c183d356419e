"""Encoders by name, by class and from other packages; what they promise is checked; timm stays out."""

import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from torch import Tensor

from feature_gs.encoders import (
    Encoder,
    Grid,
    clip_weights,
    encoder_names,
    is_encoder_name,
    load_encoder,
    lseg,
    maskclip,
    registry,
)
from feature_gs.encoders.handcrafted import Handcrafted
from feature_gs.encoders.lseg import LSeg
from feature_gs.encoders.maskclip import MaskClip
from feature_gs.encoders.teachers import TEACHERS
from feature_gs.encoders.timm_import import import_timm
from feature_gs.errors import UserError

DOCS = Path(__file__).resolve().parents[1] / "docs" / "teachers.md"
PHOTO = torch.arange(40 * 50 * 3).remainder(251).byte().reshape(40, 50, 3)


class Grey(Encoder):
    """A test encoder that says one thing and may do another."""

    name = "grey"
    channels = 1
    patch = stride = 10
    licence = origin = "none"

    def grid(self, width: int, height: int) -> Grid:
        return Grid.of_cells(width, height, 10)

    def encode(self, image: Tensor) -> Tensor:
        return torch.full((self.channels, 4, 5), image.float().mean().item())


class Wide(Grey):
    def encode(self, image: Tensor) -> Tensor:
        return torch.zeros(2, 4, 5)


class Half(Grey):
    def encode(self, image: Tensor) -> Tensor:
        return torch.zeros(1, 4, 5, dtype=torch.float16)


class Broken(Grey):
    def encode(self, image: Tensor) -> Tensor:
        return torch.full((1, 4, 5), float("nan"))


def example(heading: str, language: str) -> str:
    """The first block of code below a heading of the page."""
    section = DOCS.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    found = re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found[1]


def test_grids_say_where_cells_lie() -> None:
    assert Grid.whole(300, 200, 4, 8) == Grid(4, 8, 8 / 300, 4 / 200)
    assert Grid.of_cells(300, 200, 8) == Grid(25, 38, 1 / 8, 1 / 8)


def test_names_are_known_and_told_from_folders() -> None:
    names = encoder_names()
    assert names[:2] == ["handcrafted", "dino_vits8"] and set(TEACHERS) < set(names)
    for spec in ["handcrafted", "dino_vits8?layer=9&facet=key", "timm:whatever", "package.module:Class"]:
        assert is_encoder_name(spec)
    for spec in ["features/dino", "./dino_vits8", "dino", "C:\\scene\\dino", "a/b:C", ""]:
        assert not is_encoder_name(spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("dino_vit8", r"there is no encoder 'dino_vit8'. Did you mean dino_vit[sb]8"),
        ("quite_other", r"there is no encoder 'quite_other'.\n  Encoders: handcrafted, dino_vits8"),
        ("timm:test_vitt", r"no model 'test_vitt'. Did you mean test_vit"),
        ("timm:test_vit.nonsense", "no weights 'nonsense' of test_vit; it has r160_in1k"),
        ("no_such_module:Class", "cannot import encoder no_such_module:Class: ModuleNotFoundError"),
        ("test_encoders_registry:NoClass", "cannot import .*: AttributeError"),
        (
            "test_encoders_registry:PHOTO",
            "is a Tensor; expected a class derived from feature_gs.encoders.Encoder",
        ),
        ("pathlib:PurePath", "is a class of another kind"),
        ("handcrafted?cell", r"cannot read 'cell' in 'handcrafted\?cell'"),
        ("handcrafted?cell=8&cell=9", "cannot read 'cell=9'"),
        ("handcrafted?cel=8", r"handcrafted has no option 'cel'. Did you mean cell\?"),
        ("test_encoders_registry:Grey?size=8", "grey has no option 'size'.*\n.*Its options: none"),
    ],
)
def test_what_cannot_be_loaded_says_why(spec: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_encoder(spec)


def test_options_of_the_call_win_over_those_of_the_spec() -> None:
    assert load_encoder("handcrafted?cell=4", options={"cell": "16"}).grid(64, 32) == Grid.of_cells(
        64, 32, 16
    )
    assert load_encoder("handcrafted?cell=4").describe()["options"] == {"cell": 4}


def test_weights_for_an_encoder_without_are_refused() -> None:
    with pytest.raises(UserError, match="handcrafted has no weights"):
        load_encoder("handcrafted", weights=Path("some.pth"))


def test_ones_own_encoder_is_loaded_by_its_path() -> None:
    made = load_encoder("test_encoders_registry:Grey")
    assert made(PHOTO).shape == (1, 4, 5)
    assert made.describe()["encoder"] == "grey"


def test_packages_bring_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("grey_of_a_package", "test_encoders_registry:Grey", registry.ENTRY_POINTS)
    monkeypatch.setattr(
        registry, "entry_points", lambda group: [entry] if group == registry.ENTRY_POINTS else []
    )
    assert "grey_of_a_package" in encoder_names() and is_encoder_name("grey_of_a_package")
    assert load_encoder("grey_of_a_package").name == "grey"


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (Wide, r"promised a map \(1, 4, 5\) float32 for a photo of 50 x 40 pixels, and gave \(2, 4, 5\)"),
        (Half, "float16"),
        (Broken, "not finite"),
    ],
)
def test_an_encoder_is_held_to_its_word(encoder: type[Encoder], message: str) -> None:
    with pytest.raises(UserError, match=message):
        encoder()(PHOTO)
    with pytest.raises(ValueError, match="must be .H, W, 3. uint8"):
        encoder()(PHOTO.float())


def test_the_example_of_the_docs_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_teachers.py").write_text(example("Your own encoder", "python"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    made = load_encoder("my_teachers:MeanColour?cell=20")
    features = made(PHOTO)
    assert features.shape == (3, 2, 3)
    torch.testing.assert_close(features[:, 1, 2], PHOTO[20:40, 40:50].float().mean((0, 1)) / 255)
    sys.modules.pop("my_teachers")


@pytest.mark.parametrize("name", TEACHERS)
def test_the_page_tells_the_truth(name: str) -> None:
    timm = import_timm()
    with torch.device("meta"):  # the shapes, not the numbers
        model = timm.create_model(TEACHERS[name].model, num_classes=0)
    rows = [line for line in DOCS.read_text().splitlines() if line.startswith(f"| `{name}` |")]
    cells = [cell.strip() for cell in rows[-1].split("|")]
    assert cells[2] == str(model.embed_dim)
    assert cells[3] == str(model.patch_embed.patch_size[0])
    assert cells[4] == str(TEACHERS[name].size)
    assert cells[5] == f"`{TEACHERS[name].model}`"
    assert cells[6] == timm.get_pretrained_cfg(TEACHERS[name].model).license


@pytest.mark.parametrize(
    ("name", "encoder", "channels", "licence"),
    [
        ("handcrafted", Handcrafted, Handcrafted.channels, Handcrafted.licence.partition(":")[0]),
        ("lseg", LSeg, lseg.Sizes().channels, lseg.CHECKPOINT.license.partition(" (")[0]),
        ("maskclip", MaskClip, maskclip.Sizes().channels, clip_weights.VIT_B_16["openai"].weights.license),
    ],
)
def test_the_page_tells_the_truth_about_the_others(
    name: str, encoder: type[Encoder], channels: int, licence: str
) -> None:
    rows = [line for line in DOCS.read_text().splitlines() if line.startswith(f"| `{name}` |")]
    cells = [cell.strip() for cell in rows[-1].split("|")]
    assert cells[2] == str(channels)
    size = encoder.known_options.get("size")
    assert cells[4] == ("the photo's own" if size is None else str(size.default))
    assert cells[6].startswith(licence)


def test_every_dino_of_the_page_is_a_valid_spec() -> None:
    specs = re.findall(r"`(dino\w+\?[^`]+)`", DOCS.read_text())
    assert len(specs) >= 2
    for spec in specs:
        name, options = registry.split_spec(spec)
        assert name in TEACHERS
        assert set(options) <= {"layer", "facet", "stride", "size", "flip", "scales"}


def test_without_a_neural_teacher_timm_is_never_imported() -> None:
    program = (
        "import sys, torch; from feature_gs.encoders import *\n"
        "import feature_gs.cli.main\n"
        "load_encoder('handcrafted')(torch.zeros(20, 30, 3, dtype=torch.uint8))\n"
        "is_encoder_name('dino_vits8'), encoder_names()\n"
        "print([name for name in ('timm', 'torchvision', 'huggingface_hub') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
