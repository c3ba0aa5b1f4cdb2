"""A file of spans as a corpus: a window of each text around its word, and the whole texts for background words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bert_tweets.common.arrays import Ints
from bert_tweets.common.errors import UserError
from bert_tweets.config import ModelConfig
from bert_tweets.corpus.shards.manifest import SPLITS, Manifest, ShardEntry
from bert_tweets.corpus.shards.reader import Tweets, shard_schema
from bert_tweets.corpus.text.cleaning import PRESETS, duplicate_key, rules_fingerprint
from bert_tweets.corpus.text.recipe import Recipe
from bert_tweets.corpus.text.span_alignment import align_spans
from bert_tweets.corpus.text.tokenizer import BatchTokenizer, fingerprint, ids_of, load_tokenizer, private_backend
from bert_tweets.model.loading import own_recipe, positions_of

from .find import FOUND, TRUNCATED, UNKNOWN, Occurrences, Places
from .matching import Word
from .span_file import SpanFile, read_spans

# The recipe of a stock model: texts as they are given.
AS_GIVEN = "as given"
_AT_ONCE = 4096
# Maximum number of tokens of a window, also for models that take more: longer rows pack no better.
_LONGEST = 512


class Texts:
    """Tweets in memory, as a `Corpus`; the columns are those of a shard, without tokens."""

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
    """A file of spans, in place of shards.

    Attributes:
        words: the chosen words.
        manifest: manifest of shards that would have these texts.
        corpus: first a tweet per span, with its text as given and the tokens of its window; then each distinct text,
            cleaned, for the background words.
        background: the latter alone; their index in `corpus` is `len(occurrences)` higher.
        occurrences: the spans, in the order of the file.
    """

    words: list[Word]
    manifest: Manifest
    corpus: Texts
    background: Texts
    occurrences: Occurrences
    tokenizer: Any


def open_spans(path: str, models: Sequence[str]) -> SpanCorpus:
    """Read a file of spans, cleaned and tokenised for the first of some models (folders or hub names).

    Windows are as short as the model with the fewest positions needs.

    Raises:
        UserError: the file, a model or its recipe cannot be used.
    """
    return spans_for(read_spans(path), models)


def spans_for(file: SpanFile, models: Sequence[str]) -> SpanCorpus:
    """Like `open_spans`, for spans that were read already."""
    main = ModelConfig(name=models[0])
    own, _ = own_recipe(main)
    tokenizer = load_tokenizer(main.name)
    if own is not None and own.tokenizer != fingerprint(tokenizer):
        raise UserError(f"{main.name}: its tokenizer does not match its recipe; export the model again")
    if own is not None and (own.clean not in PRESETS or own.rules != rules_fingerprint(own.clean)):
        raise UserError(
            f"{main.name}: its recipe has other cleaning rules of '{own.clean}' than this version; embed with the "
            "version that made the model"
        )
    most = min(positions_of(ModelConfig(name=name)) for name in models)
    return span_corpus(file, own or Recipe(AS_GIVEN, "", fingerprint(tokenizer)), tokenizer, most)


def span_corpus(file: SpanFile, recipe: Recipe, tokenizer: Any, most: int) -> SpanCorpus:
    """Clean and tokenise the texts of a file with a fast tokenizer of that recipe, and find the tokens of its spans."""
    texts, start, end = file.texts.to_pylist(), file.start, file.end
    if recipe.clean in PRESETS:
        texts, start, end = align_spans(texts, start, end, recipe.clean)
    cleaned = pa.array(texts, pa.string())
    most = min(most, _LONGEST)
    windows, status, positions = make_windows(texts, start, end, tokenizer, most)
    keys = duplicate_key(cleaned).dictionary_encode()
    cluster = np.asarray(keys.indices, np.int64)
    distinct = np.unique(cleaned.dictionary_encode().indices.to_numpy(), return_index=True)[1]
    encoded = BatchTokenizer(tokenizer, most)(cleaned.take(pa.array(distinct)))
    whole = Tweets(encoded.lengths, encoded.input_ids, encoded.word_starts)
    given = _columns(file, file.texts, cluster)
    others = _columns(file, cleaned, cluster).take(pa.array(distinct))
    columns = pa.Table.from_batches([given, others]).combine_chunks().to_batches()[0]
    places = Places(file.number, np.arange(len(file)), file.start, file.end)
    counts = np.array([len(some) for some in positions], np.int64)
    flat = np.concatenate([np.empty(0, np.int64), *positions])
    return SpanCorpus(
        file.words,
        _manifest(file, recipe, tokenizer, int(max(windows.lengths.max(), whole.lengths.max()))),
        Texts(columns, _concatenated(windows, whole)),
        Texts(others, whole),
        Occurrences(places, status, cluster, counts, flat),
        tokenizer,
    )


def make_windows(
    texts: Sequence[str], start: Ints, end: Ints, tokenizer: Any, most: int
) -> tuple[Tweets, npt.NDArray[np.int8], list[Ints]]:
    """Tokenise cleaned texts; long ones become a window of the span and as much as fits on both sides of it.

    Args:
        start, end: int64 [texts], span in characters; -1 if cleaning removed it.
        most: maximum number of tokens of a window, including special ones.

    Returns:
        The windows, the status of each span, int8 [texts], and the positions of its tokens in its window.
    """
    backend, unknown = private_backend(tokenizer), tokenizer.unk_token_id
    room = most - len(backend.encode("").ids)
    rows, status, positions = [], np.full(len(texts), UNKNOWN, np.int8), []
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
            positions.append(mine - begin if known else mine[:0])
    lengths = np.array([len(row) for row in rows], np.int64)
    flat = np.concatenate(rows).astype(np.int32)
    return Tweets(lengths, flat, np.ones(len(flat), np.bool_)), status, positions


def window(tokens: int, span: Ints, room: int) -> tuple[int, int]:
    """The first token of a window and the one after its last, with the span in the middle if possible.

    Args:
        tokens: number of tokens of the text, without special ones.
        span: int64 [subwords], positions of the span's tokens, ascending.
        room: maximum number of tokens of the window.
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


def _concatenated(first: Tweets, second: Tweets) -> Tweets:
    return Tweets(*(np.concatenate([getattr(first, f.name), getattr(second, f.name)]) for f in fields(Tweets)))


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
