"""Spans as a corpus: texts that are not of shards, a window of each around its word, and words to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bert_tweets.common.errors import UserError
from bert_tweets.config import ModelConfig
from bert_tweets.corpus.shards.manifest import SPLITS, Manifest, ShardEntry
from bert_tweets.corpus.shards.reader import Tweets, shard_schema
from bert_tweets.corpus.text.cleaning import PRESETS, duplicate_key, rules_fingerprint
from bert_tweets.corpus.text.recipe import Recipe
from bert_tweets.corpus.text.span_alignment import carried
from bert_tweets.corpus.text.tokenizer import BatchTokenizer, fingerprint, ids_of, load_tokenizer, private_backend
from bert_tweets.model.loading import own_recipe, positions_of

from .find import FOUND, TRUNCATED, UNKNOWN, Occurrences, Places
from .matching import Word
from .span_file import SpanFile, read_spans

Ints = npt.NDArray[np.int64]

# The recipe of a stock model: texts as they stand.
AS_GIVEN = "as given"
_AT_ONCE = 4096
# A longer row packs no better, whatever the model could take.
_LONGEST = 512


class Texts:
    """Tweets in memory, with what `Split` gives of those of shards.

    Args:
        columns: the columns of a shard, but for its tokens.
        tokens: of the same tweets.
    """

    def __init__(self, columns: pa.RecordBatch, tokens: Tweets):
        self._columns, self._tokens = columns, tokens
        self.shards = [SimpleNamespace(rows=columns.num_rows)]

    def __len__(self) -> int:
        return int(self._columns.num_rows)

    def batch(self, shard: int) -> pa.RecordBatch:
        return self._columns

    def first_row(self, shard: int) -> int:
        return 0

    def gather(self, indices: Ints) -> Tweets:
        return self._tokens.take(indices)

    def lengths_of(self, indices: Ints) -> Ints:
        return self._tokens.lengths[indices]


@dataclass(frozen=True)
class SpanCorpus:
    """What embed needs in place of shards.

    Attributes:
        words: the asked words.
        manifest: as of shards that hold these texts.
        corpus: first a tweet a span, with its text as given and the tokens of its window; then each distinct text,
            cleaned, for the words that are its background.
        background: the latter by themselves; in `corpus` they come `len(occurrences)` later.
        occurrences: of the asked spans, a row each, in the order of the file.
        tokenizer: a fast tokenizer of `transformers`.
    """

    words: list[Word]
    manifest: Manifest
    corpus: Texts
    background: Texts
    occurrences: Occurrences
    tokenizer: Any


def open_spans(path: str, models: Sequence[str]) -> SpanCorpus:
    """A file of spans, as the first of some models wants texts.

    Args:
        path: the file.
        models: folders or hub names; the texts are cut to what all of them take.

    Raises:
        UserError: the file, a model or its recipe cannot be used.
    """
    return spans_for(read_spans(path), models)


def spans_for(file: SpanFile, models: Sequence[str]) -> SpanCorpus:
    """Spans, as the first of some models wants texts; see `open_spans`."""
    main = ModelConfig(name=models[0])
    own, _ = own_recipe(main)
    tokenizer = load_tokenizer(main.name)
    if own is not None and own.tokenizer != fingerprint(tokenizer):
        raise UserError(f"{main.name}: its tokenizer is not that of its recipe; export the model again")
    if own is not None and (own.clean not in PRESETS or own.rules != rules_fingerprint(own.clean)):
        raise UserError(
            f"{main.name}: its recipe cleans by other rules of '{own.clean}' than this program has; embed with the "
            "version that it was made with"
        )
    most = min(positions_of(ModelConfig(name=name)) for name in models)
    return span_corpus(file, own or Recipe(AS_GIVEN, "", fingerprint(tokenizer)), tokenizer, most)


def span_corpus(file: SpanFile, recipe: Recipe, tokenizer: Any, most: int) -> SpanCorpus:
    """Cleans and encodes the texts of a file, and finds the tokens of its spans.

    Args:
        file: the spans.
        recipe: how the model wants texts.
        tokenizer: a fast tokenizer of `transformers`, that of the recipe.
        most: tokens that the model takes.
    """
    texts, start, end = file.texts.to_pylist(), file.start, file.end
    if recipe.clean in PRESETS:
        texts, start, end = carried(texts, start, end, recipe.clean)
    cleaned = pa.array(texts, pa.string())
    most = min(most, _LONGEST)
    windows, status, pieces = windowed(texts, start, end, tokenizer, most)
    keys = duplicate_key(cleaned).dictionary_encode()
    cluster = np.asarray(keys.indices, np.int64)
    distinct = np.unique(cleaned.dictionary_encode().indices.to_numpy(), return_index=True)[1]
    encoded = BatchTokenizer(tokenizer, most)(cleaned.take(pa.array(distinct)))
    whole = Tweets(encoded.lengths, encoded.input_ids, encoded.word_starts)
    given = _columns(file, file.texts, cluster)
    others = _columns(file, cleaned, cluster).take(pa.array(distinct))
    columns = pa.Table.from_batches([given, others]).combine_chunks().to_batches()[0]
    places = Places(file.number, np.arange(len(file)), file.start, file.end)
    counts = np.array([len(some) for some in pieces], np.int64)
    flat = np.concatenate([np.empty(0, np.int64), *pieces])
    return SpanCorpus(
        file.words,
        _manifest(file, recipe, tokenizer, int(max(windows.lengths.max(), whole.lengths.max()))),
        Texts(columns, _joined(windows, whole)),
        Texts(others, whole),
        Occurrences(places, status, cluster, counts, flat),
        tokenizer,
    )


def windowed(
    texts: Sequence[str], start: Ints, end: Ints, tokenizer: Any, most: int
) -> tuple[Tweets, npt.NDArray[np.int8], list[Ints]]:
    """Texts as tokens, the long ones cut to a window that holds the span and as much as fits on both sides of it.

    Args:
        texts: as the model is to read them.
        start, end: int64 [texts], characters of the span; -1 where there is none.
        tokenizer: a fast tokenizer of `transformers`.
        most: tokens of a window, special ones included.

    Returns:
        The windows, the status of each span, int8 [texts], and of each the positions of its tokens in its window.
    """
    backend, unknown = private_backend(tokenizer), tokenizer.unk_token_id
    room = most - len(backend.encode("").ids)
    rows, status, pieces = [], np.full(len(texts), UNKNOWN, np.int8), []
    for first in range(0, len(texts), _AT_ONCE):
        for row, encoding in enumerate(backend.encode_batch(texts[first : first + _AT_ONCE]), first):
            ids = np.array(encoding.ids, np.int64)
            left, right = np.array(encoding.offsets, np.int64).T
            mine = np.flatnonzero((left < right) & (left < end[row]) & (right > start[row]))
            begin, stop = window(len(ids) - 2, mine - 1, room)
            rows.append(np.concatenate([ids[:1], ids[1 + begin : 1 + stop], ids[-1:]]))
            fits = 0 < len(mine) <= room
            known = fits and not (ids[mine] == unknown).any()
            status[row] = FOUND if known else TRUNCATED if len(mine) > room else UNKNOWN
            pieces.append(mine - begin if known else mine[:0])
    lengths = np.array([len(row) for row in rows], np.int64)
    flat = np.concatenate(rows).astype(np.int32)
    return Tweets(lengths, flat, np.ones(len(flat), np.bool_)), status, pieces


def window(tokens: int, span: Ints, room: int) -> tuple[int, int]:
    """The first token of a window of `room`, and the one behind its last, with the span in its middle where it can be.

    Args:
        tokens: of the text, special ones left out.
        span: int64 [pieces], ascending.
        room: tokens of the window at most.
    """
    if tokens <= room or not 0 < len(span) <= room:
        return 0, min(tokens, room)
    around = room - (int(span[-1]) + 1 - int(span[0]))
    begin = int(span[0]) - around // 2
    begin = max(0, min(begin, tokens - room))
    return begin, begin + room


def _columns(file: SpanFile, texts: pa.Array, cluster: Ints) -> pa.RecordBatch:
    kept = {
        "id": file.id,
        "time": file.time,
        "author": file.author,
        "retweet_of": pa.nulls(len(file), pa.string()),
        "cluster": pa.array(cluster),
        **{f"group.{name}": column for name, column in file.groups.items()},
        "text": texts,
    }
    named = [field for field in shard_schema(0, list(file.groups)) if field.name in kept]
    return pa.record_batch([kept[field.name] for field in named], schema=pa.schema(named))


def _joined(first: Tweets, second: Tweets) -> Tweets:
    return Tweets(
        np.concatenate([first.lengths, second.lengths]),
        np.concatenate([first.input_ids, second.input_ids]),
        np.concatenate([first.word_starts, second.word_starts]),
    )


def _manifest(file: SpanFile, recipe: Recipe, tokenizer: Any, longest: int) -> Manifest:
    entry = ShardEntry(f"{SPLITS[0]}/spans.arrow", len(file), 0, 0, file.sha256)
    return Manifest(
        recipe=recipe,
        max_length=longest,
        unknown_tokens=0,
        splits={SPLITS[0]: [entry], SPLITS[1]: []},
        groups=list(file.groups),
        **ids_of(tokenizer),
    )
