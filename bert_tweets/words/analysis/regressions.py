"""Regressions of the vectors of each word on the covariates, as rows of regression.json."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bert_tweets.common.arrays import Doubles, Floats, Ints, dense_numbers
from bert_tweets.common.hashing import generator
from bert_tweets.common.terminal import ProgressBar
from bert_tweets.config import AnalyzeConfig
from bert_tweets.words.statistics.exchangeable_units import Units, equalize_unit_sizes
from bert_tweets.words.statistics.multivariate_regression import Design, PartialEffect, Regression
from bert_tweets.words.statistics.permutation_test import min_attainable_p, q_values

from .comparisons import ControlResult, rank_among_controls
from .covariates import has_common_levels
from .occurrence_table import OccurrenceTable, WordSample, with_vectors, word_samples
from .records import Coefficient, LeftOut, Reason, RegressionRow, TermColumn
from .verdicts import regression_statement

# Number of units to cut to one size, so that they can be exchanged with each other.
_UNITS_PER_SIZE = 20


@dataclass(frozen=True)
class WordRegression:
    """The regression of one word.

    Attributes:
        sample: occurrences of the word in the regression.
        columns: descriptions of the columns of each term.
        left_out: near-duplicate clusters that are left out.
        regression: None if there are too few occurrences.
    """

    sample: WordSample
    columns: list[list[TermColumn]]
    left_out: LeftOut
    regression: Regression | None


@dataclass(frozen=True)
class _TermResult:
    """The effect of one term of a word and its test, or why there is none."""

    reason: Reason | None = None
    effect: PartialEffect | None = None
    p_value: float | None = None
    min_attainable_p: float | None = None


def regress_words(table: OccurrenceTable, controls: OccurrenceTable, config: AnalyzeConfig) -> list[RegressionRow]:
    """The rows of regression.json: regress each word's vectors on the covariates; `controls` may be the same table."""
    results: list[tuple[WordSample, RegressionRow]] = []
    with ProgressBar("regressions") as advance:
        for sample, vectors in with_vectors(table, word_samples(table, _complete(table), 1, config)):
            results += _rows(table, _regress(table, sample, vectors, config), config)
            advance(1)
    words = {sample.word.casefold() for sample, _ in results}
    ranked: list[ControlResult] = []
    with ProgressBar("regressions of control words") as advance:
        samples = word_samples(controls, _complete(controls), 1, config, controls=controls is table)
        for sample, vectors in with_vectors(controls, samples):
            if sample.word.casefold() not in words:
                ranked.append(_control_result(_regress(controls, sample, vectors, config).regression, sample))
            advance(1)
    _add_joint_results(results, ranked, config)
    return [row for _, row in results]


def _complete(table: OccurrenceTable) -> Ints:
    """int64 [occurrences], 0 where all covariates are known, else -1."""
    known = np.logical_and.reduce([each.known for each in table.covariates])
    return np.where(known, np.int64(0), np.int64(-1))


def _control_result(regression: Regression | None, sample: WordSample) -> ControlResult:
    effects = regression.effects() if regression else []
    estimates: dict[tuple[int, ...], float] = {
        (term,): effect.estimate for term, effect in enumerate(effects) if effect.estimate is not None
    }
    return ControlResult(sample, estimates)


def _regress(table: OccurrenceTable, sample: WordSample, vectors: Floats, config: AnalyzeConfig) -> WordRegression:
    clusters = len(np.unique(table.numbers("cluster")[table.rows_of(sample.word)]))
    unit = sample.units.unit
    common = np.flatnonzero(has_common_levels(table.covariates, sample.rows, unit, config.min_clusters))
    random = generator(config.seed, "levels", sample.word)
    kept = common[equalize_unit_sizes(dense_numbers(unit[common]), _UNITS_PER_SIZE, random)]
    left_out: LeftOut = {
        "unknown": clusters - sample.frequency,
        "rare_level": len(unit) - len(common),
        "author_surplus": len(common) - len(kept),
    }
    units = Units(dense_numbers(unit[kept]), np.zeros(len(kept), np.int64))
    sample = replace(sample, rows=sample.rows[kept], units=units, authors=sample.authors[kept])
    if not len(kept):
        return WordRegression(sample, [], left_out, None)
    terms: list[Doubles] = []
    columns: list[list[TermColumn]] = []
    for each in table.covariates:
        term, described = each.columns(sample.rows)
        terms.append(term)
        columns.append(described)
    design = Design(terms)
    enough = len(kept) - design.basis.shape[1] - 1 >= config.min_clusters
    regression = Regression(vectors[kept], design, units.unit) if enough and design.basis.shape[1] else None
    return WordRegression(sample, columns, left_out, regression)


