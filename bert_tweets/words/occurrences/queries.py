"""The chosen words of the settings: listed words, words of a file, lemmas (several words as one) and patterns."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from bert_tweets.common.errors import UserError

from .matching import ChosenWord, Word, fold, mark_ranges, tidy, whole_matches, words_of

Config = TypeVar("Config", bound=Any)

_LONGEST_FILE = 2**24
_TOKEN = re.compile(r"\\.|\[\^?\]?|\{,(?=[0-9]*\})|.", re.DOTALL)
_TOKEN_OF_CLASS = re.compile(r"\\.|.", re.DOTALL)
# Unicode classes of Python that are ASCII in RE2, in a form in which RE2 finds no less: outside of a character class,
# in one, and in a negated one, where the class must be smaller.
_WIDER = {r"\w": r"[\pL\pM\pN_]", r"\d": r"\p{Nd}", r"\s": r"[\s\pZ\x{1c}-\x{1f}\x{85}\x{b}]"}
_WIDER_IN_CLASS = {r"\w": r"\pL\pM\pN_", r"\d": r"\p{Nd}", r"\s": r"\s\pZ\x{1c}-\x{1f}\x{85}\x{b}"}
_NARROWER = {r"\W": r"\pZ", r"\D": r"\pL", r"\S": r"\pL\pN"}
_EDGES = (r"\b", r"\B", r"\Z", "$")


@dataclass(frozen=True)
class Lemma:
    """Several words that count as one.

    Attributes:
        text: its name, which is looked for only if it is one of the words.
        words: the words; of two that overlap in a text the first counts, of two that begin together the longer.
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
    """Everything that a regular expression matches, as one word: ignoring case, and whole words only.

    Attributes:
        text: its name.
        expression: regular expression of Python's `re`, without look-around and back-references, which RE2 lacks.
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
        # Word boundaries, so that of several ways to match the one that is a whole word is taken.
        word = rf"[\w{mark_ranges()}]"
        begins, ends = rf"(?:(?<!{word})|(?!{word}))", rf"(?:(?!{word})|(?<!{word}))"
        with warnings.catch_warnings():
            # Raised for syntax that may change its meaning in Python, and that means something else in RE2.
            warnings.simplefilter("error", FutureWarning)
            return re.compile(f"{begins}(?:{self.expression}){ends}", re.IGNORECASE)

    def covers(self, word: str) -> bool:
        return self.spans(word) == [(0, len(word))]

    def candidates(self, texts: pa.Array) -> pa.Array:
        found = pc.match_substring_regex(texts, as_wide_in_re2(self.expression), ignore_case=True)
        # Ignoring case, these are an i to Python, but not to RE2.
        return pc.or_(found, pc.match_substring_regex(texts, "[\u0130\u0131]"))

    def spans(self, text: str) -> list[tuple[int, int]]:
        return whole_matches(self._compiled, text)

    def checked(self) -> Pattern:
        """Raise UserError if the expression is not valid, or matches the empty text."""
        where = f"patterns: {self.text}: {self.expression!r}"
        try:
            empty = self._compiled.fullmatch("")
        except (re.error, FutureWarning, OverflowError, RecursionError) as error:
            raise UserError(f"{where} is not a valid regular expression ({error})") from None
        try:
            self.candidates(pa.array([""]))
        except pa.ArrowInvalid as error:
            reason = str(error).rpartition(": ")[2]
            raise UserError(
                f"{where} is not supported by RE2 ({reason}); avoid look-around, back-references and the like"
            ) from None
        if empty:
            raise UserError(f"{where} also matches the empty text; make it match at least one character")
        return self


def as_wide_in_re2(expression: str) -> str:
    """Convert an expression so that RE2 matches wherever Python does, ignoring case."""
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


def chosen_words(config: Any) -> list[ChosenWord]:
    """The chosen words of the settings: words (of a file too, see `with_words_of_file`), lemmas, patterns, in order.

    Raises:
        UserError: there are none, two have the same name, or an expression is not valid.
    """
    chosen_words: list[ChosenWord] = [*words_of(config.words)]
    for name, words in config.lemmas.items():
        if not (members := tuple(words_of(words))):
            raise UserError(f"lemmas: {name}: has no words; write lemmas={{{name}: [one, two]}}")
        chosen_words.append(Lemma(_named("lemmas", name), members))
    chosen_words += [Pattern(_named("patterns", name), text).checked() for name, text in config.patterns.items()]
    require_unique_names(chosen_words)
    return chosen_words


def with_words_of_file(config: Config) -> Config:
    """Add the words of `words_file` to the words of the settings, which then determine everything."""
    if not config.words_file:
        return config
    return replace(config, words=[*config.words, *words_of_file(config.words_file)], words_file="")


def require_unique_names(chosen_words: Sequence[ChosenWord]) -> None:
    """Raise UserError if there are no chosen words, or two have the same name in a file of vectors."""
    if not chosen_words:
        raise UserError("words: there are no words; write words=mask,virus")
    names: dict[str, str] = {}
    for word in chosen_words:
        name = word.key.replace(" ", "_")
        if name in names:
            raise UserError(
                f"words: '{names[name]}' and '{word.text}' have the same name in vectors.txt (a space is written _ "
                "there, and case is ignored); remove one of them"
            )
        names[name] = word.text


def words_of_file(path: str) -> list[str]:
    """Read the words of a file, one per line, without empty lines.

    Raises:
        UserError: it is missing, larger than 16 MiB, not UTF-8, or empty.
    """
    try:
        if Path(path).stat().st_size > _LONGEST_FILE:
            raise UserError(f"words_file={path}: is larger than 16 MiB; give a file with one word per line")
        lines: Iterable[str] = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(
            f"words_file={path}: cannot be read ({error.strerror}); give a file with one word per line"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"words_file={path}: is not UTF-8; save it as plain text in UTF-8, one word per line") from None
    words = [line.strip() for line in lines if line.strip()]
    if not words:
        raise UserError(f"words_file={path}: has no words; write one per line")
    return words


def _named(setting: str, name: str) -> str:
    if not (tidied := tidy(name)):
        raise UserError(f"{setting}: an entry has no name; write {setting}={{name: ...}}")
    return tidied
