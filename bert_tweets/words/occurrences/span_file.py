"""Read a file of spans: texts, where in each the word is, and any further columns."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bert_tweets.common.arrays import Ints
from bert_tweets.common.errors import UserError
from bert_tweets.corpus.sources import timestamps
from bert_tweets.corpus.sources.byte_stream import open_file, readable
from bert_tweets.corpus.sources.discovery import open_tweets, read_tweets, reading_advice
from bert_tweets.corpus.sources.schema import NAMES, Columns

from .matching import Word, fold, tidy, words_of
from .queries import require_unique_names

# An integer as tables write it: 3, 3.0
_WHOLE = r"^\s*(?P<whole>[0-9]{1,9})(?:\.0*)?\s*$"
_WANTED = ("text", "start", "end")


@dataclass(frozen=True)
class SpanFile:
    """A file of spans, one per row.

    Attributes:
        texts: string [rows], as in the file.
        start, end: int64 [rows], span in characters of the text, end excluded.
        words: chosen words, in order of appearance.
        number: int64 [rows], index of each row's word.
        id, author, time: columns as in shards.
        groups: all other columns by name, string [rows]; null if a value is empty.
        sha256: hash of the file, as hex.
    """

    texts: pa.Array
    start: Ints
    end: Ints
    words: list[Word]
    number: Ints
    id: pa.Array
    author: pa.Array
    time: pa.Array
    groups: dict[str, pa.Array]
    sha256: str

    def __len__(self) -> int:
        return len(self.start)


def read_spans(path: str) -> SpanFile:
    """Read CSV, JSON Lines, Parquet or Arrow with the columns text, start, end and optionally word.

    Raises:
        UserError: it cannot be read, lacks a column, or a row has a span outside its text; names the row.
    """
    names = _columns(path)
    parts = list(read_tweets([path], names))
    if any(rows.malformed or rows.not_utf8 for rows in parts):
        raise UserError(f"{path}: some rows cannot be read; {reading_advice([path])}")
    fields = {
        role: pa.concat_arrays([pa.array([], pa.string()), *(rows.fields[role].cast(pa.string()) for rows in parts)])
        for role in names.wanted()
    }
    texts = fields["text"]
    start, end = (_whole_numbers(fields[f"group.{name}"], name, path) for name in ("start", "end"))
    _require_spans(texts, start, end, path)
    words, number = _words(texts, start, end, fields.get("group.word"), path)
    digest = _digest(path)
    rows = pa.array(map(str, range(1, len(start) + 1)), pa.string())
    nothing = pa.nulls(len(start), pa.string())
    kept = {role.removeprefix("group."): column for role, column in fields.items() if role.startswith("group.")}
    return SpanFile(
        texts,
        start,
        end,
        words,
        number,
        fields.get("id", rows),
        _hashed(fields.get("author", nothing), digest),
        timestamps.parse_times(fields.get("time", nothing)),
        # As in shards, an empty value is no group.
        {
            name: pc.if_else(pc.equal(pc.utf8_trim_whitespace(column), ""), pa.scalar(None, pa.string()), column)
            for name, column in kept.items()
            if name not in ("start", "end", "word")
        },
        digest,
    )


def _digest(path: str) -> str:
    with readable(path), open_file(path, from_start_to_end=True) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _columns(path: str) -> Columns:
    source = open_tweets(path)
    missing = [name for name in _WANTED if source.names.count(name) != 1]
    if missing:
        raise UserError(
            f"{path}: has no column '{missing[0]}', or several; occurrences= needs {', '.join(_WANTED)} "
            f"(characters from 0, end excluded); it has {', '.join(source.names[:20])}"
        )
    known = {
        role: next((name for name in NAMES[role] if name in source.readable), None) for role in ("id", "time", "author")
    }
    # Authors are kept as hashes only, of one of the columns that name them.
    others = [name for name in source.names if name in source.readable and name not in ("text", *NAMES["author"])]
    return Columns("text", **known, groups=tuple(dict.fromkeys(others)))


def _whole_numbers(column: pa.Array, name: str, path: str) -> Ints:
    found = pc.extract_regex(column, _WHOLE)
    if found.null_count:
        row = pc.index(pc.is_null(found), True).as_py()
        raise UserError(f"{path}: row {row + 1}: {name} is {column[row].as_py()!r:.40}; give a number of characters")
    return np.asarray(pc.struct_field(found, "whole").cast(pa.int64()), np.int64)


def _require_spans(texts: pa.Array, start: Ints, end: Ints, path: str) -> None:
    if not len(start):
        raise UserError(f"{path}: has no rows; give one per span")
    length = np.asarray(pc.utf8_length(texts), np.int64)
    wrong = np.flatnonzero((end <= start) | (end > length))
    if len(wrong):
        row = int(wrong[0])
        raise UserError(
            f"{path}: row {row + 1}: {start[row]} to {end[row]} is not a span of its text of {length[row]} characters; "
            f"count characters from 0, end excluded ({len(wrong)} such row(s))"
        )


def _words(texts: pa.Array, start: Ints, end: Ints, named: pa.Array | None, path: str) -> tuple[list[Word], Ints]:
    """The words, and the index of each row's: from the column `word`, or else from the span's own text."""
    if named is None:
        rows = zip(texts.to_pylist(), start.tolist(), end.tolist(), strict=True)
        names = [fold(tidy(text[first:last])) for text, first, last in rows]
    else:
        names = [tidy(name) for name in named.to_pylist()]
    if "" in names:
        where = "its span is of spaces only" if named is None else "has no word"
        raise UserError(f"{path}: row {names.index('') + 1}: {where}; give one, or remove the row")
    words = words_of(names)
    require_unique_names(words)
    number = {word.key: index for index, word in enumerate(words)}
    keys = {name: number[fold(name)] for name in set(names)}
    return words, np.array([keys[name] for name in names], np.int64)


def _hashed(authors: pa.Array, salt: str) -> pa.Array:
    """Hashes that identify authors within this file only; null if there is no author."""
    coded = authors.dictionary_encode()
    hashes = [
        hashlib.sha256(f"{salt}\n{name}".encode()).hexdigest()[:16] if name else None
        for name in coded.dictionary.to_pylist()
    ]
    return pa.array(hashes, pa.string()).take(coded.indices)
