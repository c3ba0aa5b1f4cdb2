"""Covariates: from columns of the table of occurrences to the terms of a regression of one word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bert_tweets.common.arrays import Bools, Doubles, Ints
from bert_tweets.common.errors import UserError, did_you_mean
from bert_tweets.config import PERIODS
from bert_tweets.words.occurrences.groups import groups_among

from .records import TermColumn

TIME = "time"
# Columns about the tweet of an occurrence: truth values, numbers and texts.
_COLUMNS = ("links", "retweet", "tweet_length", "position", "casing", "subwords")
_SECONDS_PER_DAY = 86_400


def covariate_column(name: str, names: Sequence[str], path: Path) -> str:
    """The column of a covariate in the table; raises UserError if there is none."""
    if name in PERIODS or name == TIME:
        return TIME
    if name in _COLUMNS and name in names:
        return name
    column = name if name.startswith("group.") else f"group.{name}"
    if column not in names:
        available = [TIME, *PERIODS, *(each for each in _COLUMNS if each in names), *groups_among(names)]
        raise UserError(
            f"covariates={name}: {path} has no such column{did_you_mean(name, available)}; it has "
            f"{', '.join(dict.fromkeys(available))}"
        )
    return column


@dataclass(frozen=True)
class Covariate:
    """A covariate of all occurrences.

    Attributes:
        name: name, as in the settings.
        values: float64 [occurrences], NaN where it is unknown; of a categorical covariate, numbers of levels.
        levels: names of the levels; None for a numeric covariate.
    """

    name: str
    values: Doubles
    levels: list[str] | None

    @property
    def known(self) -> Bools:
        return ~np.isnan(self.values)

    def columns(self, rows: Ints) -> tuple[Doubles, list[TermColumn]]:
        """The columns of the term for some occurrences, float64 [rows, columns], and their descriptions.

        Levels are compared with the first level of the word's occurrences; time is standardised.
        """
        values = self.values[rows]
        if self.levels is not None:
            first, *others = np.unique(values).astype(int).tolist()
            dummies = (values[:, None] == np.array(others)).astype(np.float64)
            return dummies, [
                {"name": self.levels[other], "per": f"change from {self.levels[first]}"} for other in others
            ]
        if self.name != TIME:
            return values[:, None], [{"name": self.name, "per": "unit"}]
        days = values / _SECONDS_PER_DAY
        deviation = float(days.std())
        term = (days - days.mean()) / (deviation or 1.0)
        return term[:, None], [{"name": TIME, "per": f"standard deviation ({deviation:.4g} days)"}]


def covariate(name: str, column: pa.ChunkedArray) -> Covariate:
    """Make a covariate from its column; raises UserError if it has a type that cannot be a covariate."""
    if name in PERIODS:
        column = pc.strftime(column.cast(pa.timestamp("s")), format=PERIODS[name])
    kind = column.type
    if pa.types.is_string(kind):
        levels = sorted(set(column.unique().to_pylist()) - {None})
        column = pc.index_in(column, pa.array(levels, pa.string()))
        return Covariate(name, _doubles(column), levels)
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.timestamp("s")).cast(pa.int64())
    elif not (pa.types.is_boolean(kind) or pa.types.is_integer(kind)):
        raise UserError(
            f"covariates={name}: its column is of type {kind}; a covariate is a text, an integer or a truth value"
        )
    values = _doubles(column)
    if name == "position":
        # -1: the occurrence was not found in the tokens.
        values[values < 0] = np.nan
    return Covariate(name, values, None)


def _doubles(column: pa.ChunkedArray) -> Doubles:
    return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64).copy()


def has_common_levels(covariates: Sequence[Covariate], rows: Ints, unit: Ints, min_occurrences: int) -> Bools:
    """Select rows whose levels have enough occurrences, from at least two units; bool [rows].

    Leaving out the rows of one level may make another level rare, and so on. `rows` and `unit` are int64 [rows].
    """
    selected = np.ones(len(rows), np.bool_)
    categorical = [each for each in covariates if each.levels is not None]
    while True:
        before = int(selected.sum())
        for each in categorical:
            level = each.values[rows].astype(np.int64)
            counts = np.bincount(level[selected], minlength=len(each.levels or ()))
            pairs = np.unique(np.stack([unit[selected], level[selected]]), axis=1)
            units = np.bincount(pairs[1], minlength=len(counts))
            selected &= ((counts >= min_occurrences) & (units >= 2))[level]
        if int(selected.sum()) == before:
            return selected
