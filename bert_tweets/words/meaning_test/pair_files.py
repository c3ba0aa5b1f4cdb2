"""Pairs: a word in two texts, and whether it means the same in both, from the files in which such tests come.

WiC (Pilehvar and Camacho-Collados 2019, "WiC: the Word-in-Context dataset", NAACL) as lines of tabs or as SuperGLUE's
JSON lines, TempoWiC (Loureiro et al. 2022, "TempoWiC", COLING), or JSON lines of one's own.
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
_NAMES = (
    ("{}.data.txt", "{}.gold.txt"),
    ("{}.data.jl", "{}.labels.tsv"),
    ("{}.data.jl", "{}.gold.tsv"),
    ("{}.data.jsonl", "{}.labels.tsv"),
)
_FORMS = (
    "give lines of tabs (word, part of speech, index-index, text, text), or JSON lines with word and sentence1, "
    "start1, end1, sentence2, …, or tweet1 and tweet2 with text, text_start, text_end, or text1, start1, end1, text2, …"
)


@dataclass(frozen=True)
class Pairs:
    """Pairs of a file, in its order.

    Attributes:
        path: the file.
        words: [pairs], the word, case and spaces at its ends aside.
        texts: [2 * pairs], both texts of the first pair, of the second, …
        start, end: int64 [2 * pairs], characters of the text that the word covers, end excluded.
        same: int64 [pairs], 1 where the word means the same in both.
        unlabelled: further pairs of the file, of whose ids the labels say nothing (TempoWiC's test is such a file).
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
        """What a pair is told from others by, whichever of its texts comes first."""
        sides = list(zip(self.texts, self.start.tolist(), self.end.tolist(), strict=True))
        return [frozenset(pair) for pair in zip(sides[::2], sides[1::2], strict=True)]


@dataclass(frozen=True)
class _Pair:
    """One line: word, id and label as they are told, two (text, start, end)."""

    word: str
    name: str | None
    label: str | None
    sides: tuple[tuple[str, int, int], tuple[str, int, int]]


def read_pairs(path: str, labels: str = "") -> Pairs:
    """Reads a file of pairs and, where they are not in it, the labels beside it.

    Args:
        path: the file.
        labels: a label a line, T or F or 1 or 0, or an id, a tab and the label; empty: in the pairs themselves, or in
            the file that the makers of WiC (`train.gold.txt`) and TempoWiC (`train.labels.tsv`) put beside it.

    Raises:
        UserError: a file cannot be read, a line is none of the known forms, has no span or no label; names the line.
    """
    parsed = [(number, _pair(line, f"{path}:{number}")) for number, line in _lines(path)]
    if not parsed:
        raise UserError(f"{path}: holds no pairs")
    for number, pair in parsed:
        for text, start, end in pair.sides:
            if not 0 <= start < end <= len(text):
                raise UserError(f"{path}:{number}: {start} to {end} is no span of its text of {len(text)} characters")
    told = [pair.label for _, pair in parsed]
    if labels or None in told:
        told = _labels(labels or _beside(path), [pair for _, pair in parsed], path)
    every = len(parsed)
    parsed = [one for one, label in zip(parsed, told, strict=True) if label is not None]
    told = [label for label in told if label is not None]
    same = [_SAME.get(str(label).strip().casefold(), -1) for label in told]
    for (number, _), value, label in zip(parsed, same, told, strict=True):
        if value < 0:
            raise UserError(
                f"{path}:{number}: its label is '{label}'; give 1, T or true for the same meaning, 0, F or false"
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
    """Lines that hold something, numbered from 1."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8") from None
    # Not splitlines, which breaks at rarer signs that tweets hold.
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
        raise UserError(f"{where}: is no pair; {_FORMS}") from None


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
    # Half of a character, which JSON can write, is no text: raises ValueError.
    f"{record['word']}{first[0]}{second[0]}".encode()
    name = next((str(record[key]) for key in ("id", "idx") if key in record), None)
    label = record.get("label")
    return _Pair(str(record["word"]), name, None if label is None else str(label), (first, second))


def _of_tabs(line: str, where: str) -> _Pair:
    cells = line.split("\t")
    places = re.fullmatch(r"(\d+)-(\d+)", cells[2].strip()) if len(cells) == 5 else None
    if not places:
        raise UserError(f"{where}: is no pair; {_FORMS}")
    first, second = (_token(text, int(place), where) for text, place in zip(cells[3:], places.groups(), strict=True))
    return _Pair(cells[0], None, None, (first, second))


def _token(text: str, place: int, where: str) -> tuple[str, int, int]:
    """A text, and where its token of that number stands; tokens are what spaces part."""
    tokens = list(re.finditer(r"\S+", text))
    if place >= len(tokens):
        raise UserError(f"{where}: its text has {len(tokens)} tokens, and the word is said to be number {place} from 0")
    return text, tokens[place].start(), tokens[place].end()


def _beside(path: str) -> str:
    """Where the labels of a file are, by the names that the makers give them."""
    name = Path(path).name
    for data, gold in _NAMES:
        stem = name.removesuffix(data.format(""))
        if stem != name and (beside := Path(path).with_name(gold.format(stem))).is_file():
            return str(beside)
    raise UserError(f"{path}: tells no labels, and no file of them is beside it; give labels=FILE")


def _labels(path: str, pairs: list[_Pair], of: str) -> list[str | None]:
    """A label a pair, by its id where the file tells ids, None where it has none; else in order."""
    rows = [line.split("\t") for _, line in _lines(path)]
    if rows and rows[0][-1].strip().casefold() == "label":
        rows = rows[1:]
    if rows and all(len(row) == 2 for row in rows):
        by_name = {name.strip(): label for name, label in rows}
        if not any(pair.name in by_name for pair in pairs):
            raise UserError(f"{path}: has no label of any pair of {of}, by its id")
        return [by_name.get(str(pair.name)) for pair in pairs]
    if len(rows) != len(pairs) or any(len(row) != 1 for row in rows):
        raise UserError(
            f"{path}: has {len(rows)} lines, {of} has {len(pairs)} pairs; give a label a line, or id, tab, label"
        )
    return [row[0] for row in rows]
