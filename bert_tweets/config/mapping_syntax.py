"""Parser for mappings on the command line: `{name: value, other: [value, value]}`, with all values as literal text.

The syntax is neither YAML nor JSON: in YAML, `#metoo` is a comment and `@user` an error; in JSON, a backslash starts an
escape sequence, but regular expressions need it. A comma or colon inside brackets of any kind, or after a backslash, is
not a separator. Values that contain these characters elsewhere must be quoted; inside quotes all text is literal, and a
doubled quote stands for one quote.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_OPENS, _CLOSES = "([{", ")]}"
_QUOTES = "\"'"
_ADVICE = 'write {name: value, other: value}, with "quotes" around text that contains a comma, colon or bracket'


def parse_mapping(text: str) -> dict[str, str]:
    """Parse a mapping in curly brackets to a dict from names to values, both as text.

    Names are unquoted; values are left as written, because they may be lists.

    Raises:
        ValueError: `text` is not a valid mapping; the message says why.
    """
    text = text.strip()
    if not (len(text) >= 2 and text[0] == "{" and text[-1] == "}"):
        raise ValueError(f"is not a mapping; {_ADVICE}")
    found: dict[str, str] = {}
    for entry in split_outside_brackets(text[1:-1], ","):
        name, *value = split_outside_brackets(entry, ":", most=2)
        name = unquoted(name)
        if len(value) != 1 or not name:
            raise ValueError(f"{entry!r} is not a name followed by a colon and a value; {_ADVICE}")
        if name in found:
            raise ValueError(f"the name {name!r} occurs twice; write it once")
        found[name] = value[0]
    return found


def parse_list(text: str) -> list[str]:
    """Parse a list in square brackets; a single value gives a list of length one.

    Raises:
        ValueError: a bracket or quote is not closed.
    """
    text = text.strip()
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    return [unquoted(part) for part in split_outside_brackets(text, ",")]


def unquoted(text: str) -> str:
    """Remove the quotes around a value, if there are any."""
    if len(text) >= 2 and text[0] in _QUOTES and text[-1] == text[0]:
        return text[1:-1].replace(text[0] * 2, text[0])
    return text


def quoted(text: str) -> str:
    """Quote a value if necessary, so that `unquoted` returns the original."""
    if re.fullmatch(r"[^\s,:()\[\]{}\"'\\](?:[^,:()\[\]{}\"'\\]*[^\s,:()\[\]{}\"'\\])?", text):
        return text
    return '"' + text.replace('"', '""') + '"'


def split_outside_brackets(text: str, mark: str, most: int = 0) -> list[str]:
    """Split text at a mark outside brackets and quotes, into at most `most` stripped, non-empty parts (0: no limit).

    Raises:
        ValueError: a bracket or quote is not closed.
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
    """Yield the positions of separators outside brackets and quotes."""
    closing: list[str] = []
    quote, closed, begins, escaped = "", "", True, False
    for place, character in enumerate(text):
        if quote:
            closed, quote = (quote, "") if character == quote else ("", quote)
            continue
        # A quote opens only at the start of a value; the second of a doubled quote reopens the one just closed.
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
        raise ValueError(f"contains an unclosed bracket or quote; {_ADVICE}")
