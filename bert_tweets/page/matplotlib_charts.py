"""Charts drawn by matplotlib for a paper: PNG and SVG on white, in a font and colours that everybody can read."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .charts import COLOURS, Chart, Series, spread_out
from .libraries import missing_extra
from .maps import WordMap

_DOTS = 200
# Old to new, as on the page.
_RAMP = ("#9ecae1", "#4292c6", "#084081")
_WIDTH = 6.6
# Names side by side that do not overlap.
_MOST_TICKS = 8
# Points of a line that are marked.
_MOST_MARKS = 25
_BESIDE: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 9}
_STYLE = {
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#7d8590",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlesize": 11,
    "axes.labelsize": 9.5,
    "grid.color": "#dde1e6",
    "grid.linewidth": 0.7,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "xtick.color": "#3d454d",
    "ytick.color": "#3d454d",
    "text.color": "#1c2127",
    "axes.labelcolor": "#3d454d",
    "font.size": 10,
    # Words are no formulas: a $ is a $.
    "text.parse_math": False,
    "svg.fonttype": "none",
    # The same study makes the same bytes.
    "svg.hashsalt": "bert_tweets",
}


@contextmanager
def _plain_style() -> Iterator[None]:
    try:
        import matplotlib
    except ImportError:
        raise missing_extra("matplotlib") from None
    # Where a font lacks a sign (an emoji), an empty box stands, and the SVG has the sign itself.
    logger, level = logging.getLogger("matplotlib.font_manager"), logging.ERROR
    before = logger.level
    logger.setLevel(level)
    try:
        with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph")
            yield
    finally:
        logger.setLevel(before)


def print_chart(chart: Chart) -> dict[str, bytes]:
    """A chart as files: bytes by ending, png and svg.

    Raises:
        UserError: matplotlib is not installed.
    """
    with _plain_style():
        from matplotlib.figure import Figure

        height = 1.1 + 0.3 * len(chart.rows) if chart.horizontal else 3.2
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        axes = figure.add_subplot()
        place = {name: number for number, name in enumerate(chart.rows)} if chart.is_named else None
        for one in chart.series:
            _draw(axes, chart, one, place)
        _finish(axes, chart, place)
        return _saved(figure)


def print_map(word: WordMap, name: str, title: str) -> dict[str, bytes]:
    """A word's maps, side by side, coloured by one column: bytes by ending.

    Args:
        word: the map.
        name: of the column, of `word.columns`.
        title: above it.
    """
    with _plain_style():
        import numpy as np
        from matplotlib.colors import LinearSegmentedColormap
        from matplotlib.figure import Figure

        count = len(word.spaces)
        figure = Figure(figsize=(3.3 * count + 0.8, 3.6), layout="constrained")
        panels = figure.subplots(1, count, squeeze=False)[0]
        column = word.columns[name]
        ramp = LinearSegmentedColormap.from_list("time", _RAMP)
        figure.suptitle(title, fontsize=11, fontweight="bold", x=0.01, ha="left")
        for axes, space in zip(panels, word.spaces, strict=True):
            axes.set_title(space.title, fontsize=9.5, fontweight="normal")
            axes.set(xticks=[], yticks=[], aspect="equal", xlim=(-1.08, 1.08), ylim=(-1.08, 1.08))
            axes.spines[:].set(visible=True, color="#d9dee3")
            axes.grid(False)
            # Thousands of points are a picture within the picture, or the SVG would be megabytes.
            marks: dict[str, Any] = {"s": 9, "linewidths": 0, "alpha": 0.75, "rasterized": len(space.points) > 500}
            for number, value in enumerate(column.names):
                rows = np.flatnonzero(column.codes == number)
                axes.scatter(*space.points[rows].T, color=COLOURS[number % len(COLOURS)], label=value, **marks)
            if not column.names:
                known = np.flatnonzero(column.codes >= 0)
                drawn = axes.scatter(*space.points[known].T, c=column.codes[known], cmap=ramp, **marks)
        if column.names:
            figure.legend(
                *panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False, markerscale=2
            )
        elif (column.codes >= 0).any():
            figure.colorbar(drawn, ax=panels, fraction=0.03, format=_dates())
        return _saved(figure)


def _dates() -> Any:
    from datetime import date, timedelta

    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda day, _: (date(1970, 1, 1) + timedelta(days=int(day))).isoformat()[:7])


def _draw(axes: Any, chart: Chart, one: Series, place: dict[Any, int] | None) -> None:
    def located(values: Sequence[Any]) -> list[Any]:
        return [place[value] if place and value in place else value for value in values]

    x, y = (one.x, located(one.y)) if chart.horizontal else (located(one.x), one.y)
    if one.kind == "band":
        axes.fill_between(x, one.low, one.high, color=one.colour, alpha=0.22, linewidth=0, label=one.name)
    elif one.kind == "range":
        axes.hlines(y, one.low, one.high, color=one.colour, alpha=0.35, linewidth=8)
        axes.plot(x, y, "|", color=one.colour, markersize=11, markeredgewidth=2, label=one.name)
    elif one.kind == "strip":
        axes.plot(x, y, "|", color=one.colour, markersize=8, markeredgewidth=0.8, alpha=0.6, label=one.name)
    elif one.kind == "bar":
        bars = axes.barh(y, x, color=one.colour, height=0.65)
        axes.bar_label(bars, one.notes, padding=4, fontsize=9.5)
    elif one.kind == "line":
        marks = {"marker": "o", "markersize": 4} if len(x) < _MOST_MARKS else {}
        axes.plot(x, y, color=one.colour, linewidth=1.8, label=one.name, **marks)
    else:
        _points(axes, chart, one, x, y)


def _points(axes: Any, chart: Chart, one: Series, x: Sequence[Any], y: Sequence[Any]) -> None:
    values = x if chart.horizontal else y
    if one.low:
        below = [value - low for value, low in zip(values, one.low, strict=True)]
        above = [high - value for value, high in zip(values, one.high, strict=True)]
        # Of an interval that lies beside its estimate, the end that is nearer than the estimate has no length.
        around = [[max(0.0, length) for length in side] for side in (below, above)]
        key = "xerr" if chart.horizontal else "yerr"
        axes.errorbar(x, y, **{key: around}, fmt="none", ecolor=one.colour, elinewidth=1.8)
    axes.plot(
        x,
        y,
        "*" if one.kind == "star" else "o",
        color=one.colour,
        markersize=12 if one.kind == "star" else 6,
        label=one.name,
    )
    for note, across, up in zip(one.notes, x, y, strict=bool(one.notes)):
        axes.annotate(note, (across, up), xytext=(8, 0), textcoords="offset points", va="center", fontsize=9)


def _finish(axes: Any, chart: Chart, place: dict[Any, int] | None) -> None:
    from matplotlib.ticker import PercentFormatter

    lines = bool(chart.about) + chart.legend
    axes.set_title(chart.title, pad=8 + 15 * lines)
    if chart.about:
        above = {"xycoords": "axes fraction", "textcoords": "offset points", "fontsize": 9.5, "color": "#3d454d"}
        axes.annotate(chart.about, (0, 1), xytext=(0, 6 + 15 * chart.legend), **above)
    axes.set(xlabel=chart.x_title, ylabel=chart.y_title)
    values, names = (axes.xaxis, axes.yaxis) if chart.horizontal else (axes.yaxis, axes.xaxis)
    names.grid(False)
    if place is not None:
        every = 1 if chart.horizontal else -(-len(place) // _MOST_TICKS)
        names.set_ticks(range(0, len(place), every), [str(name) for name in place][::every])
    if chart.share:
        values.set_major_formatter(PercentFormatter(1, decimals=0))
    if chart.extent:
        (axes.set_xlim if chart.horizontal else axes.set_ylim)(chart.extent)
    if chart.zero:
        (axes.axvline if chart.horizontal else axes.axhline)(0, color="#7d8590", linewidth=1)
    if chart.horizontal:
        axes.set_ylim(len(chart.rows) - 0.4, -0.6)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
    if chart.series and chart.series[0].kind == "bar":
        values.set_visible(False)
        axes.spines["bottom"].set_visible(False)
        axes.margins(x=0.15)
    if chart.legend:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, frameon=False, fontsize=9, borderaxespad=0.2)
    _label_lines(axes, chart, place)
    for number, text in enumerate(chart.beside):
        axes.annotate(text, (1, number), xycoords=("axes fraction", "data"), xytext=(8, 0), **_BESIDE)


def _label_lines(axes: Any, chart: Chart, place: dict[Any, int] | None) -> None:
    lines = [one for one in chart.series if one.labelled and len(one.x)]
    if not lines:
        return
    lowest, highest = axes.get_ylim()
    heights = spread_out([one.y[-1] for one in lines], 0.075 * (highest - lowest))
    end = len(place) - 1 if place else max(one.x[-1] for one in lines)
    for one, height in zip(lines, heights, strict=True):
        axes.annotate(
            one.name,
            (end, height),
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            color=one.colour,
            fontsize=9,
        )


def _saved(figure: Any) -> dict[str, bytes]:
    """The files, without the time of their making."""
    files = {}
    for ending, about in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=ending, dpi=_DOTS, metadata=about)
        files[ending] = buffer.getvalue()
    return files
