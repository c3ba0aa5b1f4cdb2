"""Matching: where a word stands in a text, as a whole word, by character spans."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import groupby
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

_SPACES = "[ \t\r\n\u00a0]+"
_VARIATION_SELECTORS = "\ufe0e\ufe0f"
_JOINER, _KEYCAP = "\u200d", "\u20e3"
# They stand between the letters of one word (Persian, Hindi) or decorate it: a look at the neighbour goes past them.
_INVISIBLE = _VARIATION_SELECTORS + _JOINER + "\u200c"
_WITHOUT_JOINERS = str.maketrans("", "", "\u200c\u200d")
_INDICATORS = "".join(map(chr, range(0x1F1E6, 0x1F200)))
# Python takes all four for one letter, case aside; to RE2, and to `fold`, the Turkish two are others.
_I = re.compile("[iI\u0130\u0131]")
# The full-width forms make hashtags and mentions, too.
_SIGILS = "#＃@＠"


def is_word_character(character: str) -> bool:
    """A letter, digit, underscore or combining mark of any script (variation selectors are no marks)."""
    if character.isalnum() or character == "_":
        return True
    return character not in _VARIATION_SELECTORS and unicodedata.category(character)[0] == "M"


class Asked(Protocol):
    """Something to look for that counts as one word: a `Word`, or what `asked.py` makes of several."""

    @property
    def text(self) -> str:
        """Its name, NFC, without spaces at its ends."""
        ...

    @property
    def key(self) -> str:
        """What two names of one word share: case and composition aside."""
        ...

    @property
    def parts(self) -> frozenset[str]:
        """Folded words that it is made of, which lie near it and say nothing."""
        ...

    def covers(self, word: str) -> bool:
        """Whether a folded word, without its context, is one of its occurrences."""
        ...

    def candidates(self, texts: pa.Array) -> pa.Array:
        """Which texts may hold it: bool [rows], a superset of those where `spans` finds it."""
        ...

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end in characters of each place where it stands in a text, none overlapping another."""
        ...


@dataclass(frozen=True)
class Word:
    """A word, hashtag, mention, emoji or phrase to look for.

    Case aside and whole: next to no letter, digit, underscore or combining mark. What begins with a letter or
    digit is not found behind `#` or `@`: hashtag and mention are words of their own. An emoji is found beside
    other emoji, with or without its variation selector, but not as a part of another emoji (a joined sequence,
    a skin tone, a keycap, half of two flags).

    Attributes:
        text: NFC, without spaces at its ends.
    """

    text: str

    @property
    def key(self) -> str:
        """What two spellings of one word share: case and composition aside."""
        return fold(self.text)

    @property
    def parts(self) -> frozenset[str]:
        return frozenset(self.key.split())

    def covers(self, word: str) -> bool:
        return word == self.key

    @property
    def is_symbol(self) -> bool:
        return is_symbol(self.text)

    @cached_property
    def pattern(self) -> str:
        """A regular expression, without the edges, that Python's `re` and RE2 read alike."""
        # Cleaning takes joiners out of words; text of the raw recipe keeps them, and may be decomposed.
        spellings = [self.text] if self.is_symbol else [self.text, self.text.translate(_WITHOUT_JOINERS)]
        forms = dict.fromkeys(unicodedata.normalize(form, s) for s in spellings for form in ("NFC", "NFD"))
        return _I.sub(
            _of_one_i, "|".join(_symbol_pattern(form) if self.is_symbol else _text_pattern(form) for form in forms)
        )

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self.pattern, re.IGNORECASE)

    def candidates(self, texts: pa.Array) -> pa.Array:
        """Which texts may hold the word: bool [rows], a superset of those where `spans` finds it."""
        return pc.match_substring_regex(texts, self.pattern, ignore_case=True)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end in characters of each place where it stands in a text, none overlapping another."""
        return whole_matches(self._compiled, text)


def _of_one_i(match: re.Match[str]) -> str:
    return "(?-i:[iI])" if match.group() in "iI" else f"(?-i:{match.group()})"


def is_symbol(text: str) -> bool:
    """An emoji or other sign: holds no letter, or is a keycap."""
    return _KEYCAP in text or not any(map(is_word_character, text))


def whole_matches(pattern: re.Pattern[str], text: str) -> list[tuple[int, int]]:
    """Where matches of a pattern stand alone, without the spaces at their ends; none overlaps another."""
    found, position = [], 0
    while position <= len(text) and (match := pattern.search(text, position)):
        start, end = match.span()
        matched = match.group()
        start += len(matched) - len(matched.lstrip())
        end -= len(matched) - len(matched.rstrip()) if start < end else 0
        stands_alone = _symbol_stands_alone if is_symbol(text[start:end]) else _word_stands_alone
        if start < end and stands_alone(text, start, end):
            found.append((start, end))
            position = end
        else:
            position = match.start() + 1
    return found


@cache
def mark_ranges() -> str:
    """The combining marks that belong to words, as ranges for a class of characters: Python's `\\w` lacks them."""
    marks = []
    numbered = enumerate(map(chr, range(sys.maxunicode + 1)))
    is_mark = ((code, unicodedata.category(c)[0] == "M" and is_word_character(c)) for code, c in numbered)
    for held, run in groupby(is_mark, key=lambda pair: pair[1]):
        if held:
            codes = [code for code, _ in run]
            marks.append(f"{chr(codes[0])}-{chr(codes[-1])}")
    return "".join(marks)


