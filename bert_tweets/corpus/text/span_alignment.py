"""Carrying: where a span of a text is after cleaning.

Two marks that no rule knows are put around the span, and cleaned along. If nothing else came of it, spaces aside, they
stand around the span still. Where a rule has rewritten what lies across a mark (a span within a link, or within a
mention), the span is nowhere in the cleaned text, and lost.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from .cleaning import clean

Ints = npt.NDArray[np.int64]

# Of the private use area: no letter, sign or space of any rule. Texts that hold one take another pair.
_FIRST_MARK, _LAST_MARK = 0xE0F0, 0xF8F0
# They belong to the character before them, and a mark would part them from it.
_ATTACHED = re.compile("[\u0300-\u036f\u200d\ufe00-\ufe0f]+")


def carried(texts: list[str], start: Ints, end: Ints, preset: str) -> tuple[list[str], Ints, Ints]:
    """The cleaned texts, and each one's span in it.

    Args:
        texts: as they were.
        start, end: int64 [texts], characters of each text that its span covers, end excluded.
        preset: of `cleaning`.

    Returns:
        The cleaned texts, and int64 [texts] twice: the characters of these, both -1 where the span is lost.
    """
    column = pa.array(texts, pa.string())
    cleaned = clean(column, preset).to_pylist()
    begins, ends = np.full(len(texts), -1, np.int64), np.full(len(texts), -1, np.int64)
    left = np.arange(len(texts))
    opening, closing = _marks(column)
    # Without spaces first: a rule may ask for the beginning of a text. With them, others take the span for a word.
    for before, after in ((opening, closing), (f" {opening} ", f" {closing} ")):
        marked = [_marked(texts[row], int(start[row]), int(end[row]), before, after) for row in left.tolist()]
        with_marks = clean(pa.array(marked, pa.string()), preset).to_pylist()
        for row, text in zip(left.tolist(), with_marks, strict=True):
            begins[row], ends[row] = _between(cleaned[row], text, opening, closing)
        left = left[begins[left] < 0]
    return cleaned, begins, ends


def _marks(texts: pa.Array) -> tuple[str, str]:
    """Two characters that no text holds."""
    codes = (code for code in range(_FIRST_MARK, _LAST_MARK) if not _holds(texts, chr(code)))
    return chr(next(codes)), chr(next(codes))


def _holds(texts: pa.Array, character: str) -> bool:
    return bool(pc.any(pc.match_substring(texts, character)).as_py())


def _marked(text: str, start: int, end: int, before: str, after: str) -> str:
    attached = _ATTACHED.match(text, end)
    end = attached.end() if attached else end
    return f"{text[:start]}{before}{text[start:end]}{after}{text[end:]}"


def _between(cleaned: str, marked: str, opening: str, closing: str) -> tuple[int, int]:
    """What lies between the marks, in the text without them; (-1, -1) where there is nothing, or another text."""
    front, _, rest = marked.partition(opening)
    inside, found, behind = rest.partition(closing)
    parts = ["".join(part.split()) for part in (front, inside, behind)]
    if not found or not parts[1] or "".join(parts) != "".join(cleaned.split()):
        return -1, -1
    places = [place for place, character in enumerate(cleaned) if not character.isspace()]
    return places[len(parts[0])], places[len(parts[0]) + len(parts[1]) - 1] + 1
