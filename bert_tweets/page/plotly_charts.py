"""Charts drawn by plotly for the page: without a background, their text in the colours of the page's style sheet."""

from __future__ import annotations

from typing import Any

from .charts import GREY, Chart, Series, spread_out
from .libraries import missing_extra

_CONFIG = {"responsive": True, "displayModeBar": False}
_GRID = "rgba(125,133,144,0.28)"
_ROW, _SMALL, _TALL = 30, 230, 320
# Points of a line that are marked.
_MOST_MARKS = 25
_MARKERS: dict[str, dict[str, Any]] = {
    "points": {"size": 9},
    "line": {"size": 6},
    "strip": {"size": 10, "symbol": "line-ns-open", "line": {"width": 1}, "opacity": 0.6},
    "star": {"size": 14, "symbol": "star"},
}


def plotly_script() -> str:
    """plotly.js, whole, to be written into the page once.

    Raises:
        UserError: plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise missing_extra("plotly") from None
    return str(get_plotlyjs())


def draw(chart: Chart) -> str:
    """A chart as HTML, without plotly.js.

    Args:
        chart: its texts are taken as they are: plotly's own markup in them is escaped here.
    """
    from plotly import graph_objects as go

    figure = go.Figure(layout={"template": "none"})
    for one in chart.series:
        for trace in _traces(chart, one):
            figure.add_trace(trace)
    _axes(figure, chart)
    figure.update_layout(
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": GREY, "family": "system-ui, sans-serif", "size": 13},
        margin={"l": 8, "r": 8, "t": 26 if chart.legend else 8, "b": 8},
        height=(70 + _ROW * len(chart.rows)) if chart.horizontal else _SMALL if chart.extent else _TALL,
        showlegend=chart.legend,
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0, "itemclick": False},
        hovermode="closest" if chart.horizontal else "x",
        dragmode=False,
        bargap=0.3,
    )
    _label_lines(figure, chart)
    _label_rows(figure, chart)
    # A fixed id: the same study makes the same page.
    return str(figure.to_html(full_html=False, include_plotlyjs=False, config=_CONFIG, div_id=f"figure-{chart.name}"))


def plain(text: str) -> str:
    """A text in which plotly finds no markup of its own (it draws <b>, <a> and the like)."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _traces(chart: Chart, one: Series) -> list[Any]:
    x, y = _named(one.x), _named(one.y)
    number = "%{x:.1%}" if chart.horizontal else "%{y:.1%}"
    if not chart.share:
        number = number.replace(".1%", ",.4~g")
    around = f" ({{low:{'.1%' if chart.share else '.3g'}}} to {{high:{'.1%' if chart.share else '.3g'}}})"
    hover = [around.format(low=low, high=high) for low, high in zip(one.low, one.high, strict=True)] or [""] * len(
        one.x
    )
    common: dict[str, Any] = {
        "name": plain(one.name),
        "customdata": hover,
        "hovertemplate": f"{plain(one.name)}: {number}%{{customdata}}<extra></extra>",
        "showlegend": chart.legend,
    }
    if one.kind == "band":
        return [_band(one, x, common)]
    if one.kind == "range":
        return _ranges(one, x, y, common)
    if one.kind == "bar":
        return [_bar(one, x, y, common)]
    trace: dict[str, Any] = {
        "type": "scatter",
        "x": x,
        "y": y,
        "mode": "markers" if one.kind != "line" else "lines+markers" if len(x) < _MOST_MARKS else "lines",
        "marker": {**_MARKERS[one.kind], "color": one.colour},
        "line": {"color": one.colour, "width": 2},
        **common,
    }
    if one.notes:
        trace |= {"mode": "markers+text", "text": [f"  {plain(note)}" for note in one.notes], "cliponaxis": False}
        trace["textposition"] = "middle right"
    if one.low and one.kind == "points":
        trace["error_x" if chart.horizontal else "error_y"] = _error(one, one.x if chart.horizontal else one.y)
    if one.kind == "strip":
        trace["hoverinfo"] = "skip"
        del trace["hovertemplate"]
    return [trace]


def _named(values: Any) -> list[Any]:
    return [plain(value) if isinstance(value, str) else value for value in values]


def _error(one: Series, values: Any) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - value for high, value in zip(one.high, values, strict=True)],
        "arrayminus": [value - low for low, value in zip(one.low, values, strict=True)],
        "color": one.colour,
        "thickness": 2,
        "width": 0,
    }


