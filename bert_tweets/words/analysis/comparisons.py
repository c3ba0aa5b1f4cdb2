"""Change: comparisons of the groups of each word's occurrences, their tests, and their rank among control words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from bert_tweets.common.hashing import generator
from bert_tweets.config import PERIODS, AnalyzeConfig
from bert_tweets.words.statistics.energy_distance import (
    Distances,
    Floats,
    Spread,
    between_and_within,
    distances,
    spread,
)
from bert_tweets.words.statistics.permutation_test import PermutationTest, false_discovery_rates, permutation_test

from .occurrence_table import Chosen
from .verdicts import DIFFERS, FEWEST_CONTROLS, NO_EVIDENCE, TOO_FEW, Answers, statement

OMNIBUS = "omnibus"
MATCHED_ON_ALL = "frequency, pieces and part of speech"


@dataclass(frozen=True)
class Comparison:
    """Some groups of one word's occurrences, compared.

    Attributes:
        chosen: the word's occurrences.
        contrast: OMNIBUS, or how the pair was chosen.
        groups: numbers of the groups.
        estimate: energy distance; None where they are too few.
        spread: of the estimate.
        prototype: debiased squared distance of means, and its spread; twice that, averaged over pairs, for more groups.
        test: of the estimate.
    """

    chosen: Chosen
    contrast: str
    groups: tuple[int, ...]
    estimate: float | None = None
    spread: Spread | None = None
    prototype: tuple[float, Spread] | None = None
    test: PermutationTest | None = None


@dataclass(frozen=True)
class ControlResult:
    """A control word.

    Attributes:
        chosen: its occurrences.
        estimates: energy distance by groups, where it could be compared; in a regression the estimate of a term.
    """

    chosen: Chosen
    estimates: dict[tuple[int, ...], float] = field(default_factory=dict)


def group_pairs(contrasts: str, by: str, groups: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
    """How pairs are chosen, and the pairs, of groups in order. Of two groups the one test over all is their test."""
    kind = contrasts if contrasts != "auto" else ("adjacent" if by in PERIODS else "all")
    if len(groups) < 3:
        return kind, []
    if kind == "adjacent":
        return kind, list(pairwise(groups))
    if kind == "first":
        return kind, [(groups[0], group) for group in groups[1:]]
    return kind, list(combinations(groups, 2))


def compare(chosen: Chosen, vectors: Floats, config: AnalyzeConfig) -> list[Comparison]:
    """The one test over all groups of a word that can be compared, then the pairs.

    Args:
        chosen: the word's occurrences.
        vectors: float32 [occurrences, width], one model's.
        config: the settings.
    """
    comparable = chosen.comparable(config.min_clusters)
    present = np.flatnonzero(chosen.tweets).tolist()
    kind, pairs = group_pairs(config.contrasts, config.by, present)
    if len(comparable) < 2:
        # All that there are, told once.
        return [Comparison(chosen, OMNIBUS, tuple(present))]
    plain = distances(vectors, chosen.units.unit)
    squared = distances(vectors, chosen.units.unit, squared=True)
    asked = [(OMNIBUS, tuple(comparable)), *((kind, pair) for pair in pairs)]
    return [
        _compared(chosen, contrast, groups, plain, squared, config)
        if set(groups) <= set(comparable)
        else Comparison(chosen, contrast, groups)
        for contrast, groups in asked
    ]


def _compared(
    chosen: Chosen,
    contrast: str,
    groups: tuple[int, ...],
    plain: Distances,
    squared: Distances,
    config: AnalyzeConfig,
) -> Comparison:
    rows, units = chosen.units.among(groups)
    plain, squared = plain.of(rows), squared.of(rows)
    random = generator(config.seed, f"permutations of {chosen.word} {contrast} {groups}")
    of_squares = spread(squared, units)
    return Comparison(
        chosen,
        contrast,
        groups,
        float(between_and_within(plain, units)[0]),
        spread(plain, units),
        # Of squared distances the statistic is twice the squared distance of means.
        (float(between_and_within(squared, units)[0]) / 2, Spread(of_squares.pairs / 4, of_squares.linear / 4)),
        permutation_test(plain, units, config.permutations, random),
    )


def control(chosen: Chosen, vectors: Floats, asked: set[tuple[int, ...]], min_clusters: int) -> ControlResult:
    """The energy distances of a control word, between the groups that words are compared in."""
    comparable = set(chosen.comparable(min_clusters))
    possible = [groups for groups in asked if set(groups) <= comparable]
    result = ControlResult(chosen)
    if possible:
        plain = distances(vectors, chosen.units.unit)
        for groups in possible:
            rows, units = chosen.units.among(groups)
            result.estimates[groups] = float(between_and_within(plain.of(rows), units)[0])
    return result


def matching(chosen: Chosen, controls: Sequence[ControlResult]) -> list[ControlResult]:
    """The control words that are like a word, see `matched`."""
    return matched(chosen, controls)[0]


def matched(chosen: Chosen, controls: Sequence[ControlResult]) -> tuple[list[ControlResult], str]:
    """Controls of half to twice the word's frequency, and of as many pieces (three or more are one kind).

    Of its part of speech, too, where that is known and enough are; like is compared with like: places in all tweets
    where both folders tell them, and else clusters of what was embedded.

    Returns:
        The controls, and what they are matched on.
    """
    known = chosen.matches and all(one.chosen.matches for one in controls)
    mine = chosen.matches if known else chosen.frequency
    alike = []
    for one in controls:
        other = one.chosen.matches if known else one.chosen.frequency
        if mine <= 2 * other <= 4 * mine and min(one.chosen.pieces, 3) == min(chosen.pieces, 3):
            alike.append(one)
    same = [one for one in alike if one.chosen.part_of_speech == chosen.part_of_speech]
    if chosen.part_of_speech and len(same) >= FEWEST_CONTROLS:
        return same, MATCHED_ON_ALL
    return alike, "frequency and pieces" if chosen.pieces else "frequency"


def rows_of_controls(controls: Sequence[ControlResult], names: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of controls.json: what the words are ranked among.

    Args:
        controls: the control words.
        names: of the groups.
    """
    return [
        {
            "word": one.chosen.word,
            "groups": [names[group] for group in groups],
            "estimate": estimate,
            "clusters": int(np.isin(one.chosen.units.label, groups).sum()),
            "pieces": one.chosen.pieces,
            "frequency": one.chosen.frequency,
        }
        for one in controls
        for groups, estimate in one.estimates.items()
    ]