def _rows(
    table: OccurrenceTable, fitted: WordRegression, config: AnalyzeConfig
) -> Iterator[tuple[WordSample, RegressionRow]]:
    """A row for each term, without what depends on other words."""
    sample = fitted.sample
    clusters, rows = table.numbers("cluster"), table.rows_of(sample.word)
    with_copies = rows[np.isin(clusters[rows], clusters[sample.rows])]
    authors = len(np.unique(sample.authors[sample.authors >= 0])) or None
    tweets = len(np.unique(table.numbers("tweet_id")[with_copies]))
    names = [covariate.name for covariate in table.covariates]
    results = [_TermResult(Reason.TOO_FEW)] * len(names)
    if fitted.regression is not None:
        results = _term_results(fitted.regression, sample.word, config)
    for number, (name, result) in enumerate(zip(names, results, strict=True)):
        effect = result.effect
        norms = effect.squared_norms if effect else None
        row: RegressionRow = {
            "word": sample.word,
            "term": name,
            "adjusted_for": [other for other in names if other != name],
            "statistic": "partial R²",
            "estimate": effect.estimate if effect else None,
            "raw": effect.raw if effect else None,
            "coefficients": None if norms is None else _coefficients(fitted.columns[number], norms),
            "p_value": result.p_value,
            "q_value": None,
            "min_attainable_p": result.min_attainable_p,
            "permutations": config.permutations,
            "reason": result.reason,
            "rank_among_controls": None,
            "controls": 0,
            "n": tweets,
            "clusters": len(sample.rows),
            "authors": authors,
            "exchange_unit": sample.exchange_unit,
            "left_out": fitted.left_out,
            "statement": "",
        }
        yield sample, row


def _coefficients(columns: Sequence[TermColumn], squared_norms: Sequence[float]) -> list[Coefficient]:
    return [{**column, "squared_norm": norm} for column, norm in zip(columns, squared_norms, strict=True)]


def _term_results(regression: Regression, word: str, config: AnalyzeConfig) -> list[_TermResult]:
    design = regression.design
    attainable = min_attainable_p(regression.exchange(), config.permutations)
    p_values = regression.p_values(config.permutations, generator(config.seed, "regression", word)).tolist()
    results = []
    for number, (effect, p_value) in enumerate(zip(regression.effects(), p_values, strict=True)):
        if not design.partial_terms[number].basis.shape[1]:
            results.append(_TermResult(Reason.CONSTANT if design.is_constant(number) else Reason.COLLINEAR))
        elif attainable > config.fdr:
            results.append(_TermResult(Reason.TOO_FEW_UNITS, effect, None, attainable))
        else:
            reason = Reason.SINGLE_UNIT if effect.estimate is None else None
            results.append(_TermResult(reason, effect, p_value, attainable))
    return results


def _add_joint_results(
    results: Sequence[tuple[WordSample, RegressionRow]], controls: Sequence[ControlResult], config: AnalyzeConfig
) -> None:
    """Add to the rows what depends on all words: q-values, ranks among control words and statements."""
    tested = [(row, row["p_value"]) for _, row in results if row["p_value"] is not None]
    adjusted = q_values(np.array([p_value for _, p_value in tested])).tolist()
    for (row, _), q_value in zip(tested, adjusted, strict=True):
        row["q_value"] = q_value
    for sample, row in results:
        term = (config.covariates.index(row["term"]),)
        rank = rank_among_controls(sample, row["estimate"], term, controls)
        row["rank_among_controls"], row["controls"] = rank.rank, rank.controls
        row["statement"] = regression_statement(row, config.fdr)
