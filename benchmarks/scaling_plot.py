"""A plot of the results of `benchmarks.scaling`: the parts of the measured step, and the model's predictions."""

from __future__ import annotations

from typing import Any

from benchmarks import scaling_cluster
from benchmarks.common import ROOT, Row, load_pyplot, rows_of_kind

_PARTS = {"compute": "#1f6feb", "waiting": "#f2a33a", "exposed": "#d1495b", "data": "#8a939e"}
_COLOURS = dict(zip(scaling_cluster.WEAK_TOKENS, ("#d1495b", "#1f6feb"), strict=True))
_STYLES = dict(zip(scaling_cluster.NETWORKS, ("-", ":"), strict=True))


def plot(rows: list[Row], output: str) -> None:
    """Plot the measured step, weak scaling and strong scaling side by side, if matplotlib is installed."""
    steps, predicted = (rows_of_kind(rows, kind) for kind in ("step", "predicted"))
    pyplot = load_pyplot() if steps else None
    if pyplot is None:
        return
    figure, axes = pyplot.subplots(1, 3, figsize=(16, 4.6), layout="constrained")
    _measured(axes[0], steps)
    _weak(axes[1], [row for row in predicted if row["scaling"] == "weak"])
    _strong(axes[2], [row for row in predicted if row["scaling"] == "strong"])
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=9)
    figure.savefig(ROOT / f"{output}.png", dpi=140)
    pyplot.close(figure)


def _measured(axis: Any, steps: list[Row]) -> None:
    """Milliseconds of a step per 1,000 tokens of a rank, so that steps of all sizes are comparable."""
    several = len({(row["precision"], row["gradients"]) for row in steps}) > 1
    ordered = sorted(steps, key=lambda row: (row["precision"], row["gradients"], row["tweets_per_rank"], row["ranks"]))
    names = [
        f"{row['ranks']} × {row['tweets_per_rank']} tweets"
        + (f", {row['precision']}/{row['gradients']}" if several else "")
        for row in ordered
    ]
    left = [0.0] * len(ordered)
    for part, colour in _PARTS.items():
        values = [1e6 * row[f"{part}_seconds"] / row["tokens_per_rank"] for row in ordered]
        axis.barh(names, values, left=left, color=colour, height=0.7, label=part)
        left = [before + value for before, value in zip(left, values, strict=True)]
    axis.invert_yaxis()
    axis.set_title(f"Measured: {ordered[0]['model']} on ranks pinned to one core each", fontsize=10, loc="left")
    axis.set_xlabel("milliseconds of a step per 1,000 real tokens of a rank", fontsize=9)
    axis.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=4)


def _weak(axis: Any, rows: list[Row]) -> None:
    for (tokens, network), style in (
        ((tokens, network), style) for tokens in _COLOURS for network, style in _STYLES.items()
    ):
        for gradients, width in (("fp32", 1.8), ("bf16", 0.9)):
            curve = [
                row
                for row in rows
                if (row["tokens_per_gpu"], row["network"], row["gradients"]) == (tokens, network, gradients)
            ]
            label = f"{tokens:,} tokens per GPU, {network}, {gradients}"
            values = [row["efficiency"] for row in curve]
            axis.plot([row["gpus"] for row in curve], values, style, color=_COLOURS[tokens], lw=width, label=label)
    axis.set_ylim(0, 1)
    axis.set_title("Predicted: BERT-base, weak scaling, efficiency", fontsize=10, loc="left")
    _gpus(axis)


def _strong(axis: Any, rows: list[Row]) -> None:
    rate = scaling_cluster.ASSUMED["rate"].value / 1e6
    axis.plot(
        scaling_cluster.GPUS,
        [rate * gpus for gpus in scaling_cluster.GPUS],
        color="#b8bec6",
        label="linear scaling",
    )
    for network, style in _STYLES.items():
        for gradients, width in (("fp32", 1.8), ("bf16", 0.9)):
            curve = [row for row in rows if (row["network"], row["gradients"]) == (network, gradients)]
            values = [row["tokens_per_second"] / 1e6 for row in curve]
            label = f"{network}, {gradients}"
            axis.plot([row["gpus"] for row in curve], values, style, color="#1f6feb", lw=width, label=label)
    axis.set_yscale("log")
    title = f"Predicted: strong scaling, {scaling_cluster.STRONG_TWEETS:,} tweets per step, million tokens/s"
    axis.set_title(title, fontsize=10, loc="left")
    _gpus(axis)


def _gpus(axis: Any) -> None:
    axis.set_xscale("log", base=2)
    axis.set_xticks(scaling_cluster.GPUS, [f"{gpus:,}" for gpus in scaling_cluster.GPUS])
    axis.set_xlabel("GPUs", fontsize=9)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=7, frameon=False, loc="lower left" if axis.get_yscale() == "linear" else "upper left")