def conclude(
    comparisons: Sequence[Comparison], controls: Sequence[ControlResult], names: Sequence[str], config: AnalyzeConfig
) -> list[dict[str, Any]]:
    """Rows of change.json: what each comparison found, beside all others and the control words.

    Args:
        comparisons: of all words.
        controls: the control words.
        names: of the groups.
        config: the settings.
    """
    tests = [one.test for one in comparisons if one.test]
    p_values = np.array([test.p_value for test in tests])
    q_values = iter(false_discovery_rates(p_values).tolist())
    found = int((false_discovery_rates(p_values) <= config.fdr).sum())
    # Where one more finding would have to lie.
    level = config.fdr * min(found + 1, len(tests)) / max(len(tests), 1)
    ranks = [_rank(one, controls) for one in comparisons]
    outstanding = _outstanding(comparisons, ranks, config.fdr)
    rows = []
    for one, (rank, count, matched_on), stands_out in zip(comparisons, ranks, outstanding, strict=True):
        q_value = next(q_values) if one.test else None
        usage = NO_EVIDENCE
        if one.test is None or one.test.smallest > config.fdr:
            usage = TOO_FEW
        elif q_value is not None and q_value <= config.fdr:
            usage = DIFFERS
        rows += _rows(one, names, q_value, level, Answers(usage, count, stands_out), rank, matched_on)
    return rows


def _rank(one: Comparison, controls: Sequence[ControlResult]) -> tuple[int | None, int, str]:
    """The rank of a comparison, 1 for the largest, among how many matching controls, and what these are matched on."""
    if one.estimate is None:
        return None, 0, matched(one.chosen, [])[1]
    comparable = [each for each in controls if one.groups in each.estimates]
    alike, matched_on = matched(one.chosen, comparable)
    others = [each.estimates[one.groups] for each in alike]
    return (1 + sum(other >= one.estimate for other in others) if others else None), len(others), matched_on


def _outstanding(
    comparisons: Sequence[Comparison], ranks: Sequence[tuple[int | None, int, str]], level: float
) -> list[bool]:
    """Which stand out of their controls: of the words' tests over all groups at a false-discovery rate of the level,
    of a word's pairs those among the first by the level, where the word itself stands out."""
    shares = [rank / (count + 1) if rank and count >= FEWEST_CONTROLS else 1.0 for rank, count, _ in ranks]
    whole = [index for index, one in enumerate(comparisons) if one.contrast == OMNIBUS]
    q_values = false_discovery_rates(np.array([shares[index] for index in whole]))
    words = {comparisons[index].chosen.word for index, q in zip(whole, q_values.tolist(), strict=True) if q <= level}
    return [one.chosen.word in words and share <= level for one, share in zip(comparisons, shares, strict=True)]


def _rows(
    one: Comparison,
    names: Sequence[str],
    q_value: float | None,
    level: float,
    answers: Answers,
    rank: int | None,
    matched_on: str,
) -> list[dict[str, Any]]:
    """The tested row of the energy distance, then the one of the distance of means, which is not tested again."""
    chosen, pair = one.chosen, one.groups if len(one.groups) == 2 else (None, None)
    here = np.isin(chosen.units.label, one.groups)
    authors = np.unique(chosen.authors[here])
    sizes = [None if group is None else int(chosen.tweets[group]) for group in pair]
    row: dict[str, Any] = {
        "word": chosen.word,
        "contrast": one.contrast,
        "group_a": None if pair[0] is None else names[pair[0]],
        "group_b": None if pair[1] is None else names[pair[1]],
        "measure": "energy",
        **_figures(one.estimate, one.spread),
        "p_value": one.test.p_value if one.test else None,
        "q_value": q_value,
        "smallest_p": one.test.smallest if one.test else None,
        "smallest_effect": one.test.smallest_effect(level) if one.test else None,
        "rank_among_controls": rank,
        "controls": answers.controls,
        "matched_on": matched_on,
        "usage": answers.usage,
        "verdict": answers.verdict,
        "groups": [names[group] for group in one.groups],
        "n": int(chosen.tweets[list(one.groups)].sum()),
        "n_a": sizes[0],
        "n_b": sizes[1],
        "clusters": int(here.sum()),
        "authors": int((authors >= 0).sum()) if (authors >= 0).any() else None,
        "spanning_clusters": chosen.spanning,
        "unit": chosen.exchanged,
    }
    row["statement"] = statement(answers, row)
    if one.prototype is None:
        return [row]
    untested = ("p_value", "q_value", "smallest_p", "smallest_effect", "rank_among_controls", "statement")
    means = dict(row, measure="prototype", **_figures(*one.prototype), **dict.fromkeys(untested))
    return [row, means]


def _figures(estimate: float | None, around: Spread | None) -> dict[str, float | None]:
    if estimate is None or around is None:
        return {"estimate": None, "low": None, "high": None}
    low, high = around.interval(estimate)
    return {"estimate": estimate, "low": low, "high": high}
