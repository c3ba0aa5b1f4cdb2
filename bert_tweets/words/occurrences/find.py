"""Where words occur in the tweets, and which tokens they consist of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import chain, pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bert_tweets.common.arrays import Bools, Ints, ranges, run_starts
from bert_tweets.corpus.shards.manifest import SPLITS, Manifest
from bert_tweets.corpus.shards.reader import Split, Tweets
from bert_tweets.corpus.text.tokenizer import private_backend
from bert_tweets.distributed.work_split import ALL_WORK, WorkSplit

from .bottom_k import BottomKSampler, salts_of
from .groups import group_by_column, group_numbers, labels
from .matching import ChosenWord

STATUSES = ("found", "truncated", "unknown")
FOUND, TRUNCATED, UNKNOWN = range(3)

# Number of tweets that are encoded, or run through a model, at a time: bounds the memory.
CHUNK_TWEETS = 4096
# Number of places to collect before they are sampled: bounds the memory.
PENDING = 2**20


class Corpus(Protocol):
    """Tweets by index; `Split` is the one of shards."""

    @property
    def shards(self) -> Sequence[Any]:
        """The shards; each has `rows`, its number of tweets."""

    def __len__(self) -> int: ...

    def batch(self, shard: int) -> pa.RecordBatch:
        """The columns of a shard."""

    def first_row(self, shard: int) -> int:
        """The index of a shard's first tweet."""

    def gather(self, indices: Ints) -> Tweets:
        """The tokens of some tweets."""

    def lengths_of(self, indices: Ints) -> Ints:
        """The number of tokens of each of some tweets."""


def open_corpus(folder: str, manifest: Manifest) -> Split:
    """All tweets of a folder of shards, training and validation, under one index."""
    shards = [shard for split in SPLITS for shard in manifest.splits[split]]
    return Split(folder, shards, manifest.vocabulary_size, manifest.groups)


@dataclass(frozen=True)
class Places:
    """Places of words in texts; all arrays are int64 [places].

    Attributes:
        word: index of the word in the list of words.
        tweet: index of the tweet in the corpus.
        start, end: span of the word in characters of the text, end excluded.
    """

    word: Ints
    tweet: Ints
    start: Ints
    end: Ints

    def __len__(self) -> int:
        return len(self.word)

    def take(self, rows: Any) -> Places:
        return Places(*(getattr(self, field.name)[rows] for field in fields(self)))

    @staticmethod
    def from_rows(rows: Sequence[tuple[int, int, int, int]]) -> Places:
        table = np.array(rows, dtype=np.int64).reshape(-1, 4)
        return Places(table[:, 0], table[:, 1], table[:, 2], table[:, 3])

    @staticmethod
    def concatenate(parts: Sequence[Places]) -> Places:
        """All places, in the given order."""
        return Places(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Places)))

    @staticmethod
    def join(parts: Sequence[Places]) -> Places:
        """All places, ordered by tweet, then word, then start."""
        joined = Places.concatenate(parts)
        return joined.take(np.lexsort((joined.start, joined.word, joined.tweet)))


@dataclass(frozen=True)
class Occurrences:
    """Places with their tokens.

    Attributes:
        places: places of the words, ordered by tweet.
        status: int8 [places], an index of `STATUSES`.
        cluster: int64 [places], number of the tweet's near-duplicate cluster.
        subword_counts: int64 [places], number of tokens of the word; 0 unless it is found.
        subword_positions: int64 [sum of subword_counts], positions of these tokens in their tweet.
    """

    places: Places
    status: npt.NDArray[np.int8]
    cluster: Ints
    subword_counts: Ints
    subword_positions: Ints

    def __len__(self) -> int:
        return len(self.places)

    def first_positions(self, rows: slice) -> Ints:
        """The position of each occurrence's first token, for a slice of them; int64 [rows], -1 unless it is found."""
        counts = self.subword_counts[rows]
        begins = int(self.subword_counts[: rows.start].sum()) + np.cumsum(counts) - counts
        first = np.full(len(counts), -1, np.int64)
        first[counts > 0] = self.subword_positions[begins[counts > 0]]
        return first


