"""What has been done to a folder, in distorted/convert.json, so that the next run goes on from there.

A stage is known by a key, the fingerprint of everything it depends on: other photos or settings give another
key, and the stage is done again.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from feature_gs.files import atomic_write


def fingerprint(*parts: object) -> str:
    """A key for anything that JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class Record:
    """The stages of one scene. Every change is on disk before the method returns.

    Args:
        path: The file. One that is missing or damaged is the record of a scene where nothing was done.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stages: dict[str, dict[str, Any]] = {}
        try:
            stages = json.loads(path.read_text(encoding="utf-8"))["stages"]
            self._stages = {str(k): dict(v) for k, v in stages.items() if "key" in v and "done" in v}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass

    def started(self, stage: str, key: str | None = None) -> bool:
        """Whether a stage was begun, with this key or with any."""
        entry = self._stages.get(stage)
        return entry is not None and key in (None, entry["key"])

    def done(self, stage: str, key: str | None = None) -> bool:
        """Whether a stage was finished, with this key or with any."""
        return self.started(stage, key) and self._stages[stage]["done"] is True

    def start(self, stage: str, key: str) -> None:
        """Notes that a stage begins: from now on what it writes is its own."""
        self._put(stage, {"key": key, "done": False})

    def finish(self, stage: str, key: str) -> None:
        """Notes that a stage is finished and its files are in place."""
        self._put(stage, {"key": key, "done": True})

    def forget(self, *stages: str) -> None:
        """Notes that stages are to be done again."""
        for stage in stages:
            self._stages.pop(stage, None)
        self._write()

    def _put(self, stage: str, entry: dict[str, Any]) -> None:
        self._stages[stage] = entry
        self._write()

    def _write(self) -> None:
        with atomic_write(self.path) as temporary:
            temporary.write_text(json.dumps({"stages": self._stages}, indent=1) + "\n", encoding="utf-8")
