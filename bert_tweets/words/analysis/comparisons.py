"""Comparisons of the groups of each word's occurrences: their tests, and their ranks among control words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise

import numpy as np

from bert_tweets.common.arrays import Floats
from bert_tweets.common.hashing import generator
from bert_tweets.config import PERIODS, AnalyzeConfig
from bert_tweets.words.statistics.energy_distance import (
    DistanceMatrix,
    JackknifeVariance,
    energy_statistic,
    jackknife_variance,
    pairwise_distances,
)
from bert_tweets.words.statistics.permutation_test import PermutationTest, permutation_test, q_values

from .occurrence_table import WordSample
from .records import ChangeRow, Contrast, ControlRow, MatchedOn, Measure
from .verdicts import MIN_CONTROLS, Answers, change_statement

Groups = tuple[int, ...]


@dataclass(frozen=True)
class Estimate:
    """An estimate and its variance."""

    value: float
    variance: JackknifeVariance


@dataclass(frozen=True)
class Comparison:
    """A comparison of some groups of one word's occurrences; None where there are too few of them.

    Attributes:
        contrast: OMNIBUS, or how the pair was chosen.
        energy: energy distance.
        prototype: debiased squared distance of means; for more than two groups, its weighted mean over pairs.
        test: test of the energy distance.
    """

    sample: WordSample
    contrast: Contrast
    groups: Groups
    energy: Estimate | None = None
    prototype: Estimate | None = None
    test: PermutationTest | None = None


@dataclass(frozen=True)
class ControlResult:
    """Estimates of a control word: energy distances by comparable groups; in a regression, partial R² by (term,)."""

    sample: WordSample
    estimates: dict[Groups, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Rank:
    """The rank of an estimate among those of matched control words.

    Attributes:
        rank: 1 for the largest; None without an estimate or control words.
        controls: number of matched control words with an estimate.
        matched_on: properties in which they match the word.
    """

    rank: int | None
    controls: int
    matched_on: list[MatchedOn]

    @property
    def share(self) -> float:
        """The rank as a share of all ranked words; 1 with too few control words."""
        return self.rank / (self.controls + 1) if self.rank and self.controls >= MIN_CONTROLS else 1.0


def group_pairs(contrasts: str, by: str, groups: Sequence[int]) -> tuple[Contrast, list[tuple[int, int]]]:
    """The contrast and the pairs of groups, in order; no pairs of two groups, which the omnibus test covers."""
    contrast = Contrast(contrasts) if contrasts != "auto" else Contrast.ADJACENT if by in PERIODS else Contrast.ALL
    if len(groups) < 3:
        return contrast, []
    if contrast == Contrast.ADJACENT:
        return contrast, list(pairwise(groups))
    if contrast == Contrast.FIRST:
        return contrast, [(groups[0], group) for group in groups[1:]]
    return contrast, list(combinations(groups, 2))


def compare_groups(sample: WordSample, vectors: Floats, config: AnalyzeConfig) -> list[Comparison]:
    """Compare all groups of a word with enough occurrences, then pairs; `vectors` is float32 [occurrences, width]."""
    comparable = sample.comparable_groups(config.min_clusters)
    present = np.flatnonzero(sample.tweets).tolist()
    contrast, pairs = group_pairs(config.contrasts, config.by, present)
    if len(comparable) < 2:
        return [Comparison(sample, Contrast.OMNIBUS, tuple(present))]
    plain = pairwise_distances(vectors, sample.units.unit)
    squared = pairwise_distances(vectors, sample.units.unit, squared=True)
    requested = [(Contrast.OMNIBUS, tuple(comparable)), *((contrast, pair) for pair in pairs)]
    return [
        _compare(sample, each, groups, plain, squared, config)
        if set(groups) <= set(comparable)
        else Comparison(sample, each, groups)
        for each, groups in requested
    ]


def _compare(
    sample: WordSample,
    contrast: Contrast,
    groups: Groups,
    plain: DistanceMatrix,
    squared: DistanceMatrix,
    config: AnalyzeConfig,
) -> Comparison:
    rows, units = sample.units.subset(groups)
    plain, squared = plain.subset(rows), squared.subset(rows)
    random = generator(config.seed, "permutation", sample.word, contrast, *groups)
    # The statistic of squared distances is twice the squared distance of means.
    variance = jackknife_variance(squared, units)
    halved = JackknifeVariance(variance.pairs / 4, variance.linear / 4)
    return Comparison(
        sample,
        contrast,
        groups,
        Estimate(float(energy_statistic(plain, units)[0]), jackknife_variance(plain, units)),
        Estimate(float(energy_statistic(squared, units)[0]) / 2, halved),
        permutation_test(plain, units, config.permutations, random),
    )


def compare_control(sample: WordSample, vectors: Floats, requested: set[Groups], min_clusters: int) -> ControlResult:
    """Compute the energy distances of a control word between the groups in which words are compared."""
    comparable = set(sample.comparable_groups(min_clusters))
    possible = [groups for groups in requested if set(groups) <= comparable]
    result = ControlResult(sample)
    if possible:
        distances = pairwise_distances(vectors, sample.units.unit)
        for groups in possible:
            rows, units = sample.units.subset(groups)
            result.estimates[groups] = float(energy_statistic(distances.subset(rows), units)[0])
    return result


def rank_among_controls(
    sample: WordSample, estimate: float | None, key: Groups, controls: Sequence[ControlResult]
) -> Rank:
    """Rank an estimate among those of matched control words; the key is that of `ControlResult.estimates`."""
    comparable = [control for control in controls if key in control.estimates] if estimate is not None else []
    matched, matched_on = match_controls(sample, comparable)
    if estimate is None or not matched:
        return Rank(None, 0, matched_on)
    return Rank(1 + sum(control.estimates[key] >= estimate for control in matched), len(matched), matched_on)


def match_controls(
    sample: WordSample, controls: Sequence[ControlResult]
) -> tuple[list[ControlResult], list[MatchedOn]]:
    """Select control words with half to twice the word's frequency and as many subwords (three or more are equal).

    If there are enough of them with the word's part of speech, only these are selected. Frequencies are numbers of
    places in all tweets if those of all words are known, else numbers of embedded clusters. Also returns the
    properties in which they match the word.
    """
    known = sample.matches and all(control.sample.matches for control in controls)
    own = sample.matches if known else sample.frequency
    matched = []
    for control in controls:
        other = control.sample.matches if known else control.sample.frequency
        if own <= 2 * other <= 4 * own and min(control.sample.subwords, 3) == min(sample.subwords, 3):
            matched.append(control)
    same = [control for control in matched if control.sample.part_of_speech == sample.part_of_speech]
    if sample.part_of_speech and len(same) >= MIN_CONTROLS:
        return same, list(MatchedOn)
    return matched, [MatchedOn.FREQUENCY, MatchedOn.SUBWORDS] if sample.subwords else [MatchedOn.FREQUENCY]


def control_rows(controls: Sequence[ControlResult], names: Sequence[str]) -> list[ControlRow]:
    """The rows of controls.json."""
    return [
        {
            "word": control.sample.word,
            "groups": [names[group] for group in groups],
            "estimate": estimate,
            "clusters": int(np.isin(control.sample.units.label, groups).sum()),
            "subwords": control.sample.subwords,
            "frequency": control.sample.frequency,
        }
        for control in controls
        for groups, estimate in control.estimates.items()
    ]


def change_rows(
    comparisons: Sequence[Comparison], controls: Sequence[ControlResult], names: Sequence[str], config: AnalyzeConfig
) -> list[ChangeRow]:
    """The rows of change.json: each comparison with its verdict, given all others and the control words."""
    tests = [comparison.test for comparison in comparisons if comparison.test]
    found = q_values(np.array([test.p_value for test in tests]))
    # The level at which one more test would be a finding.
    level = config.fdr * min(int((found <= config.fdr).sum()) + 1, len(tests)) / max(len(tests), 1)
    remaining = iter(found.tolist())
    ranks = [
        rank_among_controls(each.sample, each.energy.value if each.energy else None, each.groups, controls)
        for each in comparisons
    ]
    rows: list[ChangeRow] = []
    for comparison, rank, stands_out in zip(
        comparisons, ranks, _stand_out(comparisons, ranks, config.fdr), strict=True
    ):
        q_value = next(remaining) if comparison.test else None
        possible = comparison.test is not None and comparison.test.min_attainable_p <= config.fdr
        difference = q_value is not None and q_value <= config.fdr if possible else None
        rows += _rows(comparison, names, q_value, level, Answers(difference, rank.controls, stands_out), rank)
    return rows


def _stand_out(comparisons: Sequence[Comparison], ranks: Sequence[Rank], level: float) -> list[bool]:
    """Whether each comparison stands out among the control words.

    Omnibus comparisons do if their rank is significant at the false discovery rate `level` over all words; pairs, if
    their rank is among the first by the level and their word stands out.
    """
    omnibus = [index for index, each in enumerate(comparisons) if each.contrast == Contrast.OMNIBUS]
    adjusted = q_values(np.array([ranks[index].share for index in omnibus])).tolist()
    words = {comparisons[index].sample.word for index, q in zip(omnibus, adjusted, strict=True) if q <= level}
    return [each.sample.word in words and rank.share <= level for each, rank in zip(comparisons, ranks, strict=True)]


def _rows(
    comparison: Comparison, names: Sequence[str], q_value: float | None, level: float, answers: Answers, rank: Rank
) -> Iterator[ChangeRow]:
    """The row of the energy distance, which is tested, and that of the distance of means, which is not."""
    sample = comparison.sample
    pair = comparison.groups if len(comparison.groups) == 2 else (None, None)
    group_a, group_b = (None if group is None else names[group] for group in pair)
    n_a, n_b = (None if group is None else int(sample.tweets[group]) for group in pair)
    selected = np.isin(sample.units.label, comparison.groups)
    authors = np.unique(sample.authors[selected])
    for measure, estimate in ((Measure.ENERGY, comparison.energy), (Measure.PROTOTYPE, comparison.prototype)):
        is_tested = measure == Measure.ENERGY
        if estimate is None and not is_tested:
            continue
        test = comparison.test if is_tested else None
        low, high = estimate.variance.interval(estimate.value) if estimate else (None, None)
        row: ChangeRow = {
            "word": sample.word,
            "contrast": comparison.contrast,
            "group_a": group_a,
            "group_b": group_b,
            "groups": [names[group] for group in comparison.groups],
            "measure": measure,
            "estimate": estimate.value if estimate else None,
            "low": low,
            "high": high,
            "p_value": test.p_value if test else None,
            "q_value": q_value if test else None,
            "min_attainable_p": test.min_attainable_p if test else None,
            "detectable_effect": test.detectable_effect(level) if test else None,
            "rank_among_controls": rank.rank if is_tested else None,
            "controls": rank.controls,
            "matched_on": rank.matched_on,
            "difference": answers.difference,
            "beyond_ordinary": answers.beyond_ordinary,
            "verdict": answers.verdict,
            "n": int(sample.tweets[list(comparison.groups)].sum()),
            "n_a": n_a,
            "n_b": n_b,
            "clusters": int(selected.sum()),
            "authors": int((authors >= 0).sum()) or None,
            "cross_group_duplicates": sample.cross_group_duplicates,
            "exchange_unit": sample.exchange_unit,
            "statement": None,
        }
        if is_tested:
            row["statement"] = change_statement(row)
        yield row
