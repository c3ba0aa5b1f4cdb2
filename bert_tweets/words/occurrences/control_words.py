"""Control words: ordinary words that resemble the chosen words, whose change shows how much change is ordinary.

Over time the contexts of every word drift. A word's result is therefore ranked among words of about its frequency, with
as many subwords and, if a lexicon is installed, of its part of speech. Words are counted in all tweets, in Arrow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bert_tweets.common.arrays import Ints
from bert_tweets.corpus.text.cleaning import LINK
from bert_tweets.distributed.work_split import ALL_WORK, WorkSplit

from .bottom_k import BottomKSampler, salts_of
from .find import PENDING, Corpus, Places, places_in_share, sample_places, shard_parts, tweet_columns
from .matching import ChosenWord, fold
from .part_of_speech import part_of_speech

# What `words_in` takes as a word, and what separates words; hashtags and mentions stay whole and are not words.
_BETWEEN = r"[^\pL\pM\pN_#＃@＠]+"
_TOKEN = r"[\pL\pM\pN_#＃@＠]+"
_WORD = r"^\pM*\pL[\pL\pM]*\pL\pM*$"
# Cleaning's replacement for a link, and the mark of a retweet.
_NOT_WORDS = frozenset({LINK, "httpurl", "rt"})
# Words with this many subwords or more match each other.
MANY_SUBWORDS = 3
_AT_ONCE = 1024


@dataclass(frozen=True)
class ControlWord:
    """A control word.

    Attributes:
        text: the word, case-folded.
        forms: its spellings in the tweets, most common first.
        matches: number of places in all tweets.
        subwords: number of tokens of its most common spelling within running text.
        part_of_speech: from the lexicon; None if it is not known.
    """

    text: str
    forms: tuple[str, ...]
    matches: int
    subwords: int
    part_of_speech: str | None

    @property
    def key(self) -> str:
        return self.text

    @property
    def parts(self) -> frozenset[str]:
        return frozenset((self.text,))


@dataclass(frozen=True)
class MatchCriteria:
    """Properties of a chosen word that its control words should share.

    Attributes:
        matches: number of its places in all tweets.
        subwords: number of its tokens; 0: it was not found.
        part_of_speech: from the lexicon; None if it is not known.
    """

    matches: int
    subwords: int
    part_of_speech: str | None


def count_words(corpus: Corpus, share: WorkSplit = ALL_WORK) -> pa.Table:
    """Count each spelling of each word in a share of the tweets: columns `values`, string, and `counts`, int64."""
    parts = []
    for _, texts in shard_parts(corpus, share, "text"):
        forms = pc.split_pattern_regex(texts, _BETWEEN).flatten()
        counted = pa.Table.from_batches([pa.RecordBatch.from_struct_array(pc.value_counts(forms))])
        parts.append(counted.filter(pc.match_substring_regex(counted.column("values"), _WORD)))
    none = pa.table({"values": pa.array([], pa.string()), "counts": pa.array([], pa.int64())})
    return sum_counts([none, *parts])


def sum_counts(parts: Sequence[pa.Table]) -> pa.Table:
    """Add up tables of `count_words`; sorted by word."""
    together = pa.concat_tables(parts).group_by("values", use_threads=False).aggregate([("counts", "sum")])
    return together.rename_columns(["values", "counts"]).sort_by("values")


def choose_controls(
    counted: pa.Table,
    chosen_words: Sequence[ChosenWord],
    criteria: Sequence[MatchCriteria],
    count: int,
    count_subwords: Callable[[list[str]], list[int]],
    seed: int,
) -> list[ControlWord]:
    """Choose up to `count` control words per chosen word: half to twice as frequent, with as many subwords.

    Words of the same part of speech come first, others only if these are too few. Apart from that, one random order of
    all words decides, so that similar chosen words share their control words. Neither the chosen words nor words with
    one of their names are chosen.

    Args:
        counted: all words of the tweets, see `count_words`.
        count_subwords: number of tokens of each of some words within running text; 0 if the tokenizer lacks the word.

    Returns:
        The control words of all chosen words, each once, in alphabetical order.
    """
    sought = [one for one in criteria if one.subwords and one.matches]
    forms = _forms(counted, sought)
    words = sorted(forms.keys() - _NOT_WORDS)
    matches = np.array([sum(forms[word].values()) for word in words], np.int64)
    order = np.argsort(salts_of(seed, [f"control {word}" for word in words]), kind="stable")
    # The name of a lemma or pattern need not be one of its words, and names are unique in a table.
    names = {one.key for one in chosen_words}
    known: dict[str, int] = {}

    def subwords(candidates: list[str]) -> Iterator[int]:
        new = [word for word in candidates if word not in known]
        known.update(zip(new, count_subwords([_most_common(forms[word])[0] for word in new]), strict=True))
        yield from (known[word] for word in candidates)

    def is_chosen(word: str) -> bool:
        return word in names or any(each.covers(word) for each in chosen_words)

    chosen: dict[str, ControlWord] = {}
    for one in sought:
        alike = order[(matches[order] * 2 >= one.matches) & (matches[order] <= 2 * one.matches)]
        like = _matching(alike, words, one, subwords)
        others = ((index, number) for index, number in like if not is_chosen(words[index]))
        for index, number in islice(others, count):
            word = words[index]
            made = ControlWord(word, _most_common(forms[word]), int(matches[index]), number, part_of_speech(word))
            chosen.setdefault(word, made)
    return [chosen[word] for word in sorted(chosen)]


def _matching(
    alike: Ints, words: list[str], one: MatchCriteria, subwords: Callable[[list[str]], Iterator[int]]
) -> Iterator[tuple[int, int]]:
    """Of words of similar frequency those with as many subwords, and that number; same part of speech first."""
    same = np.array([part_of_speech(words[index]) == one.part_of_speech for index in alike.tolist()], np.bool_)
    ranked = np.concatenate([alike[same], alike[~same]]) if one.part_of_speech else alike
    for first in range(0, len(ranked), _AT_ONCE):
        some = ranked[first : first + _AT_ONCE].tolist()
        for index, number in zip(some, subwords([words[index] for index in some]), strict=True):
            if number and min(number, MANY_SUBWORDS) == min(one.subwords, MANY_SUBWORDS):
                yield index, number


def _forms(counted: pa.Table, sought: Sequence[MatchCriteria]) -> dict[str, dict[str, int]]:
    """Number of places by spelling, for each word that may be as frequent as one of the chosen words."""
    if not sought:
        return {}
    lower = pc.utf8_lower(counted.column("values"))
    table = counted.append_column("lower", lower)
    totals = table.group_by("lower", use_threads=False).aggregate([("counts", "sum")])
    most = pc.less_equal(totals.column("counts_sum"), 2 * max(one.matches for one in sought))
    # Case folding merges more spellings than lower case does, so the lower bound is checked again afterwards.
    least = pc.greater_equal(totals.column("counts_sum"), max(1, min(one.matches for one in sought) // 4))
    kept = table.filter(pc.is_in(lower, value_set=totals.filter(pc.and_(most, least)).column("lower")))
    forms: dict[str, dict[str, int]] = {}
    for form, count in zip(kept.column("values").to_pylist(), kept.column("counts").to_pylist(), strict=True):
        forms.setdefault(fold(form), {})[form] = count
    return forms


def _most_common(forms: dict[str, int]) -> tuple[str, ...]:
    return tuple(sorted(forms, key=lambda form: (-forms[form], form)))


def find_controls(
    corpus: Corpus, controls: Sequence[ControlWord], sampler: BottomKSampler, share: WorkSplit = ALL_WORK
) -> Places:
    """Sample each control word's places in a share of the tweets; `start` and `end` are its index among the words."""
    forms = pa.array([form for control in controls for form in control.forms], pa.string())
    number = np.repeat(np.arange(len(controls)), [len(control.forms) for control in controls])
    kept, pending = [Places.from_rows([])], 0
    for first, texts in shard_parts(corpus, share, "text"):
        lists = pc.split_pattern_regex(texts, _BETWEEN)
        which = np.asarray(pc.fill_null(pc.index_in(lists.flatten(), value_set=forms), -1))
        offsets = np.asarray(lists.offsets) - lists.offsets[0].as_py()
        place = np.flatnonzero(which >= 0)
        row = np.searchsorted(offsets, place, side="right") - 1
        kept.append(Places(number[which[place]], first + row, place - offsets[row], place - offsets[row]))
        pending += len(place)
        if pending > PENDING:
            kept, pending = [sample_places(corpus, Places.concatenate(kept), sampler)], 0
    return Places.join([sample_places(corpus, Places.concatenate(kept), sampler)])