def median_subwords(occurrences: Occurrences, rows: Bools) -> int:
    """The median number of tokens of the found ones among some occurrences; 0 if none of them is found."""
    counts = occurrences.subword_counts[rows & (occurrences.status == FOUND)]
    return int(np.median(counts)) if len(counts) else 0


def find(corpus: Corpus, words: Sequence[ChosenWord], share: WorkSplit = ALL_WORK) -> Places:
    """Every place of every word in a share of the tweets."""
    return Places.join([Places.from_rows([]), *_by_shard(corpus, words, share)])


def search(
    corpus: Corpus, words: Sequence[ChosenWord], sampler: BottomKSampler, by: str = "", share: WorkSplit = ALL_WORK
) -> tuple[Places, Ints]:
    """Sample each word's places in a share of the tweets, in each group separately, in bounded memory.

    The groups are those of the period or group column `by`; if it is empty, all tweets are one group.

    Returns:
        The sampled places, and the number of places of each word, int64 [words].
    """
    matches = np.zeros(len(words), np.int64)
    kept, pending = [Places.from_rows([])], 0
    for places in _by_shard(corpus, words, share):
        matches += np.bincount(places.word, minlength=len(words))
        kept.append(places)
        pending += len(places)
        if sampler.limit and pending > PENDING:
            kept, pending = [sample_places(corpus, Places.join(kept), sampler, by)], 0
    return sample_places(corpus, Places.join(kept), sampler, by), matches


def sample_places(corpus: Corpus, places: Places, sampler: BottomKSampler, by: str = "") -> Places:
    """The places that a sampler keeps in each group, see `search`; ordered by tweet, before and after."""
    if not sampler.limit or not len(places):
        return places
    group = np.zeros_like(places.word)
    if by:
        names = tweet_columns(corpus, places.tweet, [group_by_column(by)])
        group = group_numbers(labels(names.column(0), by))
    return places.take(sampler.select(places.word, group, places.tweet, places.start))


def _by_shard(corpus: Corpus, words: Sequence[ChosenWord], share: WorkSplit) -> Iterator[Places]:
    """Arrow preselects each shard's texts for each word; Python finds the spans in these."""
    for first, texts in shard_parts(corpus, share, "text"):
        found: list[tuple[int, int, int, int]] = []
        for number, word in enumerate(words):
            rows = np.flatnonzero(word.candidates(texts).to_numpy(zero_copy_only=False))
            for row, text in zip(rows.tolist(), texts.take(pa.array(rows)).to_pylist(), strict=True):
                found.extend((number, first + row, start, end) for start, end in word.spans(text))
        yield Places.join([Places.from_rows(found)])


def shard_parts(corpus: Corpus, share: WorkSplit, name: str) -> Iterator[tuple[int, pa.Array]]:
    """A column of a share of the tweets, shard by shard, each with the index of its first tweet."""
    tweets = share.range_for(len(corpus))
    for shard, entry in enumerate(corpus.shards):
        begins = corpus.first_row(shard)
        first, last = max(begins, tweets.start), min(begins + entry.rows, tweets.stop)
        if first < last:
            yield first, corpus.batch(shard).column(name).slice(first - begins, last - first)


def sample(places: Places, keys: Sequence[str], limit: int, seed: int) -> Places:
    """A uniform sample of each word's places, ordered by tweet; a function of seed and word, not of the other words.

    `limit` is the maximum number of places of a word; 0: no limit.
    """
    sampler = BottomKSampler(salts_of(seed, keys), limit)
    return places.take(sampler.select(places.word, np.zeros_like(places.word), places.tweet, places.start))


def align(corpus: Corpus, places: Places, tokenizer: Any, unknown_id: int) -> Occurrences:
    """Find the tokens of places that are ordered by tweet, with the `transformers` tokenizer that made the shards."""
    backend = private_backend(tokenizer)
    parts = [_align_chunk(corpus, places.take(rows), backend, unknown_id) for rows in tweet_chunks(places.tweet)]
    kinds = {"status": np.int8, "cluster": np.int64, "subword_counts": np.int64, "subword_positions": np.int64}
    columns: dict[str, Any] = {
        name: np.concatenate([np.empty(0, kind), *(getattr(part, name) for part in parts)])
        for name, kind in kinds.items()
    }
    return Occurrences(places, **columns)


