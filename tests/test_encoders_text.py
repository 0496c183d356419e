"""Words: against open_clip's own text tower, on random weights; what is kept; what is refused."""

import csv
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from random_clip import SMALL as SMALL_CLIP
from random_clip import clip_file, random_clip
from random_lseg import SMALL, random_state, write_checkpoint
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from feature_gs.encoders import ADE20K_LABELS, Encoder, Grid, clip_text, encode_text, has_text
from feature_gs.encoders.text import words_folder
from feature_gs.errors import UserError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).resolve().parents[1]
WORDS = ["a chair", "sky", "the roof of a castle"]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Words are kept in a folder of the test."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch" / "hub"))
    return tmp_path


def by_open_clip(texts: list[str], quick_gelu: bool = True) -> Tensor:
    import open_clip

    vectors: Tensor = random_clip(quick_gelu).encode_text(open_clip.tokenize(texts), normalize=True)
    return vectors


class Rainbow(Encoder):
    """A teacher of the user's own, with three words."""

    name = "rainbow"
    channels = 3
    patch = stride = 1
    licence = origin = "none"

    def grid(self, width: int, height: int) -> Grid:
        return Grid.whole(width, height, height, width)

    def encode(self, image: Tensor) -> Tensor:
        return image.permute(2, 0, 1).float()

    @classmethod
    def encode_words(cls, texts: list[str], weights: Path | None, device: Any) -> Tensor:
        return torch.stack(
            [2 * torch.tensor([word in text for word in ("red", "green", "blue")]) for text in texts]
        )


class Mute(Rainbow):
    encode_words = None  # type: ignore[assignment]


class Confused(Rainbow):
    @classmethod
    def encode_words(cls, texts: list[str], weights: Path | None, device: Any) -> Tensor:
        return torch.zeros(3)


@pytest.mark.parametrize("pretrained", ["openai", "laion2b"])
def test_vectors_are_those_of_open_clip(pretrained: str) -> None:
    quick_gelu = pretrained == "openai"
    vectors = encode_text(WORDS, f"maskclip?pretrained={pretrained}", weights=clip_file(quick_gelu))
    assert vectors.shape == (3, 24) and vectors.dtype == torch.float32
    torch.testing.assert_close(vectors, by_open_clip(WORDS, quick_gelu), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    assert (vectors[0] - vectors[1]).norm() > 0.1


def test_templates_are_averaged_as_directions() -> None:
    templates = ["a photo of a {}.", "{}", "a drawing of {} and {}"]
    filled = [["a photo of a sky.", "sky", "a drawing of sky and sky"]]
    expected = functional.normalize(by_open_clip(filled[0]).mean(0), dim=0)
    (vector,) = encode_text(["sky"], "maskclip", weights=clip_file(), templates=templates)
    torch.testing.assert_close(vector, expected, rtol=1e-4, atol=1e-5)
    (plain,) = encode_text(["sky"], "maskclip", weights=clip_file(), templates=["{}"])
    assert torch.equal(plain, encode_text(["sky"], "maskclip", weights=clip_file())[0])


def test_the_checkpoint_of_lseg_brings_its_words(tmp_path: Path) -> None:
    state = random_state(SMALL, text_width=128, text_depth=2)
    tower = {f"net.clip_pretrained.{name}": value for name, value in random_clip(True).state_dict().items()}
    state |= {name: value.half() for name, value in tower.items() if ".visual." not in name}
    path = write_checkpoint(tmp_path / "demo_e200.ckpt", state)
    vectors = encode_text(WORDS, "lseg?scales=1", weights=path)
    torch.testing.assert_close(vectors, by_open_clip(WORDS), rtol=2e-2, atol=2e-3)
    assert torch.equal(vectors, encode_text(WORDS, "lseg", weights=path))


def test_without_its_checkpoint_lseg_takes_clip(own_folder: Path) -> None:
    folder = own_folder / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "clip_vit_b_32.openai.safetensors").write_bytes(clip_file().read_bytes())
    torch.testing.assert_close(encode_text(WORDS, "lseg"), by_open_clip(WORDS), rtol=1e-4, atol=1e-5)


def test_known_words_need_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    real = clip_text.encode_clip

    def counting(texts: list[str], *rest: Any) -> Tensor:
        asked.append(list(texts))
        return real(texts, *rest)

    monkeypatch.setattr(clip_text, "encode_clip", counting)
    first = encode_text(WORDS, "maskclip", weights=clip_file())
    assert torch.equal(encode_text(WORDS[::-1], "maskclip", weights=clip_file()), first.flip(0))
    assert asked == [WORDS]
    again = encode_text(["sky", "a dog", "sky"], "maskclip", weights=clip_file())
    assert asked[1:] == [["a dog"]] and torch.equal(again[0], first[1]) and torch.equal(again[2], first[1])
    encode_text(["sky"], "maskclip", weights=clip_file(), templates=["a {}"])
    encode_text(["sky"], "maskclip", weights=clip_file(quick_gelu=False))
    encode_text(["sky"], "maskclip?pretrained=laion2b", weights=clip_file())
    assert asked[2:] == [["a sky"], ["sky"], ["sky"]]


def test_other_weights_in_the_same_file_are_noticed(own_folder: Path) -> None:
    file = own_folder / "clip.safetensors"
    state = load_file(clip_file())
    save_file(state, file)
    (before,) = encode_text(["sky"], "maskclip", weights=file)
    state["text_projection"].neg_()
    save_file(state, file)
    (after,) = encode_text(["sky"], "maskclip", weights=file)
    torch.testing.assert_close(after, -before)


