"""Mappings on the command line: `{name: value, other: [value, value]}`, every part of it text as it stands.

Neither YAML nor JSON: to YAML `#metoo` is a comment and `@user` an error, and JSON reads a backslash as its own, which
a regular expression needs. Within brackets of any kind, and behind a backslash, a comma or colon parts nothing; what
holds such marks otherwise stands in quotes, where everything means itself and a doubled quote is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_OPENS, _CLOSES = "([{", ")]}"
_QUOTES = "\"'"
_ADVICE = 'write {name: value, other: value}, and in "quotes" what holds a comma, colon or bracket of its own'


def parse_mapping(text: str) -> dict[str, str]:
    """Name to value, both as they stand, of a mapping in curly brackets.

    Raises:
        ValueError: it is none; says what is wrong.
    """
    text = text.strip()
    if not (len(text) >= 2 and text[0] == "{" and text[-1] == "}"):
        raise ValueError(f"is no mapping; {_ADVICE}")
    found: dict[str, str] = {}
    for entry in split_outside_brackets(text[1:-1], ","):
        name, *value = (
            unquoted(part) if not index else part
            for index, part in enumerate(split_outside_brackets(entry, ":", most=2))
        )
        if len(value) != 1 or not name:
            raise ValueError(f"{entry!r} is no name with a value; {_ADVICE}")
        if name in found:
            raise ValueError(f"{name!r} stands there twice")
        found[name] = value[0]
    return found


def parse_list(text: str) -> list[str]:
    """The texts of a list in square brackets; a single value is a list of one.

    Raises:
        ValueError: a bracket or a quote is not closed.
    """
    text = text.strip()
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    return [unquoted(part) for part in split_outside_brackets(text, ",")]


def unquoted(text: str) -> str:
    """A value without the quotes around it, if it has any."""
    if len(text) >= 2 and text[0] in _QUOTES and text[-1] == text[0]:
        return text[1:-1].replace(text[0] * 2, text[0])
    return text


def quoted(text: str) -> str:
    """A value so that `unquoted` gives it back, with quotes where it needs them."""
    if re.fullmatch(r"[^\s,:()\[\]{}\"'\\](?:[^,:()\[\]{}\"'\\]*[^\s,:()\[\]{}\"'\\])?", text):
        return text
    return '"' + text.replace('"', '""') + '"'


def split_outside_brackets(text: str, mark: str, most: int = 0) -> list[str]:
    """The parts between marks that stand outside of brackets and quotes, without spaces around; no empty ones.

    Args:
        text: to part.
        mark: one character.
        most: parts at most; 0: any number.

    Raises:
        ValueError: a bracket or a quote is not closed.
    """
    parts: list[str] = []
    begin = 0
    for place in _places(text, mark):
        if most and len(parts) == most - 1:
            break
        parts.append(text[begin:place].strip())
        begin = place + 1
    parts.append(text[begin:].strip())
    return [part for part in parts if part]


def _places(text: str, mark: str) -> Iterator[int]:
    """Where marks stand outside of brackets and quotes."""
    closing: list[str] = []
    quote, closed, begins, escaped = "", "", True, False
    for place, character in enumerate(text):
        if quote:
            closed, quote = (quote, "") if character == quote else ("", quote)
            continue
        # A quote opens where a value begins; a doubled one has just been closed and opens again.
        if character in _QUOTES and (begins or closed == character) and not escaped:
            quote, begins = character, False
            continue
        if not escaped:
            if closing and character == closing[-1]:
                closing.pop()
            elif character in _OPENS:
                closing.append(_CLOSES[_OPENS.index(character)])
            elif character == mark and not closing:
                yield place
        closed = ""
        begins = not escaped and (character in ",:[{" or (begins and character.isspace()))
        escaped = character == "\\" and not escaped
    if closing or quote:
        raise ValueError(f"has a bracket or quote that is not closed; {_ADVICE}")
