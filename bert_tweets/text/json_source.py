"""JSON Lines: an object a line, of any shape with a text, or as Twitter's interfaces (v1.1 and v2) gave them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import UserError
from .byte_stream import CHUNK_BYTES, reader
from .rows import Columns, Rows

_LONGEST_LINE = 64 * 2**20
_LOOKED_AT = 100  # objects at the start whose keys are the columns

Object = dict[str, Any]


class JsonSource:
    """A file of JSON objects, a line each; a line may also be a page of the v2 interface (`{"data": [...]}`).

    Keys of objects inside are named with a full stop: `user.screen_name`.

    Raises:
        UserError: at once when it is empty or begins like something else.
    """

    def __init__(self, path: Path, chunk_bytes: int = CHUNK_BYTES):
        self.path = path
        self._lines = _line_blocks(path, chunk_bytes)
        self._first = next(self._lines, [])
        if not self._first:
            raise UserError(f"{path}: is empty; JSON Lines hold an object a line")
        if self._first[0].lstrip()[:1] == b"[":
            raise UserError(f"{path}: is one JSON array; write an object a line instead (jq -c '.[]')")
        objects = [found for line in self._first[:_LOOKED_AT] for found in _objects(line) or []]
        self.names = list(dict.fromkeys(name for found in objects for name in _names(found)))
        if not self.names:
            raise UserError(f"{path}: does not begin with JSON objects; JSON Lines hold an object a line")

    def rows(self, columns: Columns, first_number: int) -> Iterator[Rows]:
        wanted = columns.wanted()
        for lines in self._blocks():
            rows = _read(lines, wanted, first_number)
            first_number += rows.read
            yield rows

    def _blocks(self) -> Iterator[list[bytes]]:
        yield self._first
        yield from self._lines


def _line_blocks(path: Path, chunk_bytes: int) -> Iterator[list[bytes]]:
    """The lines that are not blank, some at a time."""
    read, carried = reader(path, chunk_bytes), b""
    while chunk := read():
        *whole, carried = (carried + chunk).split(b"\n")
        lines = [line for line in whole if line.strip()]
        if lines:
            yield lines
        if len(carried) > _LONGEST_LINE:
            raise UserError(f"{path}: holds a line longer than 64 MB; JSON Lines hold an object a line")
    if carried.strip():
        yield [carried]


def _objects(line: bytes) -> list[Object] | None:
    """The tweets of a line; None when it is no JSON object."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    page = found.get("data")
    if isinstance(page, list):
        return [tweet for tweet in page if isinstance(tweet, dict)]
    return [page] if isinstance(page, dict) and "text" in page else [found]


def _names(found: Object) -> Iterator[str]:
    for key, value in found.items():
        if isinstance(value, dict):
            yield from (f"{key}.{inner}" for inner, deep in value.items() if not isinstance(deep, dict | list))
        elif not isinstance(value, list):
            yield key


def _value(tweet: Object, name: str) -> Any:
    if name in tweet:
        return tweet[name]
    outer, _, inner = name.partition(".")
    inside = tweet.get(outer)
    return inside.get(inner) if isinstance(inside, dict) else None


def whole_text(tweet: Object, name: str) -> Any:
    """A tweet's text at its full length: what v1.1 cuts off in `text` stands elsewhere in the object.

    A retweet's own text ends in an ellipsis; the retweeted status holds all of it.
    """
    retweeted = tweet.get("retweeted_status")
    if name in ("text", "full_text") and isinstance(retweeted, dict):
        author, text = _value(retweeted, "user.screen_name"), whole_text(retweeted, name)
        if isinstance(author, str) and isinstance(text, str):
            return f"RT @{author}: {text}"
    if name == "text":
        for longer in (_value(tweet, "extended_tweet.full_text"), tweet.get("full_text")):
            if isinstance(longer, str):
                return longer
    return _value(tweet, name)


def _read(lines: list[bytes], wanted: dict[str, str], first_number: int) -> Rows:
    fields: dict[str, list[str]] = {role: [] for role in wanted}
    numbers: list[int] = []
    malformed = not_utf8 = 0
    number = first_number
    for line in lines:
        try:
            line.decode()
        except UnicodeDecodeError:
            not_utf8, number = not_utf8 + 1, number + 1
            continue
        for tweet in _objects(line) or [{}]:
            values = {role: _as_text(tweet, role, name) for role, name in wanted.items()}
            if values["text"] is None:
                malformed += 1
            else:
                numbers.append(number)
                for role, value in values.items():
                    fields[role].append(value or "")
            number += 1
    arrays = {role: pa.array(values, pa.string()) for role, values in fields.items()}
    return Rows(
        arrays["text"],
        arrays.get("id"),
        arrays.get("time"),
        arrays.get("author"),
        np.array(numbers, dtype=np.int64),
        malformed,
        not_utf8,
    )


def _as_text(tweet: Object, role: str, name: str) -> str | None:
    """A value as text; None where there is none, or it holds half a surrogate pair."""
    value = whole_text(tweet, name) if role == "text" else _value(tweet, name)
    if role == "text" and not isinstance(value, str):
        return None
    if value is None or isinstance(value, dict | list):
        return None
    text = str(value)
    return text if text.isascii() or _has_no_surrogate(text) else None


def _has_no_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