def _band(one: Series, x: list[Any], common: dict[str, Any]) -> dict[str, Any]:
    return {
        **{key: value for key, value in common.items() if key not in ("hovertemplate", "customdata")},
        "type": "scatter",
        "x": [*x, *reversed(x)],
        "y": [*one.high, *reversed(one.low)],
        "mode": "lines",
        "fill": "toself",
        "fillcolor": one.colour,
        "opacity": 0.25,
        "line": {"width": 0, "color": one.colour},
        "hoverinfo": "skip",
    }


def _ranges(one: Series, x: list[Any], y: list[Any], common: dict[str, Any]) -> list[dict[str, Any]]:
    """A thick bar from end to end, and a tick at the value."""
    ends = [end for pair in zip(one.low, one.high, strict=True) for end in (*pair, None)]
    bar = {
        "type": "scatter",
        "x": ends,
        "y": [name for name in y for _ in range(3)],
        "mode": "lines",
        "line": {"color": one.colour, "width": 11},
        "opacity": 0.35,
        "hoverinfo": "skip",
        "showlegend": False,
    }
    tick = {"type": "scatter", "x": x, "y": y, "mode": "markers", **common}
    tick["marker"] = {**_MARKERS["strip"], "size": 12, "opacity": 1, "color": one.colour, "line": {"width": 2}}
    return [bar, tick]


def _bar(one: Series, x: list[Any], y: list[Any], common: dict[str, Any]) -> dict[str, Any]:
    return {
        **common,
        "type": "bar",
        "x": x,
        "y": y,
        "orientation": "h",
        "marker": {"color": one.colour},
        "text": _named(one.notes),
        "textposition": "outside",
        "cliponaxis": False,
        "hoverinfo": "skip",
    }


def _label_lines(figure: Any, chart: Chart) -> None:
    """Names at the right ends of lines, kept apart."""
    lines = [one for one in chart.series if one.labelled and len(one.x)]
    if not lines:
        return
    lowest, highest = chart.extent or (min(min(one.y) for one in lines), max(max(one.y) for one in lines))
    heights = spread_out([one.y[-1] for one in lines], 0.075 * ((highest - lowest) or 1))
    for one, height in zip(lines, heights, strict=True):
        figure.add_annotation(
            x=1.0,
            xref="paper",
            xanchor="left",
            y=height,
            text=f"<b>{plain(one.name)}</b>",
            showarrow=False,
            xshift=6,
            font={"size": 12},
        )
    figure.update_layout(margin={"r": 16 + 8 * max(len(one.name) for one in lines)})


def _label_rows(figure: Any, chart: Chart) -> None:
    for row, text in zip(chart.order, chart.beside, strict=bool(chart.beside)):
        place = {"x": 1.0, "xref": "paper", "xanchor": "left", "y": plain(row), "xshift": 10}
        figure.add_annotation(**place, text=plain(text), showarrow=False, font={"size": 12})
    if chart.beside:
        figure.update_layout(margin={"r": 16 + 7 * max(map(len, chart.beside))})


def _axes(figure: Any, chart: Chart) -> None:
    values: dict[str, Any] = {
        "gridcolor": _GRID,
        "fixedrange": True,
        "automargin": True,
        "zeroline": chart.zero,
        "zerolinecolor": GREY,
    }
    names: dict[str, Any] = {"fixedrange": True, "automargin": True, "showgrid": False, "zeroline": False}
    if chart.is_named:
        rows = _named(chart.rows)
        names |= {"type": "category", "categoryorder": "array", "categoryarray": rows}
        # Room at both ends.
        names["range"] = [-0.35, len(rows) - 0.65]
    else:
        names |= {"rangemode": "tozero"}
    if chart.share:
        values["tickformat"] = ".0%"
    if chart.extent:
        values["range"] = list(chart.extent)
    if not chart.horizontal:
        figure.update_xaxes(title=_title(chart.x_title), **names)
        figure.update_yaxes(title=_title(chart.y_title), **values)
        return
    if chart.series and chart.series[0].kind == "bar":
        values["visible"] = False
    # Room at both ends, and a first row that stands on top.
    names["range"] = [len(chart.rows) - 0.4, -0.6]
    figure.update_xaxes(title=_title(chart.x_title), **values)
    figure.update_yaxes(ticksuffix="  ", **names)


def _title(text: str) -> dict[str, Any]:
    return {"text": plain(text), "font": {"size": 12}, "standoff": 8}
