"""Evidence: the occurrences that embed left, those that count of each word, and their vectors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bert_tweets.common.errors import UserError
from bert_tweets.common.hashing import generator
from bert_tweets.config import AnalyzeConfig
from bert_tweets.words.occurrences.groups import group_column, groups_among, labels
from bert_tweets.words.statistics.energy_distance import Floats
from bert_tweets.words.statistics.exchangeable_units import Ints, Units, at_most, earliest, spanning
from bert_tweets.words.store.reader import SUMMARY, table_in, vectors_of

from .covariates import covariate, covariate_column

_NEVER = np.iinfo(np.int64).max
# Words whose vectors are in memory at a time.
_WORDS = 32


@dataclass(frozen=True)
class Chosen:
    """The occurrences of a word that count.

    Attributes:
        word: as it was asked for.
        rows: int64 [occurrences], of the table.
        units: of these; labels are numbers of groups.
        by_author: units are authors; else some or all are clusters.
        authors: int64 [occurrences], -1 where not known.
        tweets: int64 [groups], of all occurrences found, copies too.
        frequency: clusters, before any sample.
        matches: places in all tweets; 0 where the folder does not tell.
        part_of_speech: None where the folder does not tell.
        pieces: tokens of the word; 0 where the table does not tell.
        spanning: clusters with occurrences in several groups.
    """

    word: str
    rows: Ints
    units: Units
    by_author: bool
    authors: Ints
    tweets: Ints
    frequency: int
    pieces: int
    spanning: int
    matches: int = 0
    part_of_speech: str | None = None

    @property
    def exchanged(self) -> str:
        """What is exchanged as a whole."""
        if self.by_author:
            return "whole authors"
        known = (self.authors >= 0).any()
        return "whole authors, and clusters where no author is known" if known else "whole clusters"

    def comparable(self, min_clusters: int) -> list[int]:
        """Groups with clusters enough, of two units at least."""
        clusters = np.bincount(self.units.label, minlength=len(self.tweets))
        units = np.zeros(len(self.tweets), np.int64)
        if len(self.rows):
            units[: self.units.groups] = self.units.units_of_groups()
        return np.flatnonzero((clusters >= min_clusters) & (units >= 2)).tolist()


class Table:
    """The found occurrences of one model in a folder that embed left.

    Args:
        folder: of embed.
        role: model or base.
        by: a period or a group column.
        layer: as embed names it; empty: the only one.
        covariates: to regress on.

    Raises:
        UserError: there is no such file, model, layer or column, or it holds vectors of several spaces.
    """

    def __init__(self, folder: str, role: str, by: str, layer: str = "", covariates: Sequence[str] = ()):
        self.path = table_in(folder)
        try:
            names = pq.read_schema(self.path).names
            self.summary: dict[str, Any] = json.loads((Path(folder) / SUMMARY).read_text(encoding="utf-8"))
            column = group_column(by, groups_among(names), str(self.path))
            wanted = {"word", "tweet_id", "cluster", "author", "time", "layer", "correction", column}
            wanted |= {"pieces", "control"} & set(names)
            of_covariates = {name: covariate_column(name, names, self.path) for name in covariates}
            self._kept = {"model": role, "status": "found"} | ({"layer": layer} if layer else {})
            kept = [(name, "==", value) for name, value in self._kept.items()]
            self.columns = pq.read_table(self.path, columns=sorted(wanted | {*of_covariates.values()}), filters=kept)
            # Of asked and control words: matches in all tweets, part of speech.
            self.told: dict[str, dict[str, Any]] = {**self.summary.get("controls", {}), **self.summary.get("words", {})}
        except (pa.ArrowInvalid, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
            raise UserError(
                f"{self.path}: cannot be read as what embed leaves ({str(error).splitlines()[0]})"
            ) from None
        self.covariates = [covariate(name, self.columns.column(one)) for name, one in of_covariates.items()]
        if not len(self.columns):
            self._require_model(role)
            self._require_layer(layer)
        self.space = {
            "weights": self.summary.get("weights", {}).get(role),
            "recipe": self.summary.get("recipe"),
            **{name: self._only(name) for name in ("layer", "correction")},
            "pooling": self.summary.get("pooling"),
            "what the correction was fitted on": self.summary.get("correction_fitted", {}).get(role),
        }
        self.period = np.array(labels(self.columns.column(column), by).to_pylist(), dtype=object)

    def _only(self, name: str) -> str | None:
        values = self.columns.column(name).unique().to_pylist()
        if len(values) > 1:
            choice = f"; give layer=, one of {', '.join(values)}" if name == "layer" else ""
            raise UserError(
                f"{self.path}: mixes vectors of {name}={' and '.join(values)}, which are not comparable{choice}"
            )
        return values[0] if values else None

    def _require_model(self, role: str) -> None:
        there = pq.read_table(self.path, columns=["model"]).column("model").unique().to_pylist()
        if there and role not in there:
            raise UserError(f"model={role}: {self.path} has none such; it has {', '.join(there)}")

    def _require_layer(self, layer: str) -> None:
        there = pq.read_table(self.path, columns=["layer"], filters=pc.field("model") == self._kept["model"])
        layers = there.column("layer").unique().to_pylist()
        if layer and layers and layer not in layers:
            raise UserError(f"layer={layer}: {self.path} has none such; it has {', '.join(layers)}")

    @cached_property
    def names(self) -> list[str]:
        """The words, in the order in which they come up."""
        names: list[str] = self.columns.column("word").unique().to_pylist()
        return names

    @cached_property
    def words(self) -> Ints:
        """int64 [occurrences], the number of each one's word."""
        found = pc.index_in(self.columns.column("word"), pa.array(self.names, pa.string()))
        return np.asarray(found.to_numpy(), dtype=np.int64)

    def labels(self, groups: Sequence[str]) -> Ints:
        """int64 [occurrences], the place of each one's group in `groups`, -1 where it is none of them."""
        number = {name: index for index, name in enumerate(groups)}
        return np.array([number.get(name, -1) for name in self.period], np.int64)

    def is_control(self) -> npt.NDArray[np.bool_]:
        """bool [occurrences]."""
        if "control" not in self.columns.column_names:
            return np.zeros(len(self.columns), np.bool_)
        return np.asarray(pc.fill_null(self.columns.column("control"), False).to_numpy(), dtype=np.bool_)

    def numbers(self, name: str) -> Ints:
        """A column of integers, or of texts as numbers that tell them apart; -1 where not known."""
        column = self.columns.column(name).combine_chunks()
        if name == "time":
            seconds = column.cast(pa.timestamp("s")).cast(pa.int64())
            return np.asarray(pc.fill_null(seconds, _NEVER), dtype=np.int64)
        if pa.types.is_string(column.type):
            column = pc.fill_null(column.dictionary_encode().indices, -1)
        return np.asarray(column, dtype=np.int64)

    def vectors(self, rows: Ints) -> Floats:
        """float32 [rows, width], in the order of `rows`; one pass over the file.

        Raises:
            UserError: there are some that are no numbers, or not of one width.
        """
        order = np.argsort(rows, kind="stable")
        parts, seen = [], 0
        for batch in pq.ParquetFile(self.path).iter_batches(4096, columns=[*self._kept, "vector"]):
            same = [pc.equal(batch[name], value) for name, value in self._kept.items()]
            kept = batch.filter(reduce(pc.and_, same))
            bounds = np.searchsorted(rows[order], [seen, seen + len(kept)])
            here = rows[order][slice(*bounds)] - seen
            seen += len(kept)
            if len(here):
                parts.append(vectors_of(kept.select(["vector"]).take(pa.array(here))))
        result = np.empty((len(rows), parts[0].shape[1] if parts else 0), np.float32)
        result[order] = np.concatenate(parts) if parts else result
        return result