def words_of(asked: Iterable[str]) -> list[Word]:
    """The asked words, spellings of one word once; what holds no character is left out."""
    words: dict[str, Word] = {}
    for text in asked:
        word = Word(tidy(text))
        if word.text:
            words.setdefault(word.key, word)
    return list(words.values())


def tidy(text: str) -> str:
    """A word as it is named: NFC, one space between its parts and none at its ends."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def fold(text: str) -> str:
    """The text, case and composition aside (Unicode 15, section 3.13, canonical caseless matching)."""
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())
    return "".join(c for c in text if c not in _VARIATION_SELECTORS)


def _text_pattern(text: str) -> str:
    return _SPACES.join(re.escape(part) for part in text.split(" "))


def _symbol_pattern(text: str) -> str:
    """Each character with or without a variation selector: ☺ and ☺️ are one emoji."""
    parts = []
    for character in text:
        if character == " ":
            parts.append(_SPACES)
        elif character not in _VARIATION_SELECTORS:
            optional = "" if character == _JOINER else f"[{_VARIATION_SELECTORS}]?"
            parts.append(re.escape(character) + optional)
    return "".join(parts)


def _word_stands_alone(text: str, start: int, end: int) -> bool:
    before = text[max(0, start - 1) : start]
    if before and before in _INVISIBLE:
        before = text[:start].rstrip(_INVISIBLE)[-1:]
    if before and is_word_character(before):
        return False
    if before and before in _SIGILS and is_word_character(text[start]):
        return False
    after = text[end : end + 1]
    if after and after in _INVISIBLE:
        after = text[end:].lstrip(_INVISIBLE)[:1]
    return not (after and is_word_character(after))


def _symbol_stands_alone(text: str, start: int, end: int) -> bool:
    before, after = text[:start], text[end:]
    if before.endswith(_JOINER) and len(before) > 1 and not before[-2].isspace():
        return False
    if after.startswith(_JOINER) and len(after) > 1 and not after[1].isspace():
        return False
    if after and _ends_emoji(after[0]):
        return False
    # Flags are pairs of regional indicators: a pair that begins in the middle of another is no flag.
    in_front = len(before) - len(before.rstrip(_INDICATORS))
    return not (text[start] in _INDICATORS and in_front % 2)


def _ends_emoji(character: str) -> bool:
    """A skin tone, keycap or tag: what turns the emoji before it into another one."""
    code = ord(character)
    return 0x1F3FB <= code <= 0x1F3FF or character == _KEYCAP or 0xE0020 <= code <= 0xE007F
