"""Which occurrences of chosen words and control words are embedded; the same ones at any world size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from bert_tweets.common.arrays import Ints
from bert_tweets.config import EmbedConfig
from bert_tweets.corpus.text.tokenizer import private_backend
from bert_tweets.distributed.world import World

from .bottom_k import BottomKSampler, salts_of
from .control_words import (
    ControlWord,
    MatchCriteria,
    choose_controls,
    count_words,
    find_controls,
    sum_counts,
    with_spans,
)
from .find import Corpus, Occurrences, Places, align, median_subwords, places_in_share, sample, sample_places, search
from .matching import ChosenWord
from .part_of_speech import part_of_speech

Columns = TypeVar("Columns", Places, Occurrences)

# Number of occurrences of a chosen word that its number of subwords is determined from.
_FOR_SUBWORDS = 100


@dataclass(frozen=True)
class Choice:
    """What is embedded.

    Attributes:
        places: places of chosen words and control words, ordered by tweet.
        matches: int64 [chosen words and control words], number of places of each in all tweets.
    """

    control_words: list[ControlWord]
    places: Places
    matches: Ints


def choose_occurrences(
    config: EmbedConfig, corpus: Corpus, words: Sequence[ChosenWord], tokenizer: Any, unknown_id: int, world: World
) -> Choice:
    """Find the chosen words, sample their places, and choose control words. Every rank calls it.

    `tokenizer` is the fast tokenizer of `transformers` that made the shards.
    """
    keys = [word.key for word in words]
    sampler = BottomKSampler(salts_of(config.seed, keys), config.max_occurrences)
    mine, counts = search(corpus, words, sampler, config.by, world.work_split)
    matches = world.all_gather_concat(counts).reshape(-1, len(words)).sum(axis=0)
    places = sample_places(corpus, Places.join([gather_rows(mine, world)]), sampler, config.by)
    controls: list[ControlWord] = []
    if config.controls:
        some = places_in_share(sample(places, keys, _FOR_SUBWORDS, config.seed), world.work_split)
        aligned = gather_rows(align(corpus, some, tokenizer, unknown_id), world)
        wanted = [
            MatchCriteria(
                int(matches[number]), median_subwords(aligned, aligned.places.word == number), part_of_speech(word.key)
            )
            for number, word in enumerate(words)
        ]
        counted = _count_on_all_ranks(corpus, world)
        count_subwords = partial(_count_subwords, private_backend(tokenizer), unknown_id)
        controls = choose_controls(counted, words, wanted, config.controls, count_subwords, config.seed)
    return _with_controls(config, corpus, controls, Choice(controls, places, matches), world)


def gather_rows(mine: Columns, world: World) -> Columns:
    """Concatenate the rows of all ranks."""
    columns: list[Any] = [getattr(mine, field.name) for field in fields(mine)]
    joined: list[Any] = [
        gather_rows(one, world) if isinstance(one, Places) else world.all_gather_concat(one) for one in columns
    ]
    return type(mine)(*joined)


def _with_controls(
    config: EmbedConfig, corpus: Corpus, controls: list[ControlWord], choice: Choice, world: World
) -> Choice:
    if not controls:
        return choice
    sampler = BottomKSampler(salts_of(config.seed, [one.key for one in controls]), config.control_occurrences)
    mine = find_controls(corpus, controls, sampler, world.work_split)
    ordinals = sample_places(corpus, Places.join([gather_rows(mine, world)]), sampler)
    found = gather_rows(with_spans(corpus, ordinals, world.work_split), world)
    numbered_on = Places(found.word + len(choice.matches), found.tweet, found.start, found.end)
    matches = np.append(choice.matches, [one.matches for one in controls])
    return Choice(controls, Places.join([choice.places, numbered_on]), matches)


def _count_on_all_ranks(corpus: Corpus, world: World) -> pa.Table:
    """`count_words` over the tweets of all ranks."""
    mine = count_words(corpus, world.work_split)
    if world.world_size == 1:
        return mine
    words = mine.column("values").combine_chunks().cast(pa.large_string())
    _, offsets, data = words.buffers()
    text = np.frombuffer(data, np.uint8) if data else np.zeros(0, np.uint8)
    lengths = world.all_gather_concat(np.diff(np.frombuffer(offsets, np.int64)))
    ends = np.append(0, np.cumsum(lengths))
    together = pa.LargeStringArray.from_buffers(
        len(lengths), pa.py_buffer(ends), pa.py_buffer(world.all_gather_concat(text))
    )
    counts = world.all_gather_concat(mine.column("counts").to_numpy())
    return sum_counts([pa.table({"values": together.cast(pa.string()), "counts": counts})])


def _count_subwords(backend: Any, unknown_id: int, words: list[str]) -> list[int]:
    """The number of tokens of each word within running text; 0 if one is [UNK]."""
    # Byte-level tokens include the space before a word.
    encodings = backend.encode_batch([f" {word}" for word in words], add_special_tokens=False)
    return [0 if unknown_id in encoding.ids else len(encoding.ids) for encoding in encodings]
