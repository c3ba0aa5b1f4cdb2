"""Read files of pairs: a word in two texts, and whether it means the same in both.

The formats are WiC (Pilehvar and Camacho-Collados 2019, "WiC: the Word-in-Context dataset", NAACL), tab-separated or as
SuperGLUE's JSON lines, TempoWiC (Loureiro et al. 2022, "TempoWiC", COLING), and a similar one for your own pairs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bert_tweets.common.arrays import Ints
from bert_tweets.common.errors import UserError

_SAME = {"1": 1, "t": 1, "true": 1, "0": 0, "f": 0, "false": 0}
_FILE_NAMES = (
    ("{}.data.txt", "{}.gold.txt"),
    ("{}.data.jl", "{}.labels.tsv"),
    ("{}.data.jl", "{}.gold.tsv"),
    ("{}.data.jsonl", "{}.labels.tsv"),
)
_FORMS = (
    "give tab-separated lines (word, part of speech, index-index, text, text), or JSON lines with word and sentence1, "
    "start1, end1, sentence2, …, or tweet1 and tweet2 with text, text_start, text_end, or text1, start1, end1, text2, …"
)


@dataclass(frozen=True)
class Pairs:
    """Pairs of a file, in its order.

    Attributes:
        words: the word of each pair, lower case, without surrounding spaces.
        texts: both texts of the first pair, of the second, …; [2 * pairs].
        start, end: int64 [2 * pairs], span of the word in characters, end excluded.
        same: int64 [pairs], 1 if the word means the same in both.
        unlabelled: number of further pairs whose ids have no label (as in TempoWiC's test file).
    """

    path: str
    words: list[str]
    texts: list[str]
    start: Ints
    end: Ints
    same: Ints
    unlabelled: int = 0

    def __len__(self) -> int:
        return len(self.words)

    def identities(self) -> list[frozenset[tuple[str, int, int]]]:
        """A key per pair that does not depend on which of its texts comes first."""
        sides = list(zip(self.texts, self.start.tolist(), self.end.tolist(), strict=True))
        return [frozenset(pair) for pair in zip(sides[::2], sides[1::2], strict=True)]


@dataclass(frozen=True)
class _Pair:
    """One line: word, id and label as in the file, two (text, start, end)."""

    word: str
    name: str | None
    label: str | None
    sides: tuple[tuple[str, int, int], tuple[str, int, int]]


def read_pairs(path: str, labels: str = "") -> Pairs:
    """Read a file of pairs and their labels.

    Args:
        labels: file with a label per line, T or F or 1 or 0, or with id, tab and label; empty: the labels are in the
            pairs themselves, or in the file next to them as WiC (`train.gold.txt`) and TempoWiC (`train.labels.tsv`)
            name it.

    Raises:
        UserError: a file cannot be read, or a line has an unknown format, no valid span or no label; names the line.
    """
    parsed = [(number, _pair(line, f"{path}:{number}")) for number, line in _lines(path)]
    if not parsed:
        raise UserError(f"{path}: has no pairs")
    for number, pair in parsed:
        for text, start, end in pair.sides:
            if not 0 <= start < end <= len(text):
                raise UserError(
                    f"{path}:{number}: {start} to {end} is not a span of its text of {len(text)} characters"
                )
    given = [pair.label for _, pair in parsed]
    if labels or None in given:
        given = _labels(labels or _label_file(path), [pair for _, pair in parsed], path)
    every = len(parsed)
    parsed = [one for one, label in zip(parsed, given, strict=True) if label is not None]
    given = [label for label in given if label is not None]
    same = [_SAME.get(str(label).strip().casefold(), -1) for label in given]
    for (number, _), value, label in zip(parsed, same, given, strict=True):
        if value < 0:
            raise UserError(
                f"{path}:{number}: its label is '{label}'; give 1, T or true for the same meaning, else 0, F or false"
            )
    sides = [side for _, pair in parsed for side in pair.sides]
    return Pairs(
        path,
        [pair.word.strip().casefold() for _, pair in parsed],
        [text for text, _, _ in sides],
        np.array([start for _, start, _ in sides], np.int64),
        np.array([end for _, _, end in sides], np.int64),
        np.array(same, np.int64),
        every - len(parsed),
    )


def _lines(path: str) -> Iterator[tuple[int, str]]:
    """Lines that are not empty, numbered from 1."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8") from None
    # Not splitlines, which also splits at rarer characters that occur in tweets.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line.removesuffix("\r")


