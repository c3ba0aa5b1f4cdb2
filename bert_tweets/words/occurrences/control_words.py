"""Control words: ordinary words like the asked ones, whose change is the yardstick for theirs.

With real time the contexts of every word drift. What is said of a word is therefore ranked among words of about its
frequency, as many pieces and, where a lexicon is installed, its part of speech. All tweets are counted, in Arrow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bert_tweets.corpus.text.cleaning import LINK
from bert_tweets.distributed.work_split import ALL_WORK, WorkSplit

from .bottom_k import BottomKSampler, salts_of
from .find import PENDING, Corpus, Places, sampled, shard_parts, shared, tweet_columns
from .matching import Asked, fold
from .part_of_speech import part_of_speech

Ints = npt.NDArray[np.int64]

# What words_in takes for a word, and what stands between: a hashtag or mention stays whole and is none.
_BETWEEN = r"[^\pL\pM\pN_#＃@＠]+"
_TOKEN = r"[\pL\pM\pN_#＃@＠]+"
_WORD = r"^\pM*\pL[\pL\pM]*\pL\pM*$"
# What cleaning writes for a link, and the mark of a retweet.
_NO_WORDS = frozenset({LINK, "httpurl", "rt"})
# Three pieces or more are one kind.
MOST_PIECES = 3
_AT_ONCE = 1024


@dataclass(frozen=True)
class ControlWord:
    """A control word.

    Attributes:
        text: folded.
        forms: as the tweets write it, the commonest first.
        matches: in all tweets.
        pieces: tokens of its commonest form, in running text.
        part_of_speech: where the lexicon has it, else None.
    """

    text: str
    forms: tuple[str, ...]
    matches: int
    pieces: int
    part_of_speech: str | None

    @property
    def key(self) -> str:
        return self.text

    @property
    def parts(self) -> frozenset[str]:
        return frozenset((self.text,))


@dataclass(frozen=True)
class MatchTarget:
    """What a control of one asked word must be like.

    Attributes:
        matches: of the asked word in all tweets.
        pieces: of it; 0: it was not found.
        part_of_speech: of it, None where not known.
    """

    matches: int
    pieces: int
    part_of_speech: str | None


def count_words(corpus: Corpus, share: WorkSplit = ALL_WORK) -> pa.Table:
    """How often each word is written how, in the share of all tweets: columns `values`, string, and `counts`, int64."""
    parts = []
    for _, texts in shard_parts(corpus, share, "text"):
        forms = pc.split_pattern_regex(texts, _BETWEEN).flatten()
        counted = pa.Table.from_batches([pa.RecordBatch.from_struct_array(pc.value_counts(forms))])
        parts.append(counted.filter(pc.match_substring_regex(counted.column("values"), _WORD)))
    none = pa.table({"values": pa.array([], pa.string()), "counts": pa.array([], pa.int64())})
    return summed([none, *parts])


def summed(parts: Sequence[pa.Table]) -> pa.Table:
    """Counts of `count_words` added up, in the order of the words."""
    together = pa.concat_tables(parts).group_by("values", use_threads=False).aggregate([("counts", "sum")])
    return together.rename_columns(["values", "counts"]).sort_by("values")


def choose_controls(
    counted: pa.Table,
    asked: Sequence[Asked],
    wanted: Sequence[MatchTarget],
    count: int,
    pieces_of: Callable[[list[str]], list[int]],
    seed: int,
) -> list[ControlWord]:
    """Words of half to twice the frequency of an asked one and of as many pieces: up to `count` for each of those.

    Which of many are taken is decided by one order of all words, of the seed: asked words that are alike share theirs.
    Of the part of speech of the asked word first; others where these are too few.

    Args:
        counted: all words of the tweets, see `count_words`.
        asked: the asked words, none of which is a control, nor is a word that has the name of one.
        wanted: what each asked word is like.
        count: controls of an asked word.
        pieces_of: tokens of each of some words in running text; 0 where the tokenizer does not know one.
        seed: of the order.

    Returns:
        The controls of all asked words, each once, in alphabetical order.
    """
    sought = [one for one in wanted if one.pieces and one.matches]
    forms = _forms(counted, sought)
    words = sorted(forms.keys() - _NO_WORDS)
    matches = np.array([sum(forms[word].values()) for word in words], np.int64)
    order = np.argsort(salts_of(seed, [f"control {word}" for word in words]), kind="stable")
    # A lemma or a pattern need not be about the word that names it; in a table, one name is of one word.
    names = {one.key for one in asked}
    known: dict[str, int] = {}

    def pieces(candidates: list[str]) -> Iterator[int]:
        new = [word for word in candidates if word not in known]
        known.update(zip(new, pieces_of([_commonest(forms[word])[0] for word in new]), strict=True))
        yield from (known[word] for word in candidates)

    chosen: dict[str, ControlWord] = {}
    for one in sought:
        alike = order[(matches[order] * 2 >= one.matches) & (matches[order] <= 2 * one.matches)]
        like = _like(alike, words, one, pieces)
        others = (pair for pair in like if words[pair[0]] not in names and not _is_asked(words[pair[0]], asked))
        for index, number in islice(others, count):
            word = words[index]
            made = ControlWord(word, _commonest(forms[word]), int(matches[index]), number, part_of_speech(word))
            chosen.setdefault(word, made)
    return [chosen[word] for word in sorted(chosen)]


def _is_asked(word: str, asked: Sequence[Asked]) -> bool:
    return any(each.covers(word) for each in asked)


def _like(
    alike: Ints, words: list[str], one: MatchTarget, pieces: Callable[[list[str]], Iterator[int]]
) -> Iterator[tuple[int, int]]:
    """Of words of a like frequency those of like pieces, with these; those of the same part of speech first."""
    same = np.array([part_of_speech(words[index]) == one.part_of_speech for index in alike.tolist()], np.bool_)
    ranked = np.concatenate([alike[same], alike[~same]]) if one.part_of_speech else alike
    for first in range(0, len(ranked), _AT_ONCE):
        some = ranked[first : first + _AT_ONCE].tolist()
        for index, number in zip(some, pieces([words[index] for index in some]), strict=True):
            if number and min(number, MOST_PIECES) == min(one.pieces, MOST_PIECES):
                yield index, number


def _forms(counted: pa.Table, sought: Sequence[MatchTarget]) -> dict[str, dict[str, int]]:
    """The spellings of each word that may be as frequent as one that is sought, with their counts."""
    if not sought:
        return {}
    lower = pc.utf8_lower(counted.column("values"))
    table = counted.append_column("lower", lower)
    totals = table.group_by("lower", use_threads=False).aggregate([("counts", "sum")])
    most = pc.less_equal(totals.column("counts_sum"), 2 * max(one.matches for one in sought))
    # Folding joins a few more than lower case does: the least is told afterwards.
    least = pc.greater_equal(totals.column("counts_sum"), max(1, min(one.matches for one in sought) // 4))
    kept = table.filter(pc.is_in(lower, value_set=totals.filter(pc.and_(most, least)).column("lower")))
    forms: dict[str, dict[str, int]] = {}
    for form, count in zip(kept.column("values").to_pylist(), kept.column("counts").to_pylist(), strict=True):
        forms.setdefault(fold(form), {})[form] = count
    return forms


def _commonest(forms: dict[str, int]) -> tuple[str, ...]:
    return tuple(sorted(forms, key=lambda form: (-forms[form], form)))


def find_controls(
    corpus: Corpus, controls: Sequence[ControlWord], sampler: BottomKSampler, share: WorkSplit = ALL_WORK
) -> Places:
    """A sample of each control's places in the share of the tweets; `start` is the place among the text's words.

    Args:
        corpus: the tweets.
        controls: the control words.
        sampler: of their numbers.
        share: of the tweets.
    """
    forms = pa.array([form for control in controls for form in control.forms], pa.string())
    number = np.repeat(np.arange(len(controls)), [len(control.forms) for control in controls])
    kept, pending = [Places.of([])], 0
    for first, texts in shard_parts(corpus, share, "text"):
        lists = pc.split_pattern_regex(texts, _BETWEEN)
        which = np.asarray(pc.fill_null(pc.index_in(lists.flatten(), value_set=forms), -1))
        offsets = np.asarray(lists.offsets) - lists.offsets[0].as_py()
        place = np.flatnonzero(which >= 0)
        row = np.searchsorted(offsets, place, side="right") - 1
        kept.append(Places(number[which[place]], first + row, place - offsets[row], place - offsets[row]))
        pending += len(place)
        if pending > PENDING:
            kept, pending = [sampled(corpus, Places.concatenated(kept), sampler)], 0
    return Places.join([sampled(corpus, Places.concatenated(kept), sampler)])


def with_spans(corpus: Corpus, ordinals: Places, share: WorkSplit = ALL_WORK) -> Places:
    """Places of `find_controls` by their characters, those of a rank's share of their tweets."""
    ordinals = shared(ordinals, share)
    if not len(ordinals):
        return ordinals
    tweets, home = np.unique(ordinals.tweet, return_inverse=True)
    texts = tweet_columns(corpus, tweets, ["text"]).column("text").combine_chunks()
    words, between = (pc.split_pattern_regex(texts, pattern) for pattern in (_BETWEEN, _TOKEN))
    lengths, gaps = (np.asarray(pc.utf8_length(part.flatten())).astype(np.int64) for part in (words, between))
    word_offsets, gap_offsets = (np.asarray(part.offsets).astype(np.int64) for part in (words, between))
    # A text that begins with a word has nothing before it: its gaps are ahead by one.
    ahead = (lengths[np.minimum(word_offsets[:-1], len(lengths) - 1)] > 0).astype(np.int64)[home]
    before = np.append(0, np.cumsum(lengths)), np.append(0, np.cumsum(gaps))
    word = word_offsets[home] + ordinals.start
    gap = gap_offsets[home] + ordinals.start + ahead
    start = before[0][word] - before[0][word_offsets[home]] + before[1][gap] - before[1][gap_offsets[home]]
    return Places(ordinals.word, ordinals.tweet, start, start + lengths[word])