def choose_samples(
    table: Table, label: Ints, groups: int, config: AnalyzeConfig, asked: bool = True
) -> Iterator[Chosen]:
    """What counts of each word: one occurrence a cluster, the earliest, in one of the groups.

    Args:
        table: the occurrences.
        label: int64 [occurrences], the group of each; -1: none.
        groups: how many.
        config: the settings.
        asked: the asked words; else the control words.
    """
    cluster, author, time = (table.numbers(name) for name in ("cluster", "author", "time"))
    tweet = table.numbers("tweet_id")
    pieces = table.numbers("pieces") if "pieces" in table.columns.column_names else np.zeros_like(tweet)
    controls = table.is_control()
    counts = (label >= 0) & (~controls if asked else controls)
    for word, name in enumerate(table.names):
        rows = np.flatnonzero((table.words == word) & counts)
        if not len(rows) and not (asked and (table.words[~controls] == word).any()):
            continue
        kept = rows[earliest(cluster[rows], time[rows], generator(config.seed, f"copies of {name}"))]
        frequency = len(kept)
        random = generator(config.seed, f"occurrences of {name}")
        owner = np.where(author[kept] >= 0, author[kept], -1 - cluster[kept])
        kept = kept[at_most(np.unique(owner, return_inverse=True)[1], config.max_per_author, random)]
        if len(kept) > config.max_occurrences:
            kept = np.sort(random.choice(kept, config.max_occurrences, replace=False))
        unit = np.where(author[kept] >= 0, author[kept], -1 - cluster[kept])
        order = np.lexsort((kept, unit))
        kept, unit = kept[order], np.unique(unit[order], return_inverse=True)[1]
        pairs = np.unique(np.stack([label[rows], tweet[rows]]), axis=1)
        yield Chosen(
            word=name,
            rows=kept,
            units=Units(unit, label[kept]),
            by_author=bool(len(kept)) and bool((author[kept] >= 0).all()),
            authors=author[kept],
            tweets=np.bincount(pairs[0], minlength=groups),
            frequency=frequency,
            pieces=int(np.median(pieces[rows])) if len(rows) else 0,
            spanning=spanning(cluster[rows], label[rows]),
            matches=int(table.told.get(name, {}).get("matches") or 0),
            part_of_speech=table.told.get(name, {}).get("part_of_speech"),
        )


def with_vectors(table: Table, words: Iterator[Chosen]) -> Iterator[tuple[Chosen, Floats]]:
    """Words with their vectors, float32 [occurrences, width], read for some words at a time."""
    while several := list(islice(words, _WORDS)):
        bounds = np.cumsum([0, *(len(chosen.rows) for chosen in several)])
        vectors = table.vectors(np.concatenate([chosen.rows for chosen in several]))
        for chosen, first, last in zip(several, bounds[:-1], bounds[1:], strict=True):
            yield chosen, vectors[first:last]