def _pair(line: str, where: str) -> _Pair:
    if not line.lstrip().startswith("{"):
        return _of_tabs(line, where)
    try:
        return _of_json(json.loads(line))
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: is not JSON ({error.msg})") from None
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        raise UserError(f"{where}: is not a pair; {_FORMS}") from None


def _of_json(record: dict[str, Any]) -> _Pair:
    if "tweet1" in record:
        tweets = (record["tweet1"], record["tweet2"])
        first, second = ((one["text"], int(one["text_start"]), int(one["text_end"])) for one in tweets)
    else:
        kind = "sentence" if "sentence1" in record else "text"
        first, second = (
            (record[f"{kind}{side}"], int(record[f"start{side}"]), int(record[f"end{side}"])) for side in (1, 2)
        )
    if not isinstance(first[0], str) or not isinstance(second[0], str):
        raise TypeError
    # Half of a surrogate pair, which JSON can write, is not text: raises ValueError.
    f"{record['word']}{first[0]}{second[0]}".encode()
    name = next((str(record[key]) for key in ("id", "idx") if key in record), None)
    label = record.get("label")
    return _Pair(str(record["word"]), name, None if label is None else str(label), (first, second))


def _of_tabs(line: str, where: str) -> _Pair:
    cells = line.split("\t")
    places = re.fullmatch(r"(\d+)-(\d+)", cells[2].strip()) if len(cells) == 5 else None
    if not places:
        raise UserError(f"{where}: is not a pair; {_FORMS}")
    first, second = (_token(text, int(place), where) for text, place in zip(cells[3:], places.groups(), strict=True))
    return _Pair(cells[0], None, None, (first, second))


def _token(text: str, place: int, where: str) -> tuple[str, int, int]:
    """A text, and the span of its token with that number; tokens are separated by spaces."""
    tokens = list(re.finditer(r"\S+", text))
    if place >= len(tokens):
        raise UserError(f"{where}: its text has {len(tokens)} tokens, but the word's index is {place} (from 0)")
    return text, tokens[place].start(), tokens[place].end()


def _label_file(path: str) -> str:
    """The label file next to a file of pairs, as WiC and TempoWiC name it."""
    name = Path(path).name
    for data, gold in _FILE_NAMES:
        stem = name.removesuffix(data.format(""))
        if stem != name and (file := Path(path).with_name(gold.format(stem))).is_file():
            return str(file)
    raise UserError(f"{path}: has no labels, and there is no label file next to it; give labels=FILE")


def _labels(path: str, pairs: list[_Pair], of: str) -> list[str | None]:
    """The label of each pair, by id if the file has ids (None if the id is missing), else in order."""
    rows = [line.split("\t") for _, line in _lines(path)]
    if rows and rows[0][-1].strip().casefold() == "label":
        rows = rows[1:]
    if rows and all(len(row) == 2 for row in rows):
        by_name = {name.strip(): label for name, label in rows}
        if not any(pair.name in by_name for pair in pairs):
            raise UserError(f"{path}: has no label with the id of a pair of {of}")
        return [by_name.get(str(pair.name)) for pair in pairs]
    if len(rows) != len(pairs) or any(len(row) != 1 for row in rows):
        raise UserError(
            f"{path}: has {len(rows)} lines, but {of} has {len(pairs)} pairs; give a label per line, or id, tab, label"
        )
    return [row[0] for row in rows]
