"""Laws of the repository: who may import whom, what is declared, what is pinned, what stays out."""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

import feature_gs

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "feature_gs"

# Ground floor first: a folder imports only from the ones before it.
FLOORS = [
    *("_C", "errors", "files", "encoders"),
    *("rasterizer", "gaussians", "scenes", "rendering", "features", "evaluation", "training"),
    *("queries", "editing", "cli"),
]
LONGEST_FILE = 500  # lines
LARGEST_FILE = 1 << 20  # bytes


def imported_modules(path: Path) -> Iterator[str]:
    """Full names of all modules that a file imports, also inside functions."""
    package = ".".join(path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                ancestors = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*ancestors, *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def tracked_files() -> list[Path]:
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True)
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def project() -> dict[str, Any]:
    with open(ROOT / "pyproject.toml", "rb") as file:
        return dict(tomllib.load(file))


def distribution(requirement: str) -> str:
    """The bare name of a requirement, in the one spelling that all its spellings are equal to."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=!~;]", requirement.strip())[0]).lower()


def test_every_folder_has_a_floor() -> None:
    rooms = {
        path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert rooms - {"__init__"} <= set(FLOORS)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_folder_imports_only_from_floors_below(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    own = FLOORS.index(room) if room != "__init__" else len(FLOORS)  # feature_gs itself is the roof
    for module in imported_modules(path):
        parts = module.split(".")
        if parts[0] == "feature_gs" and len(parts) > 1 and parts[1] in FLOORS:
            assert FLOORS.index(parts[1]) <= own, f"{room} imports {module}, which is above it"


def test_relative_imports_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "a" / "b").mkdir(parents=True)
    file = tmp_path / "a" / "b" / "c.py"
    file.write_text("from . import x\nfrom ..y import z\ndef f():\n    import numpy.linalg\n")
    assert list(imported_modules(file)) == ["a.b.x", "a.y.z", "numpy.linalg"]


def test_importing_feature_gs_loads_nothing_heavy() -> None:
    """What it offers is imported when it is called."""
    program = "import sys, feature_gs; print(*(set(sys.modules) & {'torch', 'numpy', 'feature_gs.scenes'}))"
    shown = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True, text=True
    )
    assert shown.stdout.strip() == ""


def test_encoders_stand_alone() -> None:
    """Somebody may want the teachers and nothing else of feature_gs."""
    for path in sorted((PACKAGE / "encoders").rglob("*.py")):
        own = [module.split(".") for module in imported_modules(path) if module.startswith("feature_gs.")]
        assert {parts[1] for parts in own} <= {"encoders", "errors", "files"}, path.name


def test_what_is_imported_is_declared() -> None:
    requirements = list(project()["project"]["dependencies"])
    for name, extra in project()["project"]["optional-dependencies"].items():
        requirements += extra if name != "dev" else []
    declared = {distribution(requirement) for requirement in requirements}
    owners = packages_distributions()
    imported = {module for path in sources() for module in imported_modules(path)}
    for module in sorted(imported):
        top = module.split(".")[0]
        if top == "feature_gs" or top in sys.stdlib_module_names:
            continue
        names = {distribution(owner) for owner in owners.get(top, [top])}
        assert names & declared, (
            f"feature_gs imports {module}; pyproject.toml declares none of {sorted(names)}"
        )


def test_what_is_declared_is_used() -> None:
    text = "\n".join(path.read_text() for path in sources())
    tops: dict[str, set[str]] = {}
    for top, owners in packages_distributions().items():
        for owner in owners:
            tops.setdefault(distribution(owner), set()).add(top)
    for requirement in project()["project"]["dependencies"]:
        names = tops[distribution(requirement)]
        assert any(re.search(rf"\b{re.escape(name)}\b", text) for name in names), (
            f"nothing uses {requirement}"
        )


def test_every_requirement_is_pinned_to_one_version() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r'[\w-]+==[\w.]+(; python_version (>=|<) "3\.\d+")?', pin) for pin in pins)
    pinned = {distribution(pin) for pin in pins}
    settings = project()
    wanted = [
        *settings["build-system"]["requires"],
        *settings["project"]["dependencies"],
        *(name for extra in settings["project"]["optional-dependencies"].values() for name in extra),
    ]
    assert {distribution(requirement) for requirement in wanted} <= pinned


def test_every_way_to_install_brings_what_the_build_needs() -> None:
    needed = {distribution(requirement) for requirement in project()["build-system"]["requires"]}
    conda = set(re.findall(r"^ +- ([\w-]+)", (ROOT / "environment.yml").read_text(), re.MULTILINE))
    assert needed <= conda
    makefile = (ROOT / "Makefile").read_text()
    assert needed <= set(re.findall(r"[\w-]+", makefile))
    by_hand = re.search(
        r"^#   pip install -c constraints.txt (torch.*)$", (ROOT / "pyproject.toml").read_text(), re.M
    )
    assert by_hand is not None
    assert needed == set(by_hand[1].split())


def test_make_help_names_every_target() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    assert set(phony[1].split()) - {"help"} == set(re.findall(r"^make ([\w-]+)", shown, re.MULTILINE))


def test_the_version_is_written_once() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", feature_gs.__version__)
    written = [path for path in sources() if feature_gs.__version__ in path.read_text()]
    assert written == [PACKAGE / "__init__.py"]


def test_no_file_is_large() -> None:
    assert [path for path in tracked_files() if path.stat().st_size > LARGEST_FILE] == []


def test_no_source_is_long() -> None:
    code = [path for path in tracked_files() if path.suffix in {".py", ".cpp", ".cu", ".h", ".cuh"}]
    assert [path for path in code if len(path.read_text().splitlines()) > LONGEST_FILE] == []


def test_no_path_of_a_single_machine() -> None:
    machine = re.compile(rb"(?<![\w.\-}>])/(home|root|Users|work|tmp|mnt|opt|scratch)/\w")
    found = [
        f"{path.relative_to(ROOT)}: {line.decode(errors='replace').strip()}"
        for path in tracked_files()
        for line in path.read_bytes().splitlines()
        if path.suffix not in {".png", ".jpg"} and machine.search(line)
    ]
    assert found == []
