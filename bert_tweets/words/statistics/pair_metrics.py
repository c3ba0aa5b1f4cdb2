"""Does a model tell meanings apart? Cosines of pairs against judgements, with what is chosen on other pairs frozen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .energy_distance import Doubles, Floats
from .exchangeable_units import Ints

MEASURES = ("macro_f1", "accuracy", "auc")
FEW_WORDS = 10
# Weights that are looked at together: bounds the memory.
_AT_ONCE = 2**21


def cosines(first: Floats, second: Floats) -> Doubles:
    """Of vectors of one model and layer, float32 [pairs, width] each; NaN where one of them is."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    with np.errstate(invalid="ignore"):
        result: Doubles = (first * second).sum(axis=-1) / lengths
    return result


@dataclass(frozen=True)
class Frozen:
    """What was chosen on the training pairs, and is not touched again.

    Attributes:
        layer: whose cosines.
        threshold: pairs of so large a cosine are said to be of the same meaning.
        macro_f1, auc: there.
    """

    layer: str
    threshold: float
    macro_f1: float
    auc: float


def choose_threshold(scores: dict[str, Doubles], same: Ints) -> Frozen:
    """The layer and threshold of the largest macro-F1; of equals the first layer, and the lowest threshold.

    Args:
        scores: cosines by layer, float64 [pairs] each, none NaN.
        same: int64 [pairs].
    """
    return max((_best(layer, values, same) for layer, values in scores.items()), key=lambda one: one.macro_f1)


def _best(layer: str, scores: Doubles, same: Ints) -> Frozen:
    values, group = np.unique(scores, return_inverse=True)
    positives = np.bincount(group, same, len(values))
    negatives = np.bincount(group, 1 - same, len(values))
    # Said to be the same: all from a value on; and none, beyond the last.
    hits, alarms = (np.append(np.cumsum(counts[::-1])[::-1], 0) for counts in (positives, negatives))
    results = _macro_f1(hits, alarms, positives.sum(), negatives.sum())
    best = int(results.argmax())
    middles = (values[1:] + values[:-1]) / 2
    thresholds = np.concatenate([[-1.0], middles, [np.nextafter(values[-1], 2)]])
    auc = float(auc_of(scores, same, np.ones((1, len(same))))[0])
    return Frozen(layer, float(thresholds[best]), float(results[best]), auc)


def _macro_f1(hits: Doubles, alarms: Doubles, positives: Doubles, negatives: Doubles) -> Doubles:
    """The mean of F1 of the same meaning and of F1 of another; 0 where one is never said."""
    misses, rejections = positives - hits, negatives - alarms
    with np.errstate(invalid="ignore"):
        of_same, of_other = 2 * hits / (2 * hits + misses + alarms), 2 * rejections / (2 * rejections + misses + alarms)
    result: Doubles = (np.nan_to_num(of_same) + np.nan_to_num(of_other)) / 2
    return result


def auc_of(scores: Doubles, same: Ints, weights: Doubles) -> Doubles:
    """The share of pairs of judgements that the scores order rightly, ties halved (Mann and Whitney 1947).

    Args:
        scores: float64 [pairs].
        same: int64 [pairs].
        weights: float64 [times, pairs].

    Returns:
        float64 [times]; NaN where all judgements are one.
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
    """MEASURES of pairs that count so many times; float64 [measures, times].

    Args:
        scores: float64 [pairs], of the frozen layer.
        same: int64 [pairs].
        threshold: frozen.
        weights: float64 [times, pairs].
    """
    blocks = np.array_split(weights, -(-weights.size // _AT_ONCE))
    return np.concatenate([_measured(scores, same, threshold, block) for block in blocks], axis=1)


def _measured(scores: Doubles, same: Ints, threshold: float, weights: Doubles) -> Doubles:
    said = scores >= threshold
    hits, alarms = weights @ (said * same), weights @ (said * (1 - same))
    positives, negatives = weights @ same, weights @ (1 - same)
    right = hits + negatives - alarms
    with np.errstate(invalid="ignore"):
        accuracy = right / (positives + negatives)
    return np.stack([_macro_f1(hits, alarms, positives, negatives), accuracy, auc_of(scores, same, weights)])


def resampled(words: Sequence[str], times: int, random: np.random.Generator) -> Doubles:
    """How often each pair counts when words are drawn with replacement, all pairs of a word together.

    Pairs of one word hang together (Field and Welsh 2007, "Bootstrapping clustered data", JRSS B 69): TempoWiC's
    validation pairs are of four words, and an interval over its pairs would be far too short.

    Returns:
        float64 [1 + times, pairs]; the first row counts each pair once. Of a single word that row alone: all resamples
        would be the same, and an interval of them no wider than a point.
    """
    number = np.unique(np.array(words), return_inverse=True)[1]
    count = int(number.max()) + 1
    times = times if count > 1 else 0
    draws = random.multinomial(count, np.full(count, 1 / count), times).astype(np.float64)
    return np.concatenate([np.ones((1, len(words))), draws[:, number]])


def with_intervals(values: Doubles) -> dict[str, list[float | None]]:
    """By measure: the value, and 95 % percentile bounds.

    Args:
        values: float64 [measures, 1 + times], the first of the pairs as they are; resamples in which a measure cannot
            be told (NaN) are left out of its bounds.
    """
    return {name: [_number(one[0]), *_bounds(one[1:])] for name, one in zip(MEASURES, values, strict=True)}


def _bounds(values: Doubles) -> list[float | None]:
    told: npt.NDArray[np.float64] = values[~np.isnan(values)]
    return [_number(bound) for bound in np.percentile(told, [2.5, 97.5])] if len(told) else [None, None]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
