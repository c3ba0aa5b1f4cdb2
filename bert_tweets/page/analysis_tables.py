"""Findings: what analyze left, as claims, charts and tables. Sentences come from words/analysis/verdicts.py alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np

from bert_tweets.config import PERIODS
from bert_tweets.words.analysis.records import MatchedOn, Verdict
from bert_tweets.words.analysis.verdicts import (
    criterion_text,
    exchange_unit_text,
    matched_on_text,
    rank_text,
    reason_text,
    verdict_label,
)

from .charts import BLUE, COLOURS, GREY, ORANGE, Chart, Series, file_names
from .inputs import Change

OMNIBUS, ENERGY = "omnibus", "energy"

# What a reader looks for first stands first.
_ORDER = (
    Verdict.CHANGED,
    Verdict.NOT_COMPARABLE,
    Verdict.DIFFERS_AS_ORDINARY,
    Verdict.NO_DIFFERENCE,
    Verdict.TOO_FEW,
)
# The middle nine tenths of the control words.
_MIDDLE = (5, 95)
_MOST_LISTED = 8


def claims(change: Change | None) -> list[dict[str, Any]]:
    """What may be said of each word over all groups: its sentence, verdict and numbers of tweets."""
    rows = [row for row in (change.rows if change else []) if _is(row, OMNIBUS)]
    listed = [
        {
            "word": row["word"],
            "verdict": row["verdict"],
            "label": verdict_label(row["verdict"]),
            "strong": row["verdict"] == Verdict.CHANGED,
            "statement": row["statement"],
            "n": row["n"],
            "groups": list(row["groups"]),
        }
        for row in rows
    ]
    return sorted(listed, key=lambda claim: _ORDER.index(claim["verdict"]))


def _is(row: dict[str, Any], contrast: str) -> bool:
    return bool(row["measure"] == ENERGY and (row["contrast"] == OMNIBUS) == (contrast == OMNIBUS))


def rank_chart(change: Change) -> Chart | None:
    """Each word's estimate over its groups, on the estimates of the control words in the same groups."""
    rows = [row for row in change.rows if _is(row, OMNIBUS) and row["estimate"] is not None]
    rows.sort(key=lambda row: -row["estimate"])
    if not rows:
        return None
    names = [row["word"] for row in rows]
    ordinary = [(value, row["word"]) for row in rows for value in _ordinary(change, row["groups"])]
    series = []
    if ordinary:
        values, places = zip(*ordinary, strict=True)
        series.append(Series("control words", "strip", list(values), list(places), colour=GREY))
    series.append(
        Series(
            "the word, 95 % interval",
            "points",
            [row["estimate"] for row in rows],
            names,
            [row["low"] for row in rows],
            [row["high"] for row in rows],
            BLUE,
        )
    )
    best = max(rows, key=lambda row: row["estimate"])
    beside = f" beside {len(change.controls or [])} control words" if ordinary else ""
    return Chart(
        name="words-among-controls",
        title="Words among ordinary words" if ordinary else "Each word over all its groups",
        alt=f"Energy distance over all groups of {len(rows)} words with 95 % intervals{beside}; the largest is that of "
        f"{best['word']}, {best['estimate']:.3g}. The table that follows has the numbers.",
        series=series,
        x_title="energy distance over all groups",
        horizontal=True,
        zero=True,
        legend=True,
        order=names,
        beside=[f"rank {rank}" if (rank := rank_text(row)) else "" for row in rows] if ordinary else [],
    )


def rank_rows(change: Change) -> list[dict[str, Any]]:
    """The table of the chart."""
    rows = [row for row in change.rows if _is(row, OMNIBUS)]
    return [
        {
            "word": row["word"],
            "groups": f"{row['groups'][0]} … {row['groups'][-1]}"
            if len(row["groups"]) > 2
            else " – ".join(row["groups"]),
            **_figures(row),
            "rank": rank_text(row) or "–",
            "label": verdict_label(row["verdict"]),
            **_sizes(row),
        }
        for row in rows
    ]


def pair_rows(change: Change) -> list[dict[str, Any]]:
    """The table of the pairs of groups."""
    return [
        {"word": row["word"], "groups": f"{row['group_a']} – {row['group_b']}", **_figures(row), **_sizes(row)}
        | {"rank": rank_text(row) or "–"}
        | {"label": verdict_label(row["verdict"])}
        for row in change.rows
        if _is(row, "pairs")
    ]


def _figures(row: dict[str, Any]) -> dict[str, str]:
    if row["estimate"] is None:
        return dict.fromkeys(("estimate", "interval", "p", "q"), "–")
    return {
        "estimate": f"{row['estimate']:.3f}",
        "interval": f"{row['low']:.3f} to {row['high']:.3f}",
        "p": f"{row['p_value']:.4f}",
        "q": f"{row['q_value']:.4f}",
    }


