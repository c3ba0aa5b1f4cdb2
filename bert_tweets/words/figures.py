"""Pictures of the page: plotly figures without a background, whose colours the page's style sheet decides."""

from __future__ import annotations

from typing import Any

from ..errors import UserError

# Readable on white and on near-black; text and grid lines take their colour from the page.
BLUE, ORANGE, GREY = "#3b82c4", "#d97706", "#8a929c"

_CONFIG = {"responsive": True, "displayModeBar": False}


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


def missing_extra(library: str) -> UserError:
    return UserError(f"the report needs {library}; install it with: pip install 'bert_tweets[words]'")


def funnel_figure(rows: list[dict[str, Any]]) -> str:
    """Bars of what was read, dropped and kept.

    Args:
        rows: each with `name`, `count` and `kind` (read, dropped, kept, split), top first.

    Returns:
        HTML of the figure, without plotly.js.
    """
    from plotly import graph_objects as go

    colours = {"read": GREY, "dropped": ORANGE, "kept": BLUE, "split": BLUE}
    bars = go.Bar(
        x=[row["count"] for row in rows],
        y=[row["name"] for row in rows],
        orientation="h",
        marker={"color": [colours[row["kind"]] for row in rows]},
        text=[f"{row['count']:,}" for row in rows],
        textposition="outside",
        cliponaxis=False,
        hoverinfo="skip",
    )
    figure = go.Figure(bars)
    most = max((row["count"] for row in rows), default=1)
    # Room at the right for the numbers that stand behind the bars.
    figure.update_xaxes(visible=False, range=[0, 1.25 * max(1, most)], fixedrange=True)
    figure.update_yaxes(autorange="reversed", fixedrange=True, automargin=True, showgrid=False, ticksuffix="  ")
    return _html(figure, "funnel", height=40 + 34 * len(rows))


def loss_figure(training: list[dict[str, Any]], validation: list[dict[str, Any]], best_step: int | None) -> str:
    """Training loss and validation loss by step, the exported step marked.

    Args:
        training: lines of metrics.jsonl.
        validation: lines of validation.jsonl.
        best_step: whose weights were exported; None when there was no validation.

    Returns:
        HTML of the figure, without plotly.js.
    """
    from plotly import graph_objects as go

    figure = go.Figure()
    _line(figure, training, "loss_mean", "training", BLUE, "lines" if len(training) > 1 else "markers")
    _line(figure, validation, "validation_loss", "validation", ORANGE, "lines+markers")
    best = [line for line in validation if line["step"] == best_step]
    if best:
        point = {"size": 13, "symbol": "star", "color": ORANGE}
        figure.add_scatter(
            x=[best_step],
            y=[best[0]["validation_loss"]],
            name=f"exported: step {best_step}",
            mode="markers",
            marker=point,
        )
    figure.update_xaxes(title="optimizer step", fixedrange=True, rangemode="tozero", zeroline=False)
    figure.update_yaxes(title="loss, nats a masked token", fixedrange=True, automargin=True, zeroline=False)
    legend = {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0}
    figure.update_layout(hovermode="x unified", legend=legend)
    return _html(figure, "loss", height=360)


def _line(figure: Any, lines: list[dict[str, Any]], key: str, name: str, colour: str, mode: str) -> None:
    if lines:
        steps, values = [line["step"] for line in lines], [line[key] for line in lines]
        figure.add_scatter(
            x=steps, y=values, name=name, mode=mode, line={"color": colour, "width": 2}, marker={"size": 6}
        )


def _html(figure: Any, name: str, height: int) -> str:
    figure.update_layout(
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": GREY, "family": "system-ui, sans-serif", "size": 13},
        margin={"l": 10, "r": 10, "t": 30, "b": 10},
        height=height,
        showlegend=len(figure.data) > 1,
    )
    figure.update_xaxes(gridcolor="rgba(138,146,156,0.25)", automargin=True)
    figure.update_yaxes(gridcolor="rgba(138,146,156,0.25)")
    # A fixed id: the same study makes the same page.
    return str(figure.to_html(full_html=False, include_plotlyjs=False, config=_CONFIG, div_id=f"figure-{name}"))
