"""The command line as a whole: verbs, exit codes, errors; and `feature-gs info`."""

import errno
import sys
import types
from collections.abc import Callable

import pytest
import torch

from feature_gs import __version__
from feature_gs.cli import info
from feature_gs.cli.main import VERBS, main
from feature_gs.errors import UserError


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[list[str]], int]], None]:
    """Puts a function in the place of the verb `train`."""

    def replace(function: Callable[[list[str]], int]) -> None:
        module = types.ModuleType("feature_gs.cli.train")
        module.main = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "feature_gs.cli.train", module)

    return replace


@pytest.mark.parametrize("argv", [[], ["-h"], ["--help"], ["help"]])
def test_help_lists_every_verb_on_one_line_of_80_columns(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    for name in VERBS:
        assert len([line for line in lines if line.split()[:1] == [name]]) == 1


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"feature-gs {__version__}\n"


def test_verb_gets_the_rest_of_the_line_and_gives_the_exit_code(verb: Callable[..., None]) -> None:
    seen: list[str] = []

    def train(argv: list[str]) -> int:
        seen.extend(argv)
        return 3

    verb(train)
    assert main(["train", "-s", "fox", "--eval"]) == 3
    assert seen == ["-s", "fox", "--eval"]


def test_unknown_verb_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert "Did you mean `feature-gs train`?" in capsys.readouterr().err
    assert main(["xyz"]) == 2
    assert "convert, encode, train" in capsys.readouterr().err


def raising(error: BaseException) -> Callable[[list[str]], int]:
    def train(argv: list[str]) -> int:
        raise error

    return train


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("no such folder: fox"), 2, "error: no such folder: fox\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (OSError(errno.ENOSPC, "No space left on device", "a.ply"), 2, "error: the disk is full: a.ply\n"),
        (OSError(errno.EROFS, "Read-only file system", "out"), 2, "error: out: Read-only file system. Name"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "f/x"), 2, "error: f/x: Not a directory. Name"),
        (
            ModuleNotFoundError("No module named 'feature_gs._C'", name="feature_gs._C"),
            2,
            "pip install -e . --no-build-isolation",
        ),
    ],
)
def test_errors_of_the_user_have_a_message_and_no_traceback(
    error: BaseException,
    code: int,
    message: str,
    verb: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    verb(raising(error))
    assert main(["train"]) == code
    printed = capsys.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err and printed.out == ""


@pytest.mark.parametrize(
    "error", [ValueError("a bug"), OSError(errno.EIO, "broken disk"), ImportError("other")]
)
def test_faults_of_the_program_keep_their_traceback(error: BaseException, verb: Callable[..., None]) -> None:
    verb(raising(error))
    with pytest.raises(type(error)):
        main(["train"])


def test_info_fits_80_columns_and_names_the_versions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    assert __version__ in printed and torch.__version__ in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_info_tells_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    built = {"cuda": False, "architectures": "", "simd": "avx2", "compiler": "g++"}
    assert "compiled core" in info.missing(None)[0][0]
    assert "CUDA" in info.missing(built)[0][0]
    assert not any("CUDA" in what for what, _ in info.missing({**built, "cuda": True}))

    found = info.importlib.util.find_spec

    def find(name: str) -> object:
        return found("torch") if name == "torchmetrics" else None

    monkeypatch.setattr(info.importlib.util, "find_spec", find)
    assert [what for what, _ in info.missing(None)[1:]] == ["imageio[ffmpeg]: videos"]
