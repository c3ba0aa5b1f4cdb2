"""Charts: what a picture shows, apart from who draws it: plotly for the page, matplotlib for a paper."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

# Of Okabe and Ito's colours for the colour-blind, darkened or lightened until 3 : 1 on white and on near-black.
BLUE, ORANGE, GREEN, PINK, RED, GREY = "#3b82c4", "#d97706", "#0f9d76", "#c76a9d", "#cc4c1a", "#7d8590"
COLOURS = (BLUE, ORANGE, GREEN, PINK, RED)

# Behind a letter of ASCII it is an address of mail; Japanese, say, has no space before it.
_MENTION = re.compile(r"(?:(?<![A-Za-z0-9_+%@＠])|(?<=\bRT))[@＠]+\w+(?:[@＠]+\w+)*")


@dataclass(frozen=True)
class Series:
    """Marks of one kind.

    Attributes:
        name: of what they show; written at the last of them where `labelled`.
        kind: points | star | line | band (between `low` and `high`) | range (a bar from `low` to `high`, a tick at
            the value) | strip (a tick a value) | bar.
        x, y: as many as there are marks; the names of rows in a horizontal chart's `y`, numbers or names in `x`.
        low, high: ends of intervals around the values; empty: none.
        colour: as HTML writes it.
        notes: a text behind each mark; empty: none.
    """

    name: str
    kind: str
    x: Sequence[Any]
    y: Sequence[Any]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    colour: str = BLUE
    notes: Sequence[str] = ()
    labelled: bool = False


@dataclass(frozen=True)
class Chart:
    """A picture.

    Attributes:
        name: of its files.
        title: above it.
        alt: a sentence for those who do not see it.
        series: what it shows, the lowest layer first.
        about: a line under the title where the picture stands alone, without the page's sentences around it.
        x_title, y_title: of the axes.
        horizontal: values lie along x, rows have names.
        share: values are shares, shown in percent.
        zero: a line stands at zero.
        extent: lowest and highest value that there is room for; None: by the values.
        legend: the series are told apart in a line above.
        order: names along the axis of names; empty: as they come up.
        beside: texts at the right ends of the rows of `order`; empty: none.
    """

    name: str
    title: str
    alt: str
    series: list[Series] = field(default_factory=list)
    about: str = ""
    x_title: str = ""
    y_title: str = ""
    horizontal: bool = False
    share: bool = False
    zero: bool = False
    extent: tuple[float, float] | None = None
    legend: bool = False
    order: Sequence[str] = ()
    beside: Sequence[str] = ()

    @property
    def rows(self) -> list[Any]:
        """Names along the axis of names."""
        if self.order:
            return list(self.order)
        named = [one.y if self.horizontal else one.x for one in self.series]
        return list(dict.fromkeys(name for names in named for name in names))

    @property
    def is_named(self) -> bool:
        """Whether the axis that is not the values' holds names."""
        return self.horizontal or any(isinstance(name, str) for name in self.rows)


def spread_out(values: Sequence[float], apart: float) -> list[float]:
    """Where labels of these values stand, in their order, so that no two are nearer than `apart`."""
    order = sorted(range(len(values)), key=values.__getitem__)
    placed = [values[index] for index in order]
    # Runs of labels that touch share their middle.
    runs = [[value, 1] for value in placed]
    merged: list[list[float]] = []
    for run in runs:
        merged.append(list(run))
        while len(merged) > 1 and merged[-1][0] - merged[-2][0] < apart * (merged[-1][1] + merged[-2][1]) / 2:
            middle, count = merged.pop()
            before, earlier = merged[-1]
            merged[-1] = [(middle * count + before * earlier) / (count + earlier), count + earlier]
    spots = [middle + apart * (place - (count - 1) / 2) for middle, count in merged for place in range(int(count))]
    result = [0.0] * len(values)
    for index, spot in zip(order, spots, strict=True):
        result[index] = spot
    return result


def without_mentions(value: Any) -> Any:
    """A record with every @name in its texts as @user: no account is named on a page that is passed around."""
    if isinstance(value, str):
        return _MENTION.sub("@user", value)
    if isinstance(value, dict):
        return {without_mentions(key): without_mentions(inner) for key, inner in value.items()}
    if isinstance(value, Series | Chart):
        return replace(value, **{name: without_mentions(inner) for name, inner in vars(value).items()})
    return [without_mentions(inner) for inner in value] if isinstance(value, list | tuple) else value


def file_names(prefix: str, words: Sequence[str]) -> list[str]:
    """Names of files of words' pictures, no two alike; of letters and digits, and without names of accounts."""
    names: list[str] = []
    for number, word in enumerate(words, 1):
        plain = re.sub(r"\W+", "-", without_mentions(word)).strip("-").lower()[:40] or f"word-{number}"
        name = f"{prefix}-{plain}"
        names.append(f"{name}-{number}" if name in names else name)
    return names
