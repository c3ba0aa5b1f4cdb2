"""How well cosines of pairs predict judgements of meaning, with layer and threshold chosen on other pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bert_tweets.common.arrays import Doubles, Floats, Ints

MEASURES = ("macro_f1", "accuracy", "auc")
FEW_WORDS = 10
# Number of weights to use at once: bounds the memory.
_WEIGHTS_AT_ONCE = 2**21


def cosines(first: Floats, second: Floats) -> Doubles:
    """Cosines of pairs of vectors, float32 [pairs, width] each; NaN where a vector has a NaN."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    with np.errstate(invalid="ignore"):
        result: Doubles = (first * second).sum(axis=-1) / lengths
    return result


@dataclass(frozen=True)
class ChosenThreshold:
    """The layer and threshold chosen on the training pairs, which stay fixed.

    Attributes:
        layer: layer of the cosines.
        threshold: smallest cosine that is classified as the same meaning.
        macro_f1, auc: scores on the training pairs.
    """

    layer: str
    threshold: float
    macro_f1: float
    auc: float


def choose_threshold(scores: dict[str, Doubles], same: Ints) -> ChosenThreshold:
    """Choose the layer and threshold with the largest macro-F1; among equals, the first layer and lowest threshold.

    `scores` are cosines by layer, float64 [pairs] without NaN; `same` is int64 [pairs], 1 for the same meaning, else 0.
    """
    return max((_best(layer, values, same) for layer, values in scores.items()), key=lambda one: one.macro_f1)


def _best(layer: str, scores: Doubles, same: Ints) -> ChosenThreshold:
    values, group = np.unique(scores, return_inverse=True)
    positives = np.bincount(group, same, len(values))
    negatives = np.bincount(group, 1 - same, len(values))
    # Classified as the same: all pairs from a value upwards; beyond the last value, no pair.
    hits, alarms = (np.append(np.cumsum(counts[::-1])[::-1], 0) for counts in (positives, negatives))
    results = _macro_f1(hits, alarms, positives.sum(), negatives.sum())
    best = int(results.argmax())
    middles = (values[1:] + values[:-1]) / 2
    thresholds = np.concatenate([[-1.0], middles, [np.nextafter(values[-1], 2)]])
    auc = float(weighted_auc(scores, same, np.ones((1, len(same))))[0])
    return ChosenThreshold(layer, float(thresholds[best]), float(results[best]), auc)


def _macro_f1(hits: Doubles, alarms: Doubles, positives: Doubles, negatives: Doubles) -> Doubles:
    """The mean of the F1 of the same meaning and that of a different one; 0 where a class is never predicted."""
    misses, rejections = positives - hits, negatives - alarms
    with np.errstate(invalid="ignore"):
        of_same, of_other = 2 * hits / (2 * hits + misses + alarms), 2 * rejections / (2 * rejections + misses + alarms)
    return np.asarray((np.nan_to_num(of_same) + np.nan_to_num(of_other)) / 2)


def weighted_auc(scores: Doubles, same: Ints, weights: Doubles) -> Doubles:
    """The share of pairs of judgements that the scores order correctly, ties halved (Mann and Whitney 1947).

    `scores`: float64 [pairs]; `same`: int64 [pairs]; `weights`: float64 [times, pairs]. Returns float64 [times]; NaN
    where all judgements are the same.
    """
    order = np.argsort(scores, kind="stable")
    firsts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    positives, negatives = (
        np.add.reduceat(weights[:, order] * (same[order] == value), firsts, axis=1) for value in (1, 0)
    )
    below = np.cumsum(negatives, axis=1) - negatives / 2
    with np.errstate(invalid="ignore"):
        result: Doubles = (positives * below).sum(axis=1) / (positives.sum(axis=1) * negatives.sum(axis=1))
    return result


def pair_scores(scores: Doubles, same: Ints, threshold: float, weights: Doubles) -> Doubles:
    """Compute MEASURES of cosines, float64 [pairs], with weights, float64 [times, pairs]; float64 [measures, times]."""
    blocks = np.array_split(weights, -(-weights.size // _WEIGHTS_AT_ONCE))
    return np.concatenate([_scores(scores, same, threshold, block) for block in blocks], axis=1)


def _scores(scores: Doubles, same: Ints, threshold: float, weights: Doubles) -> Doubles:
    predicted = scores >= threshold
    hits, alarms = weights @ (predicted * same), weights @ (predicted * (1 - same))
    positives, negatives = weights @ same, weights @ (1 - same)
    right = hits + negatives - alarms
    with np.errstate(invalid="ignore"):
        accuracy = right / (positives + negatives)
    return np.stack([_macro_f1(hits, alarms, positives, negatives), accuracy, weighted_auc(scores, same, weights)])


def bootstrap_weights(words: Sequence[str], times: int, random: np.random.Generator) -> Doubles:
    """Draw bootstrap weights of the pairs: words are drawn with replacement, with all their pairs.

    Pairs of one word are dependent (Field and Welsh 2007, "Bootstrapping clustered data", JRSS B 69): TempoWiC's
    validation pairs have four words, and an interval over its pairs would be far too short.

    Returns:
        float64 [1 + times, pairs]; the first row counts each pair once. For a single word it is the only row: all
        resamples would be the same, and their interval no wider than a point.
    """
    number = np.unique(np.array(words), return_inverse=True)[1]
    count = int(number.max()) + 1
    times = times if count > 1 else 0
    draws = random.multinomial(count, np.full(count, 1 / count), times).astype(np.float64)
    return np.concatenate([np.ones((1, len(words))), draws[:, number]])


def percentile_intervals(values: Doubles) -> dict[str, list[float | None]]:
    """The value and the 95 % percentile bounds of each measure; resamples in which it is undefined (NaN) are left out.

    `values` is float64 [measures, 1 + times], first the value of the actual pairs.
    """
    return {name: [_number(one[0]), *_bounds(one[1:])] for name, one in zip(MEASURES, values, strict=True)}


def _bounds(values: Doubles) -> list[float | None]:
    defined: Doubles = values[~np.isnan(values)]
    return [_number(bound) for bound in np.percentile(defined, [2.5, 97.5])] if len(defined) else [None, None]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
