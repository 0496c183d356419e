"""Reading YAML from anybody: no tags, no duplicate keys, and every complaint names its line."""

import difflib
import math
import re
import reprlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml

from feature_gs.errors import UserError

_LARGEST_FILE = 1 << 20  # bytes
_LARGEST_NUMBER = 1e30


class Entry(dict[str, Any]):
    """A mapping of a YAML file that knows its lines.

    Attributes:
        line: Where it begins, from 1.
        lines: Where each key is.
    """

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line
        self.lines: dict[str, int] = {}


class _Loader(yaml.SafeLoader):
    """Plain YAML types, mappings as `Entry`; no aliases, which can make a small file mean a huge one."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Composes one node, unless it is an alias."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "aliases (*NAME) are not read", mark)
        return super().compose_node(parent, index)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """The value of a node; PyYAML lets a tag that does not fit (`!!int foo`) end in any error."""
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            kind = node.tag.rpartition(":")[2]
            problem = f"{_kind(node.value)} is no {kind}: if it is meant as a text, put it in quotes"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error


def _mapping(loader: _Loader, node: yaml.Node) -> Iterator[Entry]:
    if not isinstance(node, yaml.MappingNode):  # the tag alone says that it is one
        raise yaml.constructor.ConstructorError(None, None, "!!map needs keys and values", node.start_mark)
    entry = Entry(node.start_mark.line + 1)
    yield entry
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            problem = f"the key {reprlib.repr(key)} is no text: put it in quotes"
            raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
        if key in entry:
            raise yaml.constructor.ConstructorError(None, None, f"{key} is there twice", key_node.start_mark)
        entry[key] = loader.construct_object(value_node, deep=True)
        entry.lines[key] = key_node.start_mark.line + 1


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
# YAML 1.1 takes 1e-3 for a text, to everybody's surprise.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> Entry:
    """The mapping in a YAML file; nothing in the file is run.

    Raises:
        UserError: The file is missing, larger than 1 MiB, no YAML, or holds something other than a mapping.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise UserError(f"{path} is larger than 1 MiB: that is no list of edits.")
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}.") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: {error.problem or error}.") from error
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise UserError(f"{path} is no YAML that can be read ({error}).") from error
    if not isinstance(content, Entry):
        raise UserError(f"{path} must hold keys and values (KEY: VALUE), got {_kind(content)}.")
    return content


class Reader:
    """Takes values out of an entry; what is missing, wrong or left over is an error that names the line."""

    def __init__(self, path: Path, entry: Entry, about: str) -> None:
        """Reads `entry` of the file `path`; `about` says in messages what it is ("rotate")."""
        self._path = path
        self._entry = entry
        self._about = about
        self._taken: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._entry

    def where(self, key: str | None = None) -> str:
        """File and line of a key, or of the whole entry."""
        line = self._entry.line if key is None else self._entry.lines.get(key, self._entry.line)
        return f"{self._path}, line {line}"

    def error(self, problem: str, key: str | None = None) -> UserError:
        """The error to raise about a key, or about the whole entry."""
        return UserError(f"{self.where(key)}: {self._about}: {problem}")

    def inner(self, key: str, entry: Entry) -> "Reader":
        """A reader of the entry that a key holds."""
        about = key if key == self._about else f"{self._about} {key}"  # an edit's first key is its name
        return Reader(self._path, entry, about)

    def raw(self, key: str) -> Any:
        """The value of a key of any type; it must be there."""
        if key not in self._entry:
            raise self.error(f"{key} is missing.")
        self._taken.add(key)
        return self._entry[key]

    def text(self, key: str) -> str:
        """A text that is not empty."""
        value = self.raw(key)
        if not isinstance(value, str) or not value.strip():
            raise self._wrong(key, "a text (in quotes, if it looks like a number)", value)
        return value.strip()

    def texts(self, key: str) -> list[str]:
        """A list of texts, or texts with commas between them; at least one."""
        value = self.raw(key)
        parts = value.split(",") if isinstance(value, str) else value
        if isinstance(parts, list) and all(isinstance(part, str) for part in parts):
            words = [part.strip() for part in parts]
            if words and all(words):
                return words
        raise self._wrong(key, "texts with commas between them", value)

    def flag(self, key: str) -> bool:
        """True or false; false when it is missing."""
        if key not in self:
            return False
        value = self.raw(key)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false", value)
        return value

    def number(self, key: str, low: float = -math.inf, high: float = math.inf) -> float:
        """A finite number from `low` to `high`."""
        value = self.raw(key)
        if not is_number(value) or not low <= value <= high:
            raise self._wrong(key, f"a number{_limits(low, high)}", value)
        return float(value)

    def whole(self, key: str, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        value = self.raw(key)
        if type(value) is not int or not low <= value <= high:
            raise self._wrong(key, f"a whole number{_limits(low, high)}", value)
        return value

    def numbers(self, key: str, count: int) -> list[float]:
        """A list of `count` finite numbers."""
        value = self.raw(key)
        if not isinstance(value, list) or len(value) != count or not all(map(is_number, value)):
            raise self._wrong(key, f"a list of {count} numbers", value)
        return [float(number) for number in value]

    def rows(self, key: str, rows: int | None, columns: int) -> list[list[float]]:
        """A list of `rows` (None: one or more) lists of `columns` finite numbers."""
        value = self.raw(key)
        wanted = f"{rows or 'some'} lists of {columns} numbers"
        if not isinstance(value, list) or not value or (rows is not None and len(value) != rows):
            raise self._wrong(key, wanted, value)
        for row in value:
            if not isinstance(row, list) or len(row) != columns or not all(map(is_number, row)):
                raise self._wrong(key, wanted, value)
        return [[float(number) for number in row] for row in value]

    def one_of(self, keys: Collection[str]) -> str:
        """Which of the keys is there; it must be exactly one."""
        there = [key for key in keys if key in self._entry]
        if len(there) != 1:
            got = " and ".join(there) if there else f"only {_listed(self._entry)}"
            raise self.error(f"takes one of {_listed(keys)}, got {got}.{self._hint(keys)}")
        return there[0]

    def finish(self, known: Collection[str] = ()) -> None:
        """Complains of keys that nobody took; `known` are the names to guess from beside those taken."""
        unknown = [key for key in self._entry if key not in self._taken]
        if unknown:
            names = [*self._taken, *known]
            near = difflib.get_close_matches(unknown[0], names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it takes {_listed(sorted(names))}."
            raise self.error(f"{unknown[0]} has no meaning here: {hint}", unknown[0])

    def _hint(self, keys: Collection[str]) -> str:
        guesses = (difflib.get_close_matches(key, keys, n=1) for key in self._entry)
        near = next((guess[0] for guess in guesses if guess), None)
        return f" Did you mean {near}?" if near and near not in self._entry else ""

    def _wrong(self, key: str, expected: str, value: Any) -> UserError:
        return self.error(f"{key} must be {expected}, got {_kind(value)}.", key)


def is_number(value: Any) -> bool:
    """Whether a value is a number that can be reckoned with: not NaN, not beyond 1e30."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST_NUMBER


def _limits(low: float, high: float) -> str:
    if math.isinf(low) and math.isinf(high):
        return ""
    if math.isinf(high):
        return f" of at least {low:g}"
    return f" from {low:g} to {high:g}"


def _listed(names: Collection[str]) -> str:
    return ", ".join(names) or "nothing"


def _kind(value: Any) -> str:
    """A value as it may be shown: short, whatever it holds."""
    return "nothing" if value is None else reprlib.repr(value)
