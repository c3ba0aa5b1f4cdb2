"""Align a span of a text with the cleaned text.

Two marks that no rule knows are put around the span before cleaning. If the result differs only in the marks and in
spaces, they still surround the span. If a rule has rewritten text across a mark (a span within a link or a mention),
the cleaned text does not contain the span, and it is lost.
"""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bert_tweets.common.arrays import Ints

from .cleaning import clean

# Private use area: no letter, sign or space of any rule. If a text contains a mark, another pair is used.
_FIRST_MARK, _LAST_MARK = 0xE0F0, 0xF8F0
# These belong to the character before them; a mark must not separate them.
_ATTACHED = re.compile("[\u0300-\u036f\u200d\ufe00-\ufe0f]+")


def align_spans(texts: list[str], start: Ints, end: Ints, preset: str) -> tuple[list[str], Ints, Ints]:
    """Clean texts, and find the span of each in the result.

    Args:
        texts: texts before cleaning.
        start, end: int64 [texts], first character of each span, and the one after its last.
        preset: cleaning preset.

    Returns:
        The cleaned texts, and start and end of the spans in them, int64 [texts]; both -1 where the span is lost.
    """
    column = pa.array(texts, pa.string())
    cleaned = clean(column, preset).to_pylist()
    begins, ends = np.full(len(texts), -1, np.int64), np.full(len(texts), -1, np.int64)
    left = np.arange(len(texts))
    opening, closing = _marks(column)
    # First without spaces: a rule may match only at the start of a text. With spaces, others see the span as a word.
    for before, after in ((opening, closing), (f" {opening} ", f" {closing} ")):
        marked = [_marked(texts[row], int(start[row]), int(end[row]), before, after) for row in left.tolist()]
        with_marks = clean(pa.array(marked, pa.string()), preset).to_pylist()
        for row, text in zip(left.tolist(), with_marks, strict=True):
            begins[row], ends[row] = _between(cleaned[row], text, opening, closing)
        left = left[begins[left] < 0]
    return cleaned, begins, ends


def _marks(texts: pa.Array) -> tuple[str, str]:
    """Two characters that do not occur in the texts."""
    marks = map(chr, range(_FIRST_MARK, _LAST_MARK))
    unused = (mark for mark in marks if not pc.any(pc.match_substring(texts, mark)).as_py())
    return next(unused), next(unused)


def _marked(text: str, start: int, end: int, before: str, after: str) -> str:
    attached = _ATTACHED.match(text, end)
    end = attached.end() if attached else end
    return f"{text[:start]}{before}{text[start:end]}{after}{text[end:]}"


def _between(cleaned: str, marked: str, opening: str, closing: str) -> tuple[int, int]:
    """Position, in the cleaned text, of what is between the marks; (-1, -1) if it is empty or the texts differ."""
    before, _, rest = marked.partition(opening)
    inside, found, after = rest.partition(closing)
    parts = ["".join(part.split()) for part in (before, inside, after)]
    if not found or not parts[1] or "".join(parts) != "".join(cleaned.split()):
        return -1, -1
    places = [place for place, character in enumerate(cleaned) if not character.isspace()]
    return places[len(parts[0])], places[len(parts[0]) + len(parts[1]) - 1] + 1
