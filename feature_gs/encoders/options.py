"""Options of an encoder: `dino_vits8?layer=9&facet=key`, read by type, refused when unknown."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from feature_gs.errors import UserError


@dataclass(frozen=True)
class Option:
    """One setting of an encoder.

    Attributes:
        read: Turns the text of the option into its value; raises ValueError when it cannot.
        default: The value when the option is not given.
        says: One line for people: what the option does.
    """

    read: Callable[[str], Any]
    default: Any
    says: str


def whole_number(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or not 0 < int(text) < 1 << 20:
        raise ValueError("expected a whole number above 0")
    return int(text)


def yes_or_no(text: str) -> bool:
    """True or false, in any of the usual words."""
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in words:
        raise ValueError("expected true or false")
    return words[text.lower()]


def one_of(*choices: str) -> Callable[[str], str]:
    """A reader that takes one of a few words."""

    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"expected one of {', '.join(choices)}")
        return text

    return read


def split_spec(spec: str) -> tuple[str, dict[str, str]]:
    """Cuts `name?option=value&option=value` into the name and its options.

    Raises:
        UserError: An option has no value or appears twice.
    """
    name, _, query = spec.partition("?")
    options: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        key, equals, value = part.partition("=")
        if not (key and equals and value) or key in options:
            raise UserError(
                f"cannot read {part!r} in {spec!r}: expected {name}?option=value&option=value, each once."
            )
        options[key] = value
    return name, options


def read_options(name: str, given: Mapping[str, Any], known: Mapping[str, Option]) -> dict[str, Any]:
    """Values of all options of an encoder.

    Args:
        name: The encoder, for messages.
        given: Options as the user wrote them; values that are not text are read as if they were.
        known: The encoder's options.

    Returns:
        A value for every known option, in their order.

    Raises:
        UserError: An option is unknown, or its value cannot be read.
    """
    for key in given:
        if key not in known:
            listed = "; ".join(f"{option} ({known[option].says})" for option in known) or "none"
            raise UserError(
                f"{name} has no option {key!r}.{suggestion(key, known)}\n  Its options: {listed}."
            )
    values = {key: option.default for key, option in known.items()}
    for key, value in given.items():
        try:
            values[key] = known[key].read(str(value))
        except ValueError as error:
            raise UserError(f"cannot read option {key}={value} of {name}: {error}.") from None
    return values


def suggestion(word: str, choices: Mapping[str, Any] | list[str]) -> str:
    """` Did you mean ...?` when something is spelt like `word`, else nothing."""
    close = difflib.get_close_matches(word, list(choices), n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(close)}?" if close else ""
