"""A COLMAP program for tests: writes down how it was called, and hands out what was reconstructed before."""

import json
import sys
from pathlib import Path
from typing import Any

_SOURCE = """#!{python}
import json, os, shutil, sqlite3, sys, time
stage, arguments = sys.argv[1], sys.argv[2:]
if arguments == ["-h"]:
    print("--database_path arg", *{options!r})
    sys.exit(0)
flags = dict(zip(arguments[::2], arguments[1::2]))
listing = flags.get("--image_list_path")
names = open(listing, encoding="utf-8").read().splitlines() if listing else None
with open({calls!r}, "a", encoding="utf-8") as file:
    file.write(json.dumps([stage, arguments, names, os.getpid()]) + "\\n")
print(stage, "said this", flush=True)
if stage == {failing!r} == "mapper":
    os.makedirs(flags["--output_path"] + "/0")
    open(flags["--output_path"] + "/0/cameras.bin", "w").write("half")
if stage == {failing!r}:
    print("and then that it cannot go on", file=sys.stderr)
    sys.exit(3)
if stage == {hanging!r}:
    time.sleep(600)
if stage == "feature_extractor":
    sqlite3.connect({database!r}).backup(sqlite3.connect(flags["--database_path"]))
if stage == "mapper":
    shutil.copytree({models!r}, flags["--output_path"], dirs_exist_ok=True)
"""


class FakeColmap:
    """Writes the program and reads what it wrote down.

    Args:
        folder: Where to put it.
        distorted: Folder with database.db and sparse/, which it hands out as its own.
        options: What it shows when asked for its options.
        failing: The stage at which it fails.
        hanging: The stage at which it hangs.
    """

    def __init__(
        self,
        folder: Path,
        distorted: Path,
        *,
        options: tuple[str, ...] = ("--FeatureExtraction.use_gpu", "--FeatureMatching.use_gpu"),
        failing: str = "",
        hanging: str = "",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "colmap 4"
        self._calls = folder / "calls.json"
        source = _SOURCE.format(
            python=sys.executable,
            options=options,
            calls=str(self._calls),
            failing=failing,
            hanging=hanging,
            database=str(distorted / "database.db"),
            models=str(distorted / "sparse"),
        )
        self.path.write_text(source, encoding="utf-8")
        self.path.chmod(0o755)

    def calls(self) -> list[tuple[str, dict[str, str], list[str] | None]]:
        """Stage, flags, and the listed photos of each call, in order."""
        return [
            (stage, dict(zip(a[::2], a[1::2], strict=True)), names) for stage, a, names, _ in self._lines()
        ]

    def last_process(self) -> int:
        """Id of the process of the last call."""
        return int(self._lines()[-1][3])

    def _lines(self) -> list[Any]:
        if not self._calls.exists():
            return []
        return [json.loads(line) for line in self._calls.read_text(encoding="utf-8").splitlines()]