def with_spans(corpus: Corpus, ordinals: Places, share: WorkSplit = ALL_WORK) -> Places:
    """Convert places of `find_controls` to spans of characters, for a rank's share of their tweets."""
    ordinals = places_in_share(ordinals, share)
    if not len(ordinals):
        return ordinals
    tweets, home = np.unique(ordinals.tweet, return_inverse=True)
    texts = tweet_columns(corpus, tweets, ["text"]).column("text").combine_chunks()
    words, between = (pc.split_pattern_regex(texts, pattern) for pattern in (_BETWEEN, _TOKEN))
    lengths, gaps = (np.asarray(pc.utf8_length(part.flatten())).astype(np.int64) for part in (words, between))
    word_offsets, gap_offsets = (np.asarray(part.offsets).astype(np.int64) for part in (words, between))
    # A text that begins with a word has no gap before it: its gaps are ahead by one.
    ahead = (lengths[np.minimum(word_offsets[:-1], len(lengths) - 1)] > 0).astype(np.int64)[home]
    before = np.append(0, np.cumsum(lengths)), np.append(0, np.cumsum(gaps))
    word = word_offsets[home] + ordinals.start
    gap = gap_offsets[home] + ordinals.start + ahead
    start = before[0][word] - before[0][word_offsets[home]] + before[1][gap] - before[1][gap_offsets[home]]
    return Places(ordinals.word, ordinals.tweet, start, start + lengths[word])
