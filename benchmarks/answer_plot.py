"""The figure of `benchmarks.answer`: occurrences of a word, training losses, what was learned, and what changed.

python -m benchmarks.answer_plot benchmarks/results/answer.json     (redraws the .png next to it)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Row, load_pyplot, rows_of_kind

_BLUE, _RED, _ORANGE, _GREY, _GREEN = "#1f6feb", "#d1495b", "#f2a33a", "#8a939e", "#2e8b57"
_LOOPS = {"question": _RED, "inputs as labels": _ORANGE, "padding counted": _GREEN, "corrected loop": _BLUE}
_LINES = {"base": _GREY, "unigram": "#444c56"}


def plot(rows: list[Row], output: Path) -> None:
    """Draw four panels, if matplotlib is installed."""
    pyplot = load_pyplot()
    if pyplot is None:
        return
    figure, axes = pyplot.subplots(2, 2, figsize=(13, 9), layout="constrained")
    _occurrences(axes[0, 0], rows_of_kind(rows, "occurrences"))
    _losses(axes[0, 1], rows_of_kind(rows, "arm"))
    _learned(axes[1, 0], rows_of_kind(rows, "arm"))
    _changed(axes[1, 1], rows_of_kind(rows, "movement"))
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=9)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=110)
    pyplot.close(figure)


def _title(axis: Any, text: str) -> None:
    axis.set_title(text, fontsize=11, loc="left")


def _occurrences(axis: Any, rows: list[Row]) -> None:
    projected = [row for row in rows if "projection" in row]
    if not projected:
        return
    row = projected[-1]
    for (use, points), colour in zip(row["projection"].items(), (_BLUE, _ORANGE), strict=True):
        axis.scatter(*np.array(points).T, s=14, color=colour, alpha=0.7, linewidths=0, label=f"{use} ({len(points)})")
    _title(axis, f"“{row['word']}”: one vector per occurrence, not one per word")
    axis.set_xlabel("first principal component", fontsize=9)
    axis.set_ylabel("second", fontsize=9)
    axis.legend(fontsize=9, frameon=False)


def _losses(axis: Any, rows: list[Row]) -> None:
    first = {row["who"]: row for row in rows if row["seed"] == 0}
    initial = first["base"]["masked"]["loss"]
    for who, colour in _LOOPS.items():
        row = first[who]
        steps, losses = zip(*row["losses"], strict=True)
        axis.plot(steps, [np.nan if loss is None else loss for loss in losses], color=colour, alpha=0.5, linewidth=1)
        curve = [(0, initial), *((point["step"], point["loss"]) for point in row["curve"])]
        curve.append((row["steps"], row["masked"]["loss"]))
        axis.plot(*zip(*curve, strict=True), color=colour, marker="o", markersize=4, linewidth=2, label=who)
    axis.set_yscale("symlog", linthresh=1)
    ticks = [0, 0.5, 1, 2, 5, 10, 20, 50]
    axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_ylim(bottom=0)
    _title(axis, "Thin: loss printed by the loop. Dots: held-out masked loss")
    axis.set_xlabel("steps of 20 tweets", fontsize=9)
    axis.set_ylabel("nats", fontsize=9)
    axis.legend(fontsize=9, frameon=False, ncols=2, loc="upper right")


def _learned(axis: Any, rows: list[Row]) -> None:
    names = [name for name in dict.fromkeys(row["who"] for row in rows) if name not in _LINES]
    values = [[row["masked"]["loss"] for row in rows if row["who"] == name] for name in names]
    colours = [_BLUE if name.startswith(("bert_tweets", "corrected")) else _RED for name in names]
    axis.barh(names, [np.mean(seeds) for seeds in values], color=colours, height=0.6)
    for position, seeds in enumerate(values):
        axis.text(
            max(seeds) + 0.15, position, f"{np.mean(seeds):.2f}", va="center", fontsize=9, backgroundcolor="white"
        )
    for name, colour in _LINES.items():
        line = next(row["masked"]["loss"] for row in rows if row["who"] == name)
        axis.axvline(line, color=colour, linestyle="--", linewidth=1.2, label=f"{name}: {line:.2f}")
    axis.invert_yaxis()
    _title(axis, "What was learned: held-out masked loss")
    axis.set_xlabel("nats per masked token; lower is better", fontsize=9)
    axis.legend(fontsize=9, frameon=False, loc="lower right")


def _changed(axis: Any, rows: list[Row]) -> None:
    if not rows:
        return
    kinds = {"static": (_GREY, "input matrix"), "contextual": (_BLUE, "means of occurrences")}
    for offset, (kind, (colour, label)) in zip((-0.2, 0.2), kinds.items(), strict=True):
        positions = np.arange(len(rows)) + offset
        values = [100 * (1 - row[f"{kind}_overlap"]) for row in rows]
        axis.bar(positions, values, width=0.38, color=colour, label=label)
        for position, value in zip(positions, values, strict=True):
            axis.text(position, value + 0.1, f"{value:.1f} %", ha="center", fontsize=9)
    axis.margins(y=0.15)
    axis.set_xticks(range(len(rows)), [row["who"] for row in rows])
    _title(axis, "Share of the ten nearest neighbours that adaptation replaced")
    axis.set_ylabel("% of neighbours, mean over words", fontsize=9)
    axis.legend(fontsize=9, frameon=False, loc="upper left")


if __name__ == "__main__":
    source = Path(sys.argv[1])
    plot(json.loads(source.read_text())[1:], source.with_suffix(".png"))