def _sizes(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "n": row["n"],
        "clusters": row["clusters"],
        "authors": row["authors"],
        "unit": exchange_unit_text(row["exchange_unit"]),
    }


def _ordinary(change: Change, groups: Sequence[str]) -> list[float]:
    """Estimates of the control words between these groups."""
    return [one["estimate"] for one in change.controls or [] if list(one["groups"]) == list(groups)]


def pair_charts(change: Change) -> list[Chart]:
    """Each word's pairs of groups, on one scale, on the middle nine tenths of the control words."""
    rows = [row for row in change.rows if _is(row, "pairs") and row["estimate"] is not None]
    if not rows:
        return []
    by_word = [(word, list(group)) for word, group in groupby(rows, key=lambda row: row["word"])]
    names = file_names("change", [word for word, _ in by_word])
    ends = [end for row in rows for end in (row["low"], row["high"])]
    ends += [end for row in rows for end in _middle(change, row)]
    room = 0.06 * (max(ends) - min(0.0, min(ends)) or 1)
    extent = (min(0.0, min(ends)) - room, max(ends) + room)
    return [_pair_chart(change, name, word, mine, extent) for name, (word, mine) in zip(names, by_word, strict=True)]


def _middle(change: Change, row: dict[str, Any]) -> list[float]:
    ordinary = _ordinary(change, [row["group_a"], row["group_b"]])
    return np.percentile(ordinary, _MIDDLE).tolist() if ordinary else []


def _pair_chart(change: Change, name: str, word: str, rows: list[dict[str, Any]], extent: tuple[float, float]) -> Chart:
    estimates, low, high = ([row[key] for row in rows] for key in ("estimate", "low", "high"))
    kind = rows[0]["contrast"]
    in_time = change.by in PERIODS and kind in ("adjacent", "first")
    # In time each is named by the later of its two groups, and the axis tells the other.
    steps = [row["group_b"] if in_time else f"{row['group_a']} – {row['group_b']}" for row in rows]
    before = f"beside {rows[0]['group_a']}" if kind == "first" else f"beside the {change.by} before"
    series = []
    middles = [_middle(change, row) for row in rows]
    if all(middles):
        lows, highs = (list(ends) for ends in zip(*middles, strict=True))
        medians = [float(np.median(_ordinary(change, [row["group_a"], row["group_b"]]))) for row in rows]
        drawn = "band" if in_time and len(rows) > 1 else "points"
        series.append(Series("nine tenths of the control words", drawn, steps, medians, lows, highs, GREY))
    if in_time and len(rows) > 1:
        series.append(Series("95 % interval", "band", steps, estimates, low, high, BLUE))
        series.append(Series(word, "line", steps, estimates, low, high, BLUE))
    else:
        series.append(Series(f"{word}, 95 % interval", "points", steps, estimates, low, high, BLUE))
    largest = max(rows, key=lambda row: row["estimate"])
    return Chart(
        name=name,
        title=word,
        alt=f"Energy distance of {word} between {len(rows)} pairs of groups with 95 % intervals; the largest is "
        f"{largest['estimate']:.3g}, between {largest['group_a']} and {largest['group_b']}.",
        series=series,
        about=f"energy distance, 95 % interval{'; grey: nine tenths of the control words' if all(middles) else ''}",
        x_title=before if in_time else "",
        zero=True,
        extent=extent,
    )


def sense_charts(senses: dict[str, Any] | None, by: str) -> list[Chart]:
    """Shares of the usage clusters of each word that has several, with their intervals, by group."""
    several = {word: sense["senses"] for word, sense in (senses or {}).items() if len(sense["senses"]) > 1}
    shown = {word: clusters for word, clusters in several.items() if any(one.get("shares") for one in clusters)}
    names = file_names("senses", list(shown))
    return [_sense_chart(name, word, shown[word], by) for name, word in zip(names, shown, strict=True)]


def _sense_chart(name: str, word: str, clusters: list[dict[str, Any]], by: str) -> Chart:
    series = []
    for number, one in enumerate(clusters):
        # Of a group without an occurrence there is no share.
        shares = [share for share in one.get("shares") or [] if share["share"] is not None]
        colour = COLOURS[number % len(COLOURS)]
        groups, values, low, high = ([share[key] for share in shares] for key in ("group", "share", "low", "high"))
        groups = [str(group) for group in groups]
        if by in PERIODS and len(groups) > 1:
            series.append(Series(one["name"], "band", groups, values, low, high, colour))
            series.append(Series(one["name"], "line", groups, values, low, high, colour, labelled=True))
        else:
            series.append(Series(one["name"], "points", groups, values, low, high, colour))
    shares = [share for share in clusters[0].get("shares") or [] if share["share"] is not None]
    ends = f", from {shares[0]['share']:.0%} to {shares[-1]['share']:.0%}" if shares else ""
    return Chart(
        name=name,
        title=word,
        alt=f"Shares of {len(clusters)} usage clusters of {word} by {by or 'group'}, with 95 % intervals; "
        f"{clusters[0]['name']}{ends}.",
        series=series,
        about="shares of its usage clusters, 95 % interval",
        share=True,
        extent=(-0.03, 1.03),
        legend=by not in PERIODS,
    )


