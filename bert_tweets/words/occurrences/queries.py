"""What is asked for: words by list and by file, several words that count as one, and regular expressions."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from bert_tweets.common.errors import UserError

from .matching import Asked, Word, fold, mark_ranges, tidy, whole_matches, words_of

Config = TypeVar("Config", bound=Any)

_LONGEST_FILE = 2**24
_TOKEN = re.compile(r"\\.|\[\^?\]?|\{,(?=[0-9]*\})|.", re.DOTALL)
_TOKEN_OF_CLASS = re.compile(r"\\.|.", re.DOTALL)
# What Python reads by Unicode and RE2 by ASCII, as RE2 must read it to find no less: outside of a class of
# characters and in one; in a class that is negated, where less means more.
_WIDER = {r"\w": r"[\pL\pM\pN_]", r"\d": r"\p{Nd}", r"\s": r"[\s\pZ\x{1c}-\x{1f}\x{85}\x{b}]"}
_WIDER_IN_CLASS = {r"\w": r"\pL\pM\pN_", r"\d": r"\p{Nd}", r"\s": r"\s\pZ\x{1c}-\x{1f}\x{85}\x{b}"}
_NARROWER = {r"\W": r"\pZ", r"\D": r"\pL", r"\S": r"\pL\pN"}
_EDGES = (r"\b", r"\B", r"\Z", "$")


@dataclass(frozen=True)
class Lemma:
    """Several words that count as one.

    Attributes:
        text: its name, which is looked for only where it is among the words.
        words: that count; of two that overlap in a text the first counts, of two that begin together the longer.
    """

    text: str
    words: tuple[Word, ...]

    @property
    def key(self) -> str:
        return fold(self.text)

    @property
    def parts(self) -> frozenset[str]:
        return frozenset().union(*(word.parts for word in self.words))

    def covers(self, word: str) -> bool:
        return any(one.covers(word) for one in self.words)

    def candidates(self, texts: pa.Array) -> pa.Array:
        return reduce(pc.or_, (word.candidates(texts) for word in self.words))

    def spans(self, text: str) -> list[tuple[int, int]]:
        every = sorted({(start, -end) for word in self.words for start, end in word.spans(text)})
        found: list[tuple[int, int]] = []
        for start, end in ((start, -end) for start, end in every):
            if not found or start >= found[-1][1]:
                found.append((start, end))
        return found


@dataclass(frozen=True)
class Pattern:
    """Whatever a regular expression matches, as one word: case aside, and whole as words are.

    Attributes:
        text: its name.
        expression: as Python's `re` reads it, without look-around and back-references, which RE2 lacks.
    """

    text: str
    expression: str

    @property
    def key(self) -> str:
        return fold(self.text)

    @property
    def parts(self) -> frozenset[str]:
        return frozenset()

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        # Edges of words: so that of several ways to match the one is taken that stands alone.
        word = rf"[\w{mark_ranges()}]"
        begins, ends = rf"(?:(?<!{word})|(?!{word}))", rf"(?:(?!{word})|(?<!{word}))"
        with warnings.catch_warnings():
            # Of what may come to mean something else one day, and means something else to RE2 today.
            warnings.simplefilter("error", FutureWarning)
            return re.compile(f"{begins}(?:{self.expression}){ends}", re.IGNORECASE)

    def covers(self, word: str) -> bool:
        return self.spans(word) == [(0, len(word))]

    def candidates(self, texts: pa.Array) -> pa.Array:
        found = pc.match_substring_regex(texts, as_wide_in_re2(self.expression), ignore_case=True)
        # To Python these are an i, case aside; to RE2 they are not.
        return pc.or_(found, pc.match_substring_regex(texts, "[\u0130\u0131]"))

    def spans(self, text: str) -> list[tuple[int, int]]:
        return whole_matches(self._compiled, text)

    def checked(self) -> Pattern:
        """Raises UserError where the expression cannot be read, or matches no character."""
        where = f"patterns: {self.text}: {self.expression!r}"
        try:
            empty = self._compiled.fullmatch("")
        except (re.error, FutureWarning, OverflowError, RecursionError) as error:
            raise UserError(f"{where} is no regular expression ({error})") from None
        try:
            self.candidates(pa.array([""]))
        except pa.ArrowInvalid as error:
            reason = str(error).rpartition(": ")[2]
            raise UserError(
                f"{where} cannot be searched for ({reason}); do without look-around, back-references and the like"
            ) from None
        if empty:
            raise UserError(f"{where} matches nothing as well; let it ask for one character at least")
        return self


def as_wide_in_re2(expression: str) -> str:
    """An expression that RE2 finds wherever Python finds the given one, case aside."""
    found: list[str] = []
    place, of_class = 0, ""
    while match := (_TOKEN_OF_CLASS if of_class else _TOKEN).match(expression, place):
        token, place = match.group(), match.end()
        if of_class:
            found.append((_NARROWER if "^" in of_class else _WIDER_IN_CLASS).get(token, token))
            of_class = "" if token == "]" else of_class
            continue
        of_class = token if token[0] == "[" else ""
        token = "(?:)" if token in _EDGES else _WIDER.get(token, token)
        found.append("{0," if token == "{," else token)
    return "".join(found)


def asked_for(config: Any) -> list[Asked]:
    """All that a configuration asks for: its words, those of its file, its lemmas and its patterns, in this order.

    Args:
        config: has `words`, `lemmas` and `patterns`; a file of words is read by `with_words_of_file`.

    Raises:
        UserError: there is none, two have one name, or an expression cannot be read.
    """
    asked: list[Asked] = [*words_of(config.words)]
    for name, words in config.lemmas.items():
        asked.append(Lemma(_named("lemmas", name), tuple(words_of(words)) or _no_word(name)))
    asked += [Pattern(_named("patterns", name), text).checked() for name, text in config.patterns.items()]
    return require_names(asked)


def with_words_of_file(config: Config) -> Config:
    """A configuration whose words are those of its file as well: what decides is then all in it.

    Raises:
        UserError: see `words_of_file`.
    """
    if not config.words_file:
        return config
    return replace(config, words=[*config.words, *words_of_file(config.words_file)], words_file="")


def require_names(asked: list[Asked]) -> list[Asked]:
    """Raises UserError where nothing is asked for, or two would have one name in a file of vectors."""
    if not asked:
        raise UserError("words: holds no word; write words=mask,virus")
    names: dict[str, str] = {}
    for word in asked:
        name = word.key.replace(" ", "_")
        if name in names:
            raise UserError(
                f"words: '{names[name]}' and '{word.text}' have one name in vectors.txt (a space is written _ there, "
                "and case is set aside); leave one of them out"
            )
        names[name] = word.text
    return asked


def words_of_file(path: str) -> list[str]:
    """The words of a file, one a line, empty lines left out.

    Raises:
        UserError: it is not there, too large for a list of words, or no UTF-8.
    """
    try:
        if Path(path).stat().st_size > _LONGEST_FILE:
            raise UserError(f"words_file={path}: is larger than any list of words; name a file with one word a line")
        lines: Iterable[str] = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"words_file={path}: cannot be read ({error.strerror}); name a file of words") from None
    except UnicodeDecodeError:
        raise UserError(f"words_file={path}: is not UTF-8; save it as plain text in UTF-8, one word a line") from None
    words = [line.strip() for line in lines if line.strip()]
    if not words:
        raise UserError(f"words_file={path}: holds no word; write one a line")
    return words


def _named(setting: str, name: str) -> str:
    if not (tidied := tidy(name)):
        raise UserError(f"{setting}: an entry has no name; write {setting}={{name: ...}}")
    return tidied


def _no_word(name: str) -> tuple[Word, ...]:
    raise UserError(f"lemmas: {name}: holds no word; write lemmas={{{name}: [one, two]}}")
