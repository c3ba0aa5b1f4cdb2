"""Choosing: which occurrences of asked words and of control words are embedded, the same ones at any world size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bert_tweets.config import EmbedConfig
from bert_tweets.corpus.text.tokenizer import private_backend
from bert_tweets.distributed.world import World

from .bottom_k import BottomKSampler, salts_of
from .control_words import ControlWord, MatchTarget, choose_controls, count_words, find_controls, summed, with_spans
from .find import FOUND, Corpus, Occurrences, Places, align, sample, sampled, search, shared
from .matching import Asked
from .part_of_speech import part_of_speech

Ints = npt.NDArray[np.int64]
Columns = TypeVar("Columns", Places, Occurrences)

# Occurrences of an asked word that its number of pieces is told from.
_FOR_PIECES = 100


@dataclass(frozen=True)
class Choice:
    """What is embedded.

    Attributes:
        controls: ordinary words, numbered on from the asked ones.
        places: of asked words and controls, ordered by tweet.
        matches: int64 [words and controls], places of each in all tweets.
    """

    controls: list[ControlWord]
    places: Places
    matches: Ints


def choose_occurrences(
    config: EmbedConfig, corpus: Corpus, words: Sequence[Asked], tokenizer: Any, unknown_id: int, world: World
) -> Choice:
    """Looks for the asked words, samples them, and chooses ordinary words to compare them with.

    Args:
        config: the settings.
        corpus: the tweets.
        words: that are asked for.
        tokenizer: a fast tokenizer of `transformers`, the one that made the shards.
        unknown_id: its [UNK].
        world: the ranks; all of them call it.
    """
    keys = [word.key for word in words]
    sampler = BottomKSampler(salts_of(config.seed, keys), config.max_occurrences)
    mine, counts = search(corpus, words, sampler, config.by, world.work_split)
    matches = world.all_gather_concat(counts).reshape(-1, len(words)).sum(axis=0)
    places = sampled(corpus, Places.join([of_all_ranks(mine, world)]), sampler, config.by)
    controls: list[ControlWord] = []
    if config.controls:
        some = shared(sample(places, keys, _FOR_PIECES, config.seed), world.work_split)
        aligned = of_all_ranks(align(corpus, some, tokenizer, unknown_id), world)
        wanted = [
            MatchTarget(int(matches[number]), usual_pieces(aligned, number), part_of_speech(word.key))
            for number, word in enumerate(words)
        ]
        counted = _counted(corpus, world)
        count_pieces = _Pieces(private_backend(tokenizer), unknown_id)
        controls = choose_controls(counted, words, wanted, config.controls, count_pieces, config.seed)
    return _with_controls(config, corpus, controls, Choice(controls, places, matches), world)


def usual_pieces(occurrences: Occurrences, word: int) -> int:
    """The median of a word's tokens where it is found; 0 where it is not."""
    counts = occurrences.piece_counts[(occurrences.places.word == word) & (occurrences.status == FOUND)]
    return int(np.median(counts)) if len(counts) else 0


def of_all_ranks(mine: Columns, world: World) -> Columns:
    """The rows of all ranks, one behind the other."""
    columns: list[Any] = [getattr(mine, field.name) for field in fields(mine)]
    joined: list[Any] = [
        of_all_ranks(one, world) if isinstance(one, Places) else world.all_gather_concat(one) for one in columns
    ]
    return type(mine)(*joined)


def _with_controls(
    config: EmbedConfig, corpus: Corpus, controls: list[ControlWord], choice: Choice, world: World
) -> Choice:
    if not controls:
        return choice
    sampler = BottomKSampler(salts_of(config.seed, [one.key for one in controls]), config.control_occurrences)
    mine = find_controls(corpus, controls, sampler, world.work_split)
    ordinals = sampled(corpus, Places.join([of_all_ranks(mine, world)]), sampler)
    found = of_all_ranks(with_spans(corpus, ordinals, world.work_split), world)
    numbered_on = Places(found.word + len(choice.matches), found.tweet, found.start, found.end)
    matches = np.append(choice.matches, [one.matches for one in controls])
    return Choice(controls, Places.join([choice.places, numbered_on]), matches)


def _counted(corpus: Corpus, world: World) -> pa.Table:
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
    return summed([pa.table({"values": together.cast(pa.string()), "counts": counts})])


@dataclass(frozen=True)
class _Pieces:
    """Tokens of words in running text; 0 where one is [UNK]."""

    backend: Any
    unknown_id: int

    def __call__(self, words: list[str]) -> list[int]:
        # Byte-level tokens hold the space before a word.
        texts = [f" {word}" for word in words]
        encodings = self.backend.encode_batch(texts, add_special_tokens=False)
        return [0 if self.unknown_id in encoding.ids else len(encoding.ids) for encoding in encodings]
