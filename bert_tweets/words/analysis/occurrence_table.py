"""The occurrences in a folder of embed, the sample of each word that is analyzed, and the vectors of samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bert_tweets.common.arrays import Bools, Floats, Ints, dense_numbers
from bert_tweets.common.errors import UserError
from bert_tweets.common.hashing import generator
from bert_tweets.config import AnalyzeConfig
from bert_tweets.words.occurrences.groups import group_column, groups_among, labels
from bert_tweets.words.statistics.exchangeable_units import (
    Units,
    count_cross_group_clusters,
    earliest_per_cluster,
    sample_per_owner,
)
from bert_tweets.words.store.reader import open_vectors, vectors_of
from bert_tweets.words.store.summary import ControlWordSummary, WordSummary

from .covariates import covariate, covariate_column
from .records import ExchangeUnit

UNKNOWN_TIME = np.iinfo(np.int64).max


@dataclass(frozen=True)
class WordSample:
    """The occurrences of a word that are analyzed, one of each near-duplicate cluster.

    Attributes:
        word: the word, as it was given to embed.
        rows: int64 [occurrences], rows of the table.
        units: units of these occurrences; labels are numbers of groups.
        authors: int64 [occurrences], -1 where the author is unknown.
        tweets: int64 [groups], number of tweets with the word in each group, copies included.
        frequency: number of near-duplicate clusters before sampling.
        subwords: number of tokens of the word; 0 if it is unknown.
        cross_group_duplicates: number of near-duplicate clusters with copies in several groups.
        matches: number of places in all tweets; 0 if it is unknown.
        part_of_speech: None if it is unknown.
    """

    word: str
    rows: Ints
    units: Units
    authors: Ints
    tweets: Ints
    frequency: int
    subwords: int
    cross_group_duplicates: int
    matches: int = 0
    part_of_speech: str | None = None

    @property
    def exchange_unit(self) -> ExchangeUnit:
        known = self.authors >= 0
        if not known.any():
            return ExchangeUnit.CLUSTERS
        return ExchangeUnit.AUTHORS if known.all() else ExchangeUnit.AUTHORS_OR_CLUSTERS

    def comparable_groups(self, min_clusters: int) -> list[int]:
        """Numbers of the groups with enough clusters, of at least two units."""
        clusters = np.bincount(self.units.label, minlength=len(self.tweets))
        units = np.zeros(len(self.tweets), np.int64)
        if len(self.rows):
            units[: self.units.groups] = self.units.units_per_group()
        return np.flatnonzero((clusters >= min_clusters) & (units >= 2)).tolist()


class OccurrenceTable:
    """The found occurrences of one model in a folder of embed.

    Args:
        model: name of the model in the table: model, base, model.2, …
        by: a period or a group column.
        layer: name of the layer in the table; empty: the only one.

    Raises:
        UserError: the folder has no such model, layer or column, has vectors of several layers, or is damaged.
    """

    def __init__(self, folder: str, model: str, by: str, layer: str = "", covariates: Sequence[str] = ()):
        self.store = open_vectors(folder, model, layer or None)
        path, names = self.store.path, self.store.columns
        group = group_column(by, groups_among(names), str(path))
        read_from = {name: covariate_column(name, names, path) for name in covariates}
        wanted = {"word", "tweet_id", "cluster", "author", "time", "subwords", "control", group, *read_from.values()}
        try:
            self.columns = self.store.read(sorted(wanted))
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(
                f"{path}: cannot be read as written by embed ({str(error).splitlines()[0]}); embed again"
            ) from None
        summary = self.store.summary
        # With the number of places in all tweets, and the part of speech.
        self.word_records: Mapping[str, WordSummary | ControlWordSummary] = {**summary.control_words, **summary.words}
        self.covariates = [covariate(name, self.columns.column(column)) for name, column in read_from.items()]
        self.group = np.array(labels(self.columns.column(group), by).to_pylist(), dtype=object)

    @cached_property
    def words(self) -> list[str]:
        """The words, in order of appearance."""
        return list(self.columns.column("word").unique().to_pylist())

    @cached_property
    def word_numbers(self) -> Ints:
        """int64 [occurrences], the place of each occurrence's word in `words`."""
        found = pc.index_in(self.columns.column("word"), pa.array(self.words, pa.string()))
        return np.asarray(found.to_numpy(), dtype=np.int64)

    def rows_of(self, word: str) -> Ints:
        """int64 [occurrences of the word], their rows."""
        return np.flatnonzero(self.word_numbers == self.words.index(word))

    def labels(self, groups: Sequence[str]) -> Ints:
        """int64 [occurrences], the place of each occurrence's group in `groups`, -1 if it is in none of them."""
        number = {name: index for index, name in enumerate(groups)}
        return np.array([number.get(name, -1) for name in self.group], np.int64)

    def is_control(self) -> Bools:
        """bool [occurrences], whether the word is a control word."""
        if "control" not in self.columns.column_names:
            return np.zeros(len(self.columns), np.bool_)
        return np.asarray(pc.fill_null(self.columns.column("control"), False).to_numpy(), dtype=np.bool_)

    def numbers(self, name: str) -> Ints:
        """A column of integers, or of texts as numbers: int64 [occurrences], -1 where it is unknown."""
        return times_of(self.columns) if name == "time" else text_numbers(self.columns.column(name))

    def vectors(self, rows: Ints) -> Floats:
        """Read vectors in one pass over the file: float32 [rows, width], in the order of `rows`.

        Raises:
            UserError: some vectors are not finite, or not of one width.
        """
        order = np.argsort(rows, kind="stable")
        batches, seen = [], 0
        for batch in self.store.batches(["vector"]):
            bounds = np.searchsorted(rows[order], [seen, seen + len(batch)])
            wanted = rows[order][slice(*bounds)] - seen
            seen += len(batch)
            if len(wanted):
                batches.append(vectors_of(batch.take(pa.array(wanted))))
        result = np.empty((len(rows), batches[0].shape[1] if batches else 0), np.float32)
        result[order] = np.concatenate(batches) if batches else result
        return result