def tweet_chunks(tweet: Ints) -> Iterator[slice]:
    """Slices of rows that are ordered by tweet: `CHUNK_TWEETS` whole tweets each."""
    bounds = [*run_starts(tweet)[::CHUNK_TWEETS].tolist(), len(tweet)]
    yield from (slice(first, last) for first, last in pairwise(bounds))


def places_in_share(places: Places, share: WorkSplit) -> Places:
    """The places in a rank's share of the tweets that have any; ordered by tweet, before and after."""
    bounds = np.append(run_starts(places.tweet), len(places))
    mine = share.range_for(len(bounds) - 1)
    return places.take(slice(bounds[mine.start], bounds[mine.stop]))


def tweet_columns(corpus: Corpus, tweets: Ints, names: list[str]) -> pa.Table:
    """Columns of some tweets, int64 [rows], indices in ascending order; may repeat."""
    parts = []
    ends = np.cumsum([shard.rows for shard in corpus.shards])
    homes = np.searchsorted(ends, tweets, side="right")
    for home in np.unique(homes).tolist():
        rows = pa.array(tweets[homes == home] - corpus.first_row(home))
        batch = corpus.batch(home)
        parts.append(pa.table({name: batch.column(name).take(rows) for name in names}))
    return pa.concat_tables(parts)


def _align_chunk(corpus: Corpus, places: Places, backend: Any, unknown_id: int) -> Occurrences:
    tweets, home = np.unique(places.tweet, return_inverse=True)
    columns = tweet_columns(corpus, tweets, ["text", "cluster"])
    texts = columns.column("text").combine_chunks()
    stored = corpus.gather(tweets)
    encodings = backend.encode_batch(texts.to_pylist())
    lengths = np.array([len(encoding) for encoding in encodings], dtype=np.int64)
    ids = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), dtype=np.int64)
    offsets = np.array([pair for encoding in encodings for pair in encoding.offsets], dtype=np.int64)
    first = np.cumsum(lengths) - lengths
    cut = lengths > stored.lengths
    _check_tokens(ids, first, lengths, cut, stored.lengths, stored.input_ids)
    # A tweet that was truncated keeps its first tokens, and the special one that ends it.
    last = np.where(cut, stored.lengths - 1, lengths)

    token = ranges(first[home], lengths[home])
    owner = np.repeat(np.arange(len(places)), lengths[home])
    left, right = offsets[token, 0], offsets[token, 1]
    # Special tokens have empty offsets.
    is_subword = (left < right) & (left < places.end[owner]) & (right > places.start[owner])
    token, owner = token[is_subword], owner[is_subword]
    position = token - first[home[owner]]
    count = len(places)
    subwords = np.bincount(owner, minlength=count)
    beyond = np.bincount(owner[position >= last[home[owner]]], minlength=count) > 0
    unknown = np.bincount(owner[ids[token] == unknown_id], minlength=count) > 0
    # A word that the tokenizer drops without a trace has no token at all.
    status = np.select([beyond, unknown | (subwords == 0)], [TRUNCATED, UNKNOWN], FOUND).astype(np.int8)
    clusters = columns.column("cluster").to_numpy()
    return Occurrences(
        places, status, clusters[home], np.where(status == FOUND, subwords, 0), position[status[owner] == FOUND]
    )


def _check_tokens(ids: Ints, first: Ints, lengths: Ints, cut: Bools, stored_lengths: Ints, stored_ids: Any) -> None:
    """Assert that the tokens of the texts are those of the shards, as the recipe guarantees."""
    assert (cut | (lengths == stored_lengths)).all(), "a text has fewer tokens than in its shard"
    expected = ids[ranges(first, stored_lengths)]
    ends = np.cumsum(stored_lengths) - 1
    expected[ends[cut]] = ids[(first + lengths - 1)[cut]]
    assert (expected == stored_ids).all(), "the tokens of a text differ from those in its shard"
