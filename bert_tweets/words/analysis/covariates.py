"""Covariates: from columns of the table of occurrences to the terms of a regression, a word at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bert_tweets.common.errors import UserError, did_you_mean
from bert_tweets.config import PERIODS
from bert_tweets.words.occurrences.groups import groups_among
from bert_tweets.words.statistics.energy_distance import Doubles
from bert_tweets.words.statistics.exchangeable_units import Ints

TIME = "time"
# What embed writes of an occurrence's own tweet: truth values, numbers and a name.
CONTEXT = ("links", "retweet", "tweet_length", "position", "casing", "pieces")
_DAY = 86_400


def covariate_column(name: str, names: Sequence[str], path: Path) -> str:
    """The column of the table that a covariate is read from.

    Raises:
        UserError: the table has none.
    """
    if name in PERIODS or name == TIME:
        return TIME
    if name in CONTEXT and name in names:
        return name
    column = name if name.startswith("group.") else f"group.{name}"
    if column not in names:
        there = [TIME, *PERIODS, *(one for one in CONTEXT if one in names)]
        there += groups_among(names)
        has = ", ".join(dict.fromkeys(there))
        raise UserError(f"covariates={name}: is no column of {path}{did_you_mean(name, there)}; it has {has}")
    return column


@dataclass(frozen=True)
class Covariate:
    """A covariate of all occurrences.

    Attributes:
        name: as it was asked for.
        values: float64 [occurrences], NaN where not known; of levels their numbers.
        levels: names of the levels; None of a number.
    """

    name: str
    values: Doubles
    levels: list[str] | None

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        return ~np.isnan(self.values)

    def columns(self, rows: Ints) -> tuple[Doubles, list[dict[str, Any]]]:
        """The term of some occurrences: float64 [rows, columns], and of each column its name and what one more is.

        The first level of a word's occurrences is what the others are compared with; time is standardised.
        """
        values = self.values[rows]
        if self.levels is not None:
            first, *others = np.unique(values).astype(int).tolist()
            dummies = (values[:, None] == np.array(others)).astype(np.float64)
            named = f"instead of {self.levels[first]}"
            return dummies, [{"name": self.levels[other], "per": named} for other in others]
        if self.name != TIME:
            return values[:, None], [{"name": self.name, "per": "one"}]
        days = values / _DAY
        deviation = float(days.std())
        term = (days - days.mean()) / (deviation or 1.0)
        return term[:, None], [{"name": TIME, "per": f"standard deviation ({deviation:.4g} days)"}]


def covariate(name: str, column: pa.ChunkedArray) -> Covariate:
    """A covariate from its column.

    Raises:
        UserError: the column is of a kind that is no covariate.
    """
    if name in PERIODS:
        column = pc.strftime(column.cast(pa.timestamp("s")), format=PERIODS[name])
    kind = column.type
    if pa.types.is_string(kind):
        levels = sorted(set(column.unique().to_pylist()) - {None})
        column = pc.index_in(column, pa.array(levels, pa.string()))
        return Covariate(name, _numbers(column), levels)
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.timestamp("s")).cast(pa.int64())
    elif not (pa.types.is_boolean(kind) or pa.types.is_integer(kind)):
        raise UserError(f"covariates={name}: its column holds {kind}; covariates are texts, numbers or truth values")
    values = _numbers(column)
    if name == "position":
        # Not found in the text.
        values[values < 0] = np.nan
    return Covariate(name, values, None)


def _numbers(column: pa.ChunkedArray) -> Doubles:
    return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64).copy()


def of_common_levels(covariates: Sequence[Covariate], rows: Ints, unit: Ints, fewest: int) -> npt.NDArray[np.bool_]:
    """Rows of whose levels there are enough: so many occurrences, of two units at least; bool [rows].

    Leaving out those of one level may make another rare.

    Args:
        rows: int64 [rows], of the table.
        unit: int64 [rows].
        fewest: occurrences.
    """
    stays = np.ones(len(rows), np.bool_)
    named = [one for one in covariates if one.levels is not None]
    while True:
        before = int(stays.sum())
        for one in named:
            level = one.values[rows].astype(np.int64)
            counts = np.bincount(level[stays], minlength=len(one.levels or ()))
            pairs = np.unique(np.stack([unit[stays], level[stays]]), axis=1)
            units = np.bincount(pairs[1], minlength=len(counts))
            stays &= ((counts >= fewest) & (units >= 2))[level]
        if int(stays.sum()) == before:
            return stays