def times_of(rows: pa.Table) -> Ints:
    """int64 [rows], seconds; UNKNOWN_TIME where the time is unknown, 0 if there is no column of times."""
    if "time" not in rows.column_names:
        return np.zeros(len(rows), np.int64)
    seconds = rows.column("time").cast(pa.timestamp("s")).cast(pa.int64())
    return np.asarray(pc.fill_null(seconds, UNKNOWN_TIME), np.int64)


def text_numbers(column: pa.ChunkedArray | pa.Array) -> Ints:
    """Texts as numbers that identify them, -1 for null; integers stay as they are."""
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_string(column.type):
        column = pc.fill_null(column.dictionary_encode().indices, -1)
    return np.asarray(column, dtype=np.int64)


def units_of(author: Ints, cluster: Ints) -> Ints:
    """A number for the unit of each occurrence: its author, or its near-duplicate cluster if the author is unknown."""
    return np.where(author >= 0, author, -1 - cluster)


def unit_order(rows: Ints, unit: Ints) -> tuple[Ints, Ints]:
    """Rows by unit and then by number, and the unit of each, from 0."""
    order = np.lexsort((rows, unit))
    return rows[order], dense_numbers(unit[order])


def word_samples(
    table: OccurrenceTable, label: Ints, groups: int, config: AnalyzeConfig, controls: bool = False
) -> Iterator[WordSample]:
    """Sample each word: the earliest occurrence of each near-duplicate cluster, in one of the groups.

    Args:
        label: int64 [occurrences], the number of each occurrence's group, -1 if it is in none.
        controls: sample the control words of the table instead of the other words.
    """
    cluster, author, time = (table.numbers(name) for name in ("cluster", "author", "time"))
    tweet = table.numbers("tweet_id")
    subwords = table.numbers("subwords") if "subwords" in table.columns.column_names else np.zeros_like(tweet)
    is_control = table.is_control()
    eligible = (label >= 0) & (is_control if controls else ~is_control)
    for number, word in enumerate(table.words):
        rows = np.flatnonzero((table.word_numbers == number) & eligible)
        if not len(rows) and (controls or not (table.word_numbers[~is_control] == number).any()):
            continue
        kept = rows[earliest_per_cluster(cluster[rows], time[rows], generator(config.seed, "duplicates", word))]
        frequency = len(kept)
        random = generator(config.seed, "occurrences", word)
        owner = dense_numbers(units_of(author[kept], cluster[kept]))
        kept = kept[sample_per_owner(owner, config.max_per_author, random)]
        if len(kept) > config.max_occurrences:
            kept = np.sort(random.choice(kept, config.max_occurrences, replace=False))
        kept, unit = unit_order(kept, units_of(author[kept], cluster[kept]))
        tweets = np.unique(np.stack([label[rows], tweet[rows]]), axis=1)
        record = table.word_records.get(word)
        yield WordSample(
            word=word,
            rows=kept,
            units=Units(unit, label[kept]),
            authors=author[kept],
            tweets=np.bincount(tweets[0], minlength=groups),
            frequency=frequency,
            subwords=int(np.median(subwords[rows])) if len(rows) else 0,
            cross_group_duplicates=count_cross_group_clusters(cluster[rows], label[rows]),
            matches=record.matches if record else 0,
            part_of_speech=record.part_of_speech if record else None,
        )


def with_vectors(
    table: OccurrenceTable, samples: Iterator[WordSample], words_at_once: int = 32
) -> Iterator[tuple[WordSample, Floats]]:
    """Samples with their vectors, float32 [occurrences, width], which are read for several words at once."""
    while several := list(islice(samples, words_at_once)):
        bounds = np.cumsum([0, *(len(sample.rows) for sample in several)])
        vectors = table.vectors(np.concatenate([sample.rows for sample in several]))
        for sample, first, last in zip(several, bounds[:-1], bounds[1:], strict=True):
            yield sample, vectors[first:last]
