"""Charts as data: series, axes and texts, apart from their drawing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["points", "star", "line", "band", "range", "strip", "bar"]

# Colours for the colour-blind after Okabe and Ito, changed until their contrast is 3 : 1 on white and on near-black.
BLUE, ORANGE, GREEN, PINK, RED, GREY = "#3b82c4", "#d97706", "#0f9d76", "#c76a9d", "#cc4c1a", "#7d8590"
COLOURS = (BLUE, ORANGE, GREEN, PINK, RED)


@dataclass(frozen=True)
class Series:
    """Marks of one kind.

    Attributes:
        name: label of the series; written at its last mark if `labelled`.
        kind: points | star | line | band (from `low` to `high`) | range (a thick bar from `low` to `high`, a tick at
            the value) | strip (a tick per value) | bar.
        x, y: coordinates of the marks; category names on the axis of categories.
        low, high: ends of the intervals around the values; empty: no intervals.
        notes: texts next to the bars.
        labelled: write the name at the end of the line.
    """

    name: str
    kind: Kind
    x: Sequence[Any]
    y: Sequence[Any]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    colour: str = BLUE
    notes: Sequence[str] = ()
    labelled: bool = False


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        name, alt: file name without ending; text alternative, in a sentence.
        series: series from back to front.
        horizontal: values are on the x-axis, categories on the y-axis.
        share: values are shares, shown as percentages.
        zero: draw a line at zero.
        extent: limits of the axis of values; None: from the values.
        order: categories in order; empty: as they come.
        row_notes: texts to the right of the rows in `order`; empty: no texts.
        small: one of several small charts of the same kind.
    """

    name: str
    title: str
    alt: str
    series: list[Series] = field(default_factory=list)
    x_title: str = ""
    y_title: str = ""
    horizontal: bool = False
    share: bool = False
    zero: bool = False
    extent: tuple[float, float] | None = None
    legend: bool = False
    order: Sequence[str] = ()
    row_notes: Sequence[str] = ()
    small: bool = False

    @property
    def categories(self) -> list[Any]:
        """Distinct positions along the axis that does not hold the values."""
        positions = [one.y if self.horizontal else one.x for one in self.series]
        return list(self.order or dict.fromkeys(each for every in positions for each in every))

    @property
    def is_categorical(self) -> bool:
        """Whether the axis that does not hold the values has names, not numbers."""
        return self.horizontal or any(isinstance(each, str) for each in self.categories)


def transposed(points: Sequence[tuple[Any, ...]]) -> Iterator[list[Any]]:
    """The first entries of all points, the second entries, and so on."""
    return map(list, zip(*points, strict=True))


def spread_out(values: Sequence[float], distance: float) -> list[float]:
    """Positions of labels near these values, in their order, at least `distance` apart."""
    order = sorted(range(len(values)), key=values.__getitem__)
    # Runs of labels that touch: their middle, and how many they are.
    runs: list[tuple[float, int]] = []
    for index in order:
        middle, count = values[index], 1
        while runs and middle - runs[-1][0] < distance * (count + runs[-1][1]) / 2:
            earlier, others = runs.pop()
            middle, count = (middle * count + earlier * others) / (count + others), count + others
        runs.append((middle, count))
    spots = [middle + distance * (place - (count - 1) / 2) for middle, count in runs for place in range(count)]
    return [spot for _, spot in sorted(zip(order, spots, strict=True))]
