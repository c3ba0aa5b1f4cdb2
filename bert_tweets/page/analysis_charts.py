"""Charts of findings: words among control words, pairs of groups, usage clusters, and drift from base to model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from bert_tweets.config import PERIODS
from bert_tweets.words.analysis.records import ChangeRow, Contrast, Sense
from bert_tweets.words.analysis.verdicts import groups_text, rank_text
from bert_tweets.words.store.summary import MeasureDrift, Summary

from .charts import BLUE, COLOURS, GREY, ORANGE, Chart, Kind, Series, transposed
from .inputs import Change
from .names import file_names

_PERCENTILES = (5, 95)  # the middle nine tenths of the control words


def rank_charts(change: Change) -> list[Chart]:
    """The distance of each word over all its groups, among those of the control words in the same groups."""
    rows = [row for row in change.omnibus if row["estimate"] is not None]
    rows.sort(key=_estimate, reverse=True)
    if not rows:
        return []
    names = [row["word"] for row in rows]
    marks = [(value, row["word"]) for row in rows for value in _control_estimates(change, row["groups"])]
    series = []
    if marks:
        values, words = transposed(marks)
        series.append(Series("control words", "strip", values, words, colour=GREY))
    estimates, low, high = _intervals(rows)
    series.append(Series("the word, 95 % interval", "points", estimates, names, low, high, BLUE))
    among = f" among {len(change.controls):,} control words" if marks else ""
    return [
        Chart(
            name="words-among-controls",
            title="Words among control words" if marks else "Each word over all its groups",
            alt=f"Energy distance over all groups of {len(rows)} words with 95 % intervals{among}; the largest is that "
            f"of {names[0]}, {estimates[0]:.3g}. The table below has the numbers.",
            series=series,
            x_title="energy distance over all groups",
            horizontal=True,
            zero=True,
            legend=True,
            order=names,
            row_notes=[f"rank {rank}" if (rank := rank_text(row)) else "" for row in rows] if marks else [],
        )
    ]


def pair_charts(change: Change) -> list[Chart]:
    """The pairs of groups of each word, on one scale, with the middle nine tenths of the control words."""
    rows = [row for row in change.pairs if row["estimate"] is not None]
    if not rows:
        return []
    by_word = [(word, list(group)) for word, group in groupby(rows, key=lambda row: row["word"])]
    names = file_names("change", [word for word, _ in by_word])
    ends = [0.0]
    for row, low, high in zip(rows, *_intervals(rows)[1:], strict=True):
        ends += [low, high, *_control_range(change, row)]
    room = 0.06 * (max(ends) - min(ends) or 1)
    extent = (min(ends) - room, max(ends) + room)
    return [_pair_chart(change, name, word, mine, extent) for name, (word, mine) in zip(names, by_word, strict=True)]


def _pair_chart(change: Change, name: str, word: str, rows: list[ChangeRow], extent: tuple[float, float]) -> Chart:
    estimates, low, high = _intervals(rows)
    contrast = rows[0]["contrast"]
    in_time = change.by in PERIODS and contrast in (Contrast.ADJACENT, Contrast.FIRST)
    # Over time a pair is named by its later group, and the axis title names the earlier one.
    pairs = [row["group_b"] if in_time else groups_text(row) for row in rows]
    series: list[Series] = []

    def add(label: str, kind: Kind, values: list[float], colour: str) -> None:
        x, y = (pairs, values) if in_time else (values, pairs)
        lows, highs = (low, high) if colour == BLUE else (control_low, control_high)
        series.append(Series(label, kind, x, y, lows, highs, colour))

    ranges = [_control_range(change, row) for row in rows]
    if all(ranges):
        control_low, medians, control_high = transposed(ranges)
        shape: Kind = "range" if not in_time else "band" if len(rows) > 1 else "points"
        add("nine tenths of the control words", shape, medians, GREY)
    if in_time and len(rows) > 1:
        add("95 % interval", "band", estimates, BLUE)
        add(word, "line", estimates, BLUE)
    else:
        add(f"{word}, 95 % interval", "points", estimates, BLUE)
    largest = max(rows, key=_estimate)
    earlier = f"vs. {rows[0]['group_a']}" if contrast == Contrast.FIRST else f"vs. previous {change.by}"
    return Chart(
        name=name,
        title=word,
        alt=f"Energy distance of {word} between {len(rows)} pairs of groups with 95 % intervals; the largest is "
        f"{_estimate(largest):.3g}, between {largest['group_a']} and {largest['group_b']}."
        f"{' Grey: nine tenths of the control words.' if all(ranges) else ''}",
        series=series,
        x_title=earlier if in_time else "energy distance",
        y_title="energy distance" if in_time else "",
        horizontal=not in_time,
        zero=True,
        extent=extent,
        small=True,
    )


def _estimate(row: ChangeRow) -> float:
    return row["estimate"] or 0.0


def _intervals(rows: Sequence[ChangeRow]) -> tuple[list[float], list[float], list[float]]:
    """Estimates and the ends of their intervals."""
    low = [_estimate(row) if row["low"] is None else row["low"] for row in rows]
    high = [_estimate(row) if row["high"] is None else row["high"] for row in rows]
    return [_estimate(row) for row in rows], low, high


def _control_estimates(change: Change, groups: list[str]) -> list[float]:
    """Distances of the control words between these groups."""
    return [control["estimate"] for control in change.controls if control["groups"] == groups]


def _control_range(change: Change, row: ChangeRow) -> tuple[float, ...]:
    """Low end, median and high end of the middle nine tenths of the control words; () without control words."""
    estimates = _control_estimates(change, row["groups"])
    low, high = _PERCENTILES
    return tuple(np.percentile(estimates, (low, 50, high)).tolist()) if estimates else ()


def sense_charts(change: Change) -> list[Chart]:
    """Shares of the usage clusters of each word that has several, with their intervals, by group."""
    several = {word: one["senses"] for word, one in change.senses.items() if len(one["senses"]) > 1}
    shown = {word: senses for word, senses in several.items() if any(one["shares"] for one in senses)}
    names = file_names("senses", list(shown))
    return [_sense_chart(name, word, shown[word], change.by) for name, word in zip(names, shown, strict=True)]


def _sense_chart(name: str, word: str, senses: list[Sense], by: str) -> Chart:
    series: list[Series] = []
    in_time = by in PERIODS
    first = ""
    for number, sense in enumerate(senses):
        # A group without an occurrence has no share.
        known = [
            (each["group"], each["share"], each["low"], each["high"])
            for each in sense["shares"]
            if each["share"] is not None and each["low"] is not None and each["high"] is not None
        ]
        groups, shares, low, high = transposed(known) if known else ([], [], [], [])
        colour = COLOURS[number % len(COLOURS)]
        if not number and shares:
            first = f"; {sense['name']}, from {shares[0]:.0%} to {shares[-1]:.0%}"
        if in_time and len(groups) > 1:
            series.append(Series(sense["name"], "band", groups, shares, low, high, colour))
            series.append(Series(sense["name"], "line", groups, shares, low, high, colour, labelled=True))
        else:
            x, y = (groups, shares) if in_time else (shares, groups)
            series.append(Series(sense["name"], "points", x, y, low, high, colour))
    return Chart(
        name=name,
        title=word,
        alt=f"Shares of {len(senses)} usage clusters of {word} by {by or 'group'}, with 95 % intervals{first}.",
        series=series,
        x_title="" if in_time else "share of occurrences",
        y_title="share of occurrences" if in_time else "",
        horizontal=not in_time,
        share=True,
        extent=(-0.03, 1.03),
        legend=not in_time,
        small=True,
    )


def drift_charts(summary: Summary) -> list[Chart]:
    """Neighbours kept and distances correlated from base to model, compared with those of the control words."""
    overlap = {name: word.drift.neighbour_overlap for name, word in summary.words.items() if word.drift}
    correlation = {name: word.drift.distance_correlation for name, word in summary.words.items() if word.drift}
    return [
        *_drift_chart("neighbours-kept", "Nearest neighbours kept from before to after", True, overlap),
        *_drift_chart("distances-correlated", "Correlation of distances before and after", False, correlation),
    ]


def _drift_chart(name: str, title: str, share: bool, drifts: dict[str, MeasureDrift]) -> list[Chart]:
    marks = [(value, word) for word, drift in drifts.items() for value in drift.by_seed if value is not None]
    if not marks:
        return []
    series = []
    controls = {word: drift.control_quantiles for word, drift in drifts.items() if drift.control_quantiles}
    if controls:
        low, median, high = transposed(list(controls.values()))
        label = "control words, 95 % of them and median"
        series.append(Series(label, "range", median, list(controls), low, high, GREY))
    seeds = max(len(drift.by_seed) for drift in drifts.values())
    label = "the word, one seed" if seeds == 1 else f"the word, {seeds} training seeds"
    values, words = transposed(marks)
    series.append(Series(label, "points", values, words, colour=ORANGE))
    return [
        Chart(
            name=name,
            title=title,
            alt=f"{title}: {len(drifts)} words, {'one seed' if seeds == 1 else f'{seeds} seeds'}"
            f"{', with the range of the control words' if controls else ''}.",
            series=series,
            x_title="share kept" if share else "correlation",
            horizontal=True,
            share=share,
            extent=(-0.04, 1.04) if share else None,
            legend=True,
            order=list(drifts),
        )
    ]
