"""Drawing of charts by matplotlib: each figure once, as SVG for the page and as PNG, SVG and PDF files for a paper."""

from __future__ import annotations

import io
import math
import re
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from .charts import COLOURS, Chart, Series, spread_out
from .libraries import missing_extra
from .maps import WordMap

ENDINGS = ("png", "svg", "pdf")

_DPI = 200
_RAMP = ("#9ecae1", "#4292c6", "#084081")  # early to late, as on the page
_INK, _SOFT, _GRID = "#1c2127", "#3d454d", "#dde1e6"
# Colours of the files that are variables of the style sheet on the page, which may be dark.
_ON_PAGE = {_INK: "currentColor", _SOFT: "var(--soft)", _GRID: "var(--line)", "#ffffff": "none"}
_NOTE: dict[str, Any] = {"textcoords": "offset points", "va": "center"}
_STYLE = {
    "figure.facecolor": "#ffffff",
    "axes.facecolor": "#ffffff",
    "savefig.facecolor": "#ffffff",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#7d8590",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "grid.color": _GRID,
    "grid.linewidth": 0.7,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "text.color": _INK,
    "axes.labelcolor": _SOFT,
    "font.size": 9.5,
    "text.parse_math": False,  # a $ in a word is a $
    "svg.fonttype": "none",
    "pdf.fonttype": 42,  # TrueType: publishers reject Type 3 fonts
}


@dataclass(frozen=True)
class Picture:
    """A drawn chart.

    Attributes:
        name, title, alt, small: see `Chart`.
        svg: for the page, without a title; its colours follow the page's style sheet.
        files: for a paper, by ending; empty if they were not asked for.
    """

    name: str
    title: str
    alt: str
    svg: str
    files: dict[str, bytes]
    small: bool = False


