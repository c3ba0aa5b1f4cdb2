"""Effects: the vectors of each word regressed on the covariates, as rows of regression.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bert_tweets.common.hashing import generator
from bert_tweets.common.terminal import ProgressBar
from bert_tweets.config import AnalyzeConfig
from bert_tweets.words.statistics.energy_distance import Floats
from bert_tweets.words.statistics.exchangeable_units import Ints, Units, levelled
from bert_tweets.words.statistics.multivariate_regression import Design, Effect, Regression
from bert_tweets.words.statistics.permutation_test import false_discovery_rates

from .comparisons import ControlResult, matching
from .covariates import of_common_levels
from .occurrence_table import Chosen, Table, choose_samples, with_vectors
from .verdicts import association

# Blocks of one size to exchange among each other, where there are so many.
_TOGETHER = 20


@dataclass(frozen=True)
class Regressed:
    """One word's regression.

    Attributes:
        chosen: its occurrences that entered.
        terms: their columns and what these are called.
        left_out: clusters, by why.
        regression: None where there are too few.
    """

    chosen: Chosen
    terms: list[tuple[Any, list[dict[str, Any]]]]
    left_out: dict[str, int]
    regression: Regression | None


def regress(table: Table, others: Table, config: AnalyzeConfig) -> list[dict[str, Any]]:
    """Regresses each word's vectors on the covariates; rows of regression.json.

    Args:
        table: the occurrences, with their covariates.
        others: those of the control words.
        config: the settings.
    """
    rows: list[tuple[Chosen, dict[str, Any]]] = []
    with ProgressBar("regressions") as advance:
        for chosen, vectors in with_vectors(table, choose_samples(table, _complete(table), 1, config)):
            rows += _rows(table, _regressed(table, chosen, vectors, config), config)
            advance(1)
    words = {chosen.word.casefold() for chosen, _ in rows}
    controls: list[ControlResult] = []
    with ProgressBar("regressions of controls") as advance:
        chosen_controls = choose_samples(others, _complete(others), 1, config, asked=others is not table)
        for chosen, vectors in with_vectors(others, chosen_controls):
            if chosen.word.casefold() not in words:
                regression = _regressed(others, chosen, vectors, config).regression
                estimates = [effect.estimate for effect in regression.effects()] if regression else []
                known: dict[tuple[int, ...], float] = {
                    (term,): estimate for term, estimate in enumerate(estimates) if estimate is not None
                }
                controls.append(ControlResult(chosen, known))
            advance(1)
    _conclude(rows, controls, config)
    return [row for _, row in rows]


def _complete(table: Table) -> Ints:
    """int64 [occurrences], 0 where all covariates are known, else -1."""
    known = np.logical_and.reduce([one.known for one in table.covariates])
    return np.where(known, np.int64(0), np.int64(-1))


def _regressed(table: Table, chosen: Chosen, vectors: Floats, config: AnalyzeConfig) -> Regressed:
    here = np.flatnonzero(table.words == table.names.index(chosen.word))
    every = len(np.unique(table.numbers("cluster")[here]))
    unknown = every - chosen.frequency
    unit = chosen.units.unit
    common = np.flatnonzero(of_common_levels(table.covariates, chosen.rows, unit, config.min_clusters))
    random = generator(config.seed, f"levels of {chosen.word}")
    kept = common[levelled(np.unique(unit[common], return_inverse=True)[1], _TOGETHER, random)]
    left_out = {
        "unknown": unknown,
        "rare level": len(unit) - len(common),
        "more than others of the same author": len(common) - len(kept),
    }
    rows, authors = chosen.rows[kept], chosen.authors[kept]
    units = Units(np.unique(unit[kept], return_inverse=True)[1], np.zeros(len(kept), np.int64))
    chosen = replace(chosen, rows=rows, units=units, authors=authors, by_author=bool((authors >= 0).all()))
    terms = [one.columns(rows) for one in table.covariates] if len(rows) else []
    if not terms:
        return Regressed(chosen, [], left_out, None)
    design = Design([columns for columns, _ in terms])
    enough = len(rows) - design.basis.shape[1] - 1 >= config.min_clusters
    regression = Regression(vectors[kept], design, units.unit) if enough and design.basis.shape[1] else None
    return Regressed(chosen, terms, left_out, regression)


def _rows(table: Table, one: Regressed, config: AnalyzeConfig) -> list[tuple[Chosen, dict[str, Any]]]:
    """A row a term, without what depends on other words."""
    chosen, regression = one.chosen, one.regression
    clusters = table.numbers("cluster")
    same_word = np.flatnonzero(table.words == table.names.index(chosen.word))
    same = same_word[np.isin(clusters[same_word], clusters[chosen.rows])]
    known = chosen.authors[chosen.authors >= 0]
    names = [covariate.name for covariate in table.covariates]
    common: dict[str, Any] = {
        "permutations": config.permutations,
        "n": len(np.unique(table.numbers("tweet_id")[same])),
        "clusters": len(chosen.rows),
        "authors": len(np.unique(known)) if len(known) else None,
        "unit": chosen.exchanged,
        "left_out": one.left_out,
    }
    found = [_Found(reason="too few")] * len(names) if regression is None else _found(regression, one, config)
    return [
        (
            chosen,
            {
                "word": chosen.word,
                "term": name,
                "statistic": "partial R²",
                **each.columns(one.terms[number][1] if one.terms else []),
                **common,
                "beside": [other for other in names if other != name],
            },
        )
        for number, (name, each) in enumerate(zip(names, found, strict=True))
    ]


@dataclass(frozen=True)
class _Found:
    """What one term of one word comes to, or why not."""

    reason: str | None = None
    effect: Effect | None = None
    p_value: float | None = None
    smallest_p: float | None = None

    def columns(self, named: list[dict[str, Any]]) -> dict[str, Any]:
        norms = self.effect.norms if self.effect else None
        return {
            "estimate": self.effect.estimate if self.effect else None,
            "raw": self.effect.raw if self.effect else None,
            "coefficients": None
            if norms is None
            else [{**column, "squared_norm": norm} for column, norm in zip(named, norms, strict=True)],
            "p_value": self.p_value,
            "smallest_p": self.smallest_p,
            "reason": self.reason,
        }


def _found(regression: Regression, one: Regressed, config: AnalyzeConfig) -> list[_Found]:
    design = regression.design
    arrangements = regression.exchange().arrangements()
    smallest = max(1 / (config.permutations + 1), 1 / arrangements)
    random = generator(config.seed, f"regression of {one.chosen.word}")
    p_values = regression.p_values(config.permutations, random).tolist()
    found = []
    for number, (effect, p_value) in enumerate(zip(regression.effects(), p_values, strict=True)):
        if not design.parts[number].own.shape[1]:
            constant = design.constant(number)
            found.append(_Found("the same everywhere" if constant else "follows from the other covariates"))
        elif smallest > config.fdr:
            found.append(_Found("too few units to be exchanged", effect, None, smallest))
        else:
            reason = "hangs on a single unit: no debiased estimate" if effect.estimate is None else None
            found.append(_Found(reason, effect, p_value, smallest))
    return found


def _conclude(
    rows: Sequence[tuple[Chosen, dict[str, Any]]],
    controls: Sequence[ControlResult],
    config: AnalyzeConfig,
) -> None:
    """Adds to the rows what depends on all of them, and the place among control words."""
    tested = [row for _, row in rows if row["p_value"] is not None]
    q_values = false_discovery_rates(np.array([row["p_value"] for row in tested], dtype=np.float64)).tolist()
    for row, q_value in zip(tested, q_values, strict=True):
        row["q_value"] = q_value
    for chosen, row in rows:
        row.setdefault("q_value", None)
        term = (config.covariates.index(row["term"]),)
        comparable = [one for one in controls if term in one.estimates and row["estimate"] is not None]
        others = [one.estimates[term] for one in matching(chosen, comparable)]
        row["rank_among_controls"] = 1 + sum(other >= row["estimate"] for other in others) if others else None
        row["controls"] = len(others)
        row["statement"] = association(row, config.fdr)