def matched_on(change: Change | None) -> str:
    """What control words are like the words in; of several answers the one that promises least."""
    said = [row["matched_on"] for row in change.rows if row["controls"]] if change else []
    return matched_on_text(min(said, key=len, default=[MatchedOn.FREQUENCY]))


def usual_criterion(senses: dict[str, Any]) -> str:
    """How the number of clusters was chosen, of most words."""
    said = [sense["criterion"] for sense in senses.values()]
    usual = max(dict.fromkeys(said), key=said.count)
    return criterion_text(next(sense for sense in senses.values() if sense["criterion"] == usual))


def sense_rows(senses: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The table of usage clusters: of each word how many, why where others had another reason, and of what."""
    usual = usual_criterion(senses) if senses else None
    return [
        {
            "word": word,
            "count": sense["count"],
            "criterion": None if criterion_text(sense) == usual else criterion_text(sense),
            "stability": None if sense.get("stability") is None else f"{sense['stability']:.2f}",
            "clusters": [_cluster(one) for one in sense["senses"]],
        }
        for word, sense in (senses or {}).items()
    ]


def _cluster(one: dict[str, Any]) -> dict[str, Any]:
    related = [
        each for each in one.get("associations") or [] if each["q_value"] is not None and each["q_value"] <= 0.05
    ]
    return {
        "name": one["name"],
        "size": one["size"],
        "authors": one.get("authors"),
        "share": f"{one['share']:.1%}",
        "words": ", ".join(map(str, (one.get("words") or [])[:_MOST_LISTED])) or "–",
        "substitutes": ", ".join(str(word) for word, _ in (one.get("substitutes") or [])[:_MOST_LISTED]) or "–",
        "associations": "; ".join(f"{each['covariate']} (q = {each['q_value']:.2g})" for each in related) or "none",
    }


def regression_rows(rows: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """The table of partial effects."""
    return [
        {
            "word": row["word"],
            "term": row["term"],
            "estimate": "–" if row["estimate"] is None else f"{row['estimate']:.4f}",
            "p": "–" if row.get("p_value") is None else f"{row['p_value']:.4f}",
            "q": "–" if row.get("q_value") is None else f"{row['q_value']:.4f}",
            **{key: row.get(key) for key in ("n", "clusters", "authors", "permutations")},
            "unit": exchange_unit_text(row["exchange_unit"])
            if row["p_value"] is not None
            else reason_text(row["reason"]),
        }
        for row in rows or []
    ]


def before_after_charts(words: Sequence[dict[str, Any]]) -> list[Chart]:
    """Neighbours kept and distances correlated between base and model, beside the control words'.

    Args:
        words: each with `name` and `before_after`, as summary.json has it.
    """
    measures = {
        "neighbour_overlap": ("neighbours-kept", "Nearest neighbours kept from before to after", True),
        "distance_correlation": ("distances-correlated", "Correlation of distances before and after", False),
    }
    charts = []
    for key, (name, title, share) in measures.items():
        known = [(word["name"], word["before_after"][key]) for word in words if (word["before_after"] or {}).get(key)]
        if known:
            charts.append(_before_after_chart(name, title, share, known))
    return charts


def _before_after_chart(name: str, title: str, share: bool, known: list[tuple[str, dict[str, Any]]]) -> Chart:
    series = []
    beside = [(word, one["control_quantiles"]) for word, one in known if one.get("control_quantiles")]
    if beside:
        low, middle, high = ([ends[place] for _, ends in beside] for place in range(3))
        series.append(
            Series("control words, low to high and median", "range", middle, [w for w, _ in beside], low, high, GREY)
        )
    each = [(value, word) for word, one in known for value in one["by_seed"] if value is not None]
    seeds = max(len(one["by_seed"]) for _, one in known)
    said = "the word, one seed" if seeds == 1 else f"the word, {seeds} training seeds"
    series.append(Series(said, "points", [value for value, _ in each], [word for _, word in each], colour=ORANGE))
    return Chart(
        name=name,
        title=title,
        alt=f"{title} of {len(known)} words, {'one seed' if seeds == 1 else f'{seeds} seeds'}"
        f"{', beside the range of control words' if beside else ''}.",
        series=series,
        x_title="share kept" if share else "correlation",
        horizontal=True,
        share=share,
        extent=(-0.04, 1.04) if share else None,
        legend=True,
        order=[word for word, _ in known],
    )