def draw_chart(chart: Chart, files: bool) -> Picture:
    """Draw a chart, its texts literally, and on demand also the files for a paper.

    Raises:
        UserError: matplotlib is not installed.
    """
    with _style(chart.name):
        from matplotlib.figure import Figure

        height = 0.75 + 0.3 * len(chart.categories) if chart.horizontal else 2.4 if chart.small else 3.2
        figure = Figure(figsize=(3.1 if chart.small else 6.9, height), layout="constrained")
        axes = figure.add_subplot()
        place = {name: number for number, name in enumerate(chart.categories)} if chart.is_categorical else None
        for one in chart.series:
            _draw_series(axes, chart, one, place)
        _draw_axes(axes, chart, place)
        _label_lines(axes, chart, place)
        svg = _page_svg(figure)
        saved = {}
        if files:
            # The legend stands between title and chart.
            legend = 15 * -(-len(axes.get_legend_handles_labels()[0]) // _columns(chart)) if chart.legend else 0
            figure.set_figheight(height + 0.3)
            axes.set_title(_label(chart.title), pad=8 + legend)
            saved = _saved(figure)
        return Picture(chart.name, chart.title, chart.alt, svg, saved, chart.small)


def draw_map(word: WordMap, column: str, name: str, title: str, alt: str) -> Picture:
    """Draw the maps of a word next to each other, coloured by one column of `word.columns`; for files only."""
    with _style(name):
        import numpy as np
        from matplotlib.colors import LinearSegmentedColormap
        from matplotlib.figure import Figure

        count = len(word.spaces)
        figure = Figure(figsize=(3.3 * count + 0.8, 3.6), layout="constrained")
        panels = figure.subplots(1, count, squeeze=False)[0]
        values = word.columns[column]
        ramp = LinearSegmentedColormap.from_list("time", _RAMP)
        figure.suptitle(_label(title), fontsize=11, fontweight="bold", x=0.01, ha="left")
        for axes, space in zip(panels, word.spaces, strict=True):
            axes.set_title(space.title, fontsize="medium", fontweight="normal")
            axes.set(xticks=[], yticks=[], aspect="equal", xlim=(-1.08, 1.08), ylim=(-1.08, 1.08))
            axes.spines[:].set(visible=True, color="#d9dee3")
            axes.grid(False)
            # Thousands of points are an image within the SVG, which would otherwise have megabytes.
            marks: dict[str, Any] = {"s": 9, "linewidths": 0, "alpha": 0.75, "rasterized": len(space.points) > 500}
            for number, value in enumerate(values.names):
                rows = np.flatnonzero(values.codes == number)
                colour = COLOURS[number % len(COLOURS)]
                axes.scatter(*space.points[rows].T, color=colour, label=_label(value), **marks)
            if not values.names:
                known = np.flatnonzero(values.codes >= 0)
                drawn = axes.scatter(*space.points[known].T, c=values.codes[known], cmap=ramp, **marks)
        if values.names:
            handles = panels[0].get_legend_handles_labels()
            figure.legend(*handles, loc="outside right center", frameon=False, markerscale=2)
        elif (values.codes >= 0).any():
            bar = figure.colorbar(drawn, ax=panels, fraction=0.03)
            bar.ax.yaxis.set_major_formatter(lambda day, _: (date(1970, 1, 1) + timedelta(int(day))).isoformat()[:7])
        return Picture(name, title, alt, "", _saved(figure))


@contextmanager
def _style(name: str) -> Iterator[None]:
    try:
        import matplotlib
    except ImportError:
        raise missing_extra("matplotlib") from None
    # The salt makes ids in SVGs reproducible, and distinct between the charts of one page.
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # If the font lacks a character (an emoji), PNG and PDF show an empty box, and the SVG has the character.
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def _label(text: str, small: bool = False) -> str:
    """A text short enough for the chart, without control characters, which XML cannot hold."""
    length = 16 if small else 40
    text = "".join("\ufffd" if unicodedata.category(one) in ("Cc", "Cs") else one for one in text)
    # The end of the name of a usage cluster is its number.
    text = text if len(text) <= length else f"{text[: length - 5]}…{text[-4:]}"
    # Legends of matplotlib leave out labels that begin with an underscore.
    return f"\u200b{text}" if text.startswith("_") else text


def _draw_series(axes: Any, chart: Chart, one: Series, place: dict[Any, int] | None) -> None:
    def located(values: Sequence[Any]) -> Sequence[Any]:
        return values if place is None else [place[value] for value in values]

    x, y = (one.x, located(one.y)) if chart.horizontal else (located(one.x), one.y)
    name = _label(one.name, chart.small)
    if one.kind == "band":
        axes.fill_between(x, one.low, one.high, color=one.colour, alpha=0.22, linewidth=0, label=name)
    elif one.kind == "range":
        axes.hlines(y, one.low, one.high, color=one.colour, alpha=0.35, linewidth=8)
        axes.plot(x, y, "|", color=one.colour, markersize=11, markeredgewidth=2, label=name)
    elif one.kind == "strip":
        # One path with gaps: a marker for each of thousands of control words would make a large SVG.
        ticks = {"x": [end for value in x for end in (value, value, math.nan)]}
        ticks["y"] = [end for row in y for end in (row - 0.18, row + 0.18, math.nan)]
        axes.plot(*ticks.values(), color=one.colour, linewidth=0.8, alpha=0.6, label=name)
    elif one.kind == "bar":
        axes.bar_label(axes.barh(y, x, color=one.colour, height=0.65), one.notes, padding=4)
    elif one.kind == "line":
        marks = {"marker": "o", "markersize": 4} if len(x) < 25 else {}
        axes.plot(x, y, color=one.colour, linewidth=1.8, label=name, **marks)
    else:
        if one.low:
            values = x if chart.horizontal else y
            # An interval may lie next to its estimate: then the nearer end has no length.
            below = [max(0.0, value - low) for value, low in zip(values, one.low, strict=True)]
            above = [max(0.0, high - value) for value, high in zip(values, one.high, strict=True)]
            ends = {"xerr" if chart.horizontal else "yerr": [below, above]}
            axes.errorbar(x, y, **ends, fmt="none", ecolor=one.colour, elinewidth=1.8)
        shape: dict[str, Any] = {"marker": "*", "ms": 12} if one.kind == "star" else {"marker": "o", "ms": 6}
        axes.plot(x, y, color=one.colour, linestyle="none", label=name, **shape)


def _draw_axes(axes: Any, chart: Chart, place: dict[Any, int] | None) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.set(xlabel=_label(chart.x_title), ylabel=chart.y_title)
    values, names = (axes.xaxis, axes.yaxis) if chart.horizontal else (axes.yaxis, axes.xaxis)
    names.grid(False)
    if place is not None:
        # Names that are next to each other must not overlap.
        every = 1 if chart.horizontal else -(-len(place) // (4 if chart.small else 8))
        names.set_ticks(range(0, len(place), every), [_label(str(name), chart.small) for name in place][::every])
    if chart.share:
        values.set_major_formatter(PercentFormatter(1, decimals=0))
    if chart.extent:
        (axes.set_xlim if chart.horizontal else axes.set_ylim)(chart.extent)
    if chart.zero:
        (axes.axvline if chart.horizontal else axes.axhline)(0, color="#7d8590", linewidth=1)
    if chart.horizontal:
        axes.set_ylim(len(chart.categories) - 0.4, -0.6)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
    if chart.series and chart.series[0].kind == "bar":
        values.set_visible(False)
        axes.spines["bottom"].set_visible(False)
        axes.margins(x=0.15)
    if chart.legend:
        place_above: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
        axes.legend(ncols=_columns(chart), frameon=False, **place_above)
    for number, text in enumerate(chart.row_notes):
        axes.annotate(_label(text), (1, number), xycoords=("axes fraction", "data"), xytext=(8, 0), **_NOTE)


def _columns(chart: Chart) -> int:
    return 2 if chart.small else 3


def _label_lines(axes: Any, chart: Chart, place: dict[Any, int] | None) -> None:
    """Write the names of labelled lines at their right ends."""
    lines = [one for one in chart.series if one.labelled and len(one.x)]
    lowest, highest = axes.get_ylim()
    heights = spread_out([one.y[-1] for one in lines], 0.1 * (highest - lowest))
    for one, height in zip(lines, heights, strict=True):
        end = len(place) - 1 if place else max(each.x[-1] for each in lines)
        axes.annotate(_label(one.name, chart.small), (end, height), xytext=(9, 0), **_NOTE)


def _page_svg(figure: Any) -> str:
    """SVG to stand in an HTML page: no prolog, no ids of groups, no rules that would apply to the rest of the page."""
    text = _save(figure, "svg").decode()
    text = re.sub(r"<(metadata|style)\b.*?</\1>\s*", "", text[text.index("<svg") :], flags=re.S)
    # Texts hold no < or >: matplotlib escapes them.
    return re.sub(r"<[^>]+>", lambda tag: _page_tag(tag[0]), text)


def _page_tag(tag: str) -> str:
    tag = re.sub(r' id="[\w.]+_\d+"', "", tag)
    return re.sub("|".join(_ON_PAGE), lambda colour: _ON_PAGE[colour[0]], tag)


def _saved(figure: Any) -> dict[str, bytes]:
    files = {}
    for ending in ENDINGS:
        files[ending] = _save(figure, ending)
        figure.set_layout_engine("none")  # the layout of the first file holds for all
    return files


def _save(figure: Any, ending: str) -> bytes:
    """A file of the figure, without the time of its making: the same chart gives the same bytes."""
    fields = {"png": ("Software",), "svg": ("Date", "Creator"), "pdf": ("CreationDate", "Creator", "Producer")}
    buffer = io.BytesIO()
    figure.savefig(buffer, format=ending, dpi=_DPI, metadata=dict.fromkeys(fields[ending]))
    return buffer.getvalue()