def test_what_is_kept_may_be_damaged_or_impossible(monkeypatch: pytest.MonkeyPatch, own_folder: Path) -> None:
    first = encode_text(["sky"], "maskclip", weights=clip_file())
    (file,) = words_folder().iterdir()
    file.write_bytes(b"no vector")
    assert torch.equal(encode_text(["sky"], "maskclip", weights=clip_file()), first)
    blocked = own_folder / "blocked"
    blocked.write_text("a file where a folder should be")
    monkeypatch.setattr(torch.hub, "_hub_dir", str(blocked / "hub"))
    assert torch.equal(encode_text(["sky"], "maskclip", weights=clip_file()), first)


def test_a_class_of_ones_own_brings_words() -> None:
    vectors = encode_text(["red", "red and blue"], "test_encoders_text:Rainbow")
    torch.testing.assert_close(vectors, torch.tensor([[1.0, 0, 0], [0.5**0.5, 0, 0.5**0.5]]))
    (mean,) = encode_text(["red"], "test_encoders_text:Rainbow", templates=["{}", "{} or green"])
    expected = functional.normalize(torch.tensor([1 + 0.5**0.5, 0.5**0.5, 0]), dim=0)
    torch.testing.assert_close(mean, expected)


def test_the_example_of_the_docs_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "teachers.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for module, part in (("my_teachers", "class MeanColour"), ("my_colours", "class NamedColour")):
        (code,) = [block for block in blocks if part in block]
        (tmp_path / f"{module}.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    vectors = encode_text(["the red roof", "red and blue"], "my_colours:NamedColour")
    torch.testing.assert_close(vectors, torch.tensor([[1.0, 0, 0], [0.5**0.5, 0, 0.5**0.5]]))
    for module in ("my_teachers", "my_colours"):
        sys.modules.pop(module)


def test_the_words_of_the_docs_run(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = own_folder / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "clip_vit_b_16.openai.safetensors").write_bytes(clip_file().read_bytes())
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "teachers.md").read_text(), re.DOTALL)
    (code,) = [block for block in blocks if "ADE20K_LABELS()" in block]
    made: dict[str, Any] = {}
    exec(compile(code, "teachers.md", "exec"), made)
    assert made["vectors"].shape == (2, SMALL_CLIP.channels)
    assert made["labels"].shape == (150, SMALL_CLIP.channels)


def test_who_has_words() -> None:
    for spec in ("lseg", "maskclip?pretrained=laion2b", "test_encoders_text:Rainbow"):
        assert has_text(spec)
    without = ("dino_vits8", "handcrafted", "timm:test_vit", "clip_base", "some/folder", "no_such", "")
    for spec in (*without, "test_encoders_text:Mute"):
        assert not has_text(spec)


@pytest.mark.parametrize(
    ("texts", "spec", "templates", "message"),
    [
        (["sky"], "dino_vits8", None, "dino_vits8 knows no words. Teachers with words: lseg, maskclip"),
        (["sky"], "test_encoders_text:Mute", None, "Mute knows no words"),
        (["sky", " "], "maskclip", None, "none of them empty"),
        ([], "maskclip", None, "expected words to look for"),
        ("sky", "maskclip", None, "expected words to look for"),
        (["sky"], "maskclip", ["a photo"], "the template 'a photo' has no {}"),
        (["castle " * 76], "maskclip", None, "has 76 tokens; CLIP reads at most 75"),
        (["red", "sky"], "test_encoders_text:Rainbow", None, "Rainbow knows no word of 'sky'"),
        (["sky"], "test_encoders_text:Confused", None, r"must give \[1, C\] finite numbers .* got \[3\]"),
    ],
)
def test_what_cannot_be_put_into_words_says_why(texts: Any, spec: str, templates: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        encode_text(texts, spec, templates=templates, weights=clip_file())


def test_a_file_without_a_text_tower_is_refused(tmp_path: Path) -> None:
    state = load_file(clip_file())
    image = {name: value for name, value in state.items() if name.startswith("visual.")}
    save_file(image, tmp_path / "image.safetensors")
    with pytest.raises(UserError, match="does not hold a text tower .*no positional_embedding"):
        encode_text(["sky"], "maskclip", weights=tmp_path / "image.safetensors")
    del state["ln_final.bias"]
    save_file(state, tmp_path / "less.safetensors")
    with pytest.raises(UserError, match="1 missing: ln_final.bias"):
        encode_text(["sky"], "maskclip", weights=tmp_path / "less.safetensors")


def test_the_labels_of_ade20k() -> None:
    labels = ADE20K_LABELS()
    assert len(labels) == len(set(labels)) == 150
    assert labels[0] == "wall" and labels[149] == "flag" and "kitchen island" in labels


def test_every_label_is_the_first_name_of_its_list(shared_data: Path) -> None:
    """The list separates words as it separates names; so a label is its first words."""
    with open(shared_data / "ade20k_150.csv", newline="") as file:
        names = [row["Name"].split(";") for row in csv.DictReader(file)]
    for label, words in zip(ADE20K_LABELS(), names, strict=True):
        assert words[: len(label.split())] == label.split()


def test_the_labels_are_installed_with_the_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["feature_gs"]
    data = ROOT / "feature_gs" / "encoders" / "data"
    installed = {path for pattern in patterns for path in (ROOT / "feature_gs").glob(pattern)}
    assert set(data.iterdir()) <= installed


def test_asking_who_has_words_imports_no_network() -> None:
    program = (
        "import sys; from feature_gs.encoders import *\n"
        "has_text('lseg'), has_text('maskclip'), has_text('dino_vits8'), ADE20K_LABELS()\n"
        "print([name for name in ('timm', 'torchvision', 'open_clip') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
