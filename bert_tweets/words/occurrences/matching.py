"""Find a word in a text, as a whole word, by character spans."""

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
# They join the letters of one word (Persian, Hindi) or decorate it, so they are skipped to find the neighbour.
_INVISIBLE = _VARIATION_SELECTORS + _JOINER + "\u200c"
_WITHOUT_JOINERS = str.maketrans("", "", "\u200c\u200d")
_INDICATORS = "".join(map(chr, range(0x1F1E6, 0x1F200)))
# Ignoring case, all four are one letter to Python; to RE2, and to `fold`, the Turkish two are different ones.
_I = re.compile("[iI\u0130\u0131]")
# The full-width forms also begin hashtags and mentions.
_SIGILS = "#＃@＠"


def is_word_character(character: str) -> bool:
    """A letter, digit, underscore or combining mark of any script (variation selectors do not count as marks)."""
    if character.isalnum() or character == "_":
        return True
    return character not in _VARIATION_SELECTORS and unicodedata.category(character)[0] == "M"


class ChosenWord(Protocol):
    """Something to look for that counts as one word: a `Word`, or a `Lemma` or `Pattern` of `queries`."""

    @property
    def text(self) -> str:
        """Its name, NFC, without surrounding spaces."""

    @property
    def key(self) -> str:
        """The case-folded name, the same for all spellings of the name."""

    @property
    def parts(self) -> frozenset[str]:
        """The case-folded words in it, which are trivially similar to it."""

    def covers(self, word: str) -> bool:
        """Whether a folded word, without its context, is one of its occurrences."""

    def candidates(self, texts: pa.Array) -> pa.Array:
        """Which texts may hold it: bool [rows], a superset of those where `spans` finds it."""

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end in characters of each of its places in a text, without overlaps."""


@dataclass(frozen=True)
class Word:
    """A word, hashtag, mention, emoji or phrase to look for.

    Matching ignores case and is of whole words: not next to a letter, digit, underscore or combining mark. A word that
    begins with a letter or digit is not found after `#` or `@`: hashtags and mentions are different words. An emoji is
    found next to other emoji, with or without its variation selector, but not as a part of another emoji (a joined
    sequence, a skin tone, a keycap, half of two flags).

    Attributes:
        text: the word, NFC, without surrounding spaces.
    """

    text: str

    @property
    def key(self) -> str:
        return fold(self.text)

    @property
    def parts(self) -> frozenset[str]:
        return frozenset(self.key.split())

    def covers(self, word: str) -> bool:
        return word == self.key

    @cached_property
    def pattern(self) -> str:
        """A regular expression, without word boundaries, with the same meaning in Python's `re` and in RE2."""
        # Cleaning removes joiners from words; the raw recipe keeps them, and its text may be decomposed.
        spellings = [self.text] if is_symbol(self.text) else [self.text, self.text.translate(_WITHOUT_JOINERS)]
        forms = dict.fromkeys(unicodedata.normalize(form, s) for s in spellings for form in ("NFC", "NFD"))
        as_pattern = _symbol_pattern if is_symbol(self.text) else _text_pattern
        return _I.sub(_only_this_i, "|".join(map(as_pattern, forms)))

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self.pattern, re.IGNORECASE)

    def candidates(self, texts: pa.Array) -> pa.Array:
        return pc.match_substring_regex(texts, self.pattern, ignore_case=True)

    def spans(self, text: str) -> list[tuple[int, int]]:
        return whole_matches(self._compiled, text)


def _only_this_i(match: re.Match[str]) -> str:
    return "(?-i:[iI])" if match.group() in "iI" else f"(?-i:{match.group()})"


def is_symbol(text: str) -> bool:
    """Whether a text is an emoji or other symbol: it has no letter, or is a keycap."""
    return _KEYCAP in text or not any(map(is_word_character, text))


def whole_matches(pattern: re.Pattern[str], text: str) -> list[tuple[int, int]]:
    """Spans of a pattern's matches that are whole words or symbols, without surrounding spaces and overlaps."""
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
    """The combining marks that belong to words, as ranges for a character class: Python's `\\w` lacks them."""
    marks = []
    numbered = enumerate(map(chr, range(sys.maxunicode + 1)))
    is_mark = ((code, unicodedata.category(c)[0] == "M" and is_word_character(c)) for code, c in numbered)
    for are_marks, run in groupby(is_mark, key=lambda pair: pair[1]):
        if are_marks:
            codes = [code for code, _ in run]
            marks.append(f"{chr(codes[0])}-{chr(codes[-1])}")
    return "".join(marks)


def words_of(texts: Iterable[str]) -> list[Word]:
    """The words that some texts name: spellings of one word once, without empty texts."""
    words: dict[str, Word] = {}
    for text in texts:
        word = Word(tidy(text))
        if word.text:
            words.setdefault(word.key, word)
    return list(words.values())


def tidy(text: str) -> str:
    """Normalise the name of a word: NFC, single spaces between its parts and no surrounding ones."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def fold(text: str) -> str:
    """Case-fold a text for canonical caseless matching (Unicode 15, section 3.13)."""
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())
    return "".join(c for c in text if c not in _VARIATION_SELECTORS)


def _text_pattern(text: str) -> str:
    return _SPACES.join(re.escape(part) for part in text.split(" "))


def _symbol_pattern(text: str) -> str:
    """Match each character with or without a variation selector: ☺ and ☺️ are one emoji."""
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
    # Flags are pairs of regional indicators: a pair that begins in the middle of another is not a flag.
    in_front = len(before) - len(before.rstrip(_INDICATORS))
    return not (text[start] in _INDICATORS and in_front % 2)


def _ends_emoji(character: str) -> bool:
    """Whether a character is a skin tone, keycap or tag, which turns the emoji before it into another one."""
    code = ord(character)
    return 0x1F3FB <= code <= 0x1F3FF or character == _KEYCAP or 0xE0020 <= code <= 0xE007F
