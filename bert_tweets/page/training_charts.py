"""Charts of the study itself: the losses of its training, and what became of the rows that were read."""

from __future__ import annotations

from typing import Any

from .charts import BLUE, GREY, ORANGE, Chart, Series


def loss_chart(training: list[dict[str, Any]], validation: list[dict[str, Any]], best_step: int | None) -> Chart:
    """Training loss and validation loss by step, the exported step marked.

    Args:
        training: lines of metrics.jsonl.
        validation: lines of validation.jsonl.
        best_step: whose weights were exported; None when there was no validation.
    """
    series = []
    for lines, key, name, colour in (
        (training, "loss_mean", "training", BLUE),
        (validation, "validation_loss", "validation", ORANGE),
    ):
        if lines:
            steps, losses = [line["step"] for line in lines], [line[key] for line in lines]
            series.append(Series(name, "line", steps, losses, colour=colour))
    best = [line for line in validation if line["step"] == best_step]
    if best:
        loss = best[0]["validation_loss"]
        series.append(Series(f"exported: step {best_step}", "star", [best_step], [loss], colour=ORANGE))
    ends = [f"{one.name} from {one.y[0]:.3f} to {one.y[-1]:.3f}" for one in series if one.kind == "line"]
    return Chart(
        name="loss",
        title="Loss by optimizer step",
        alt=f"Loss by optimizer step: {'; '.join(ends) or 'nothing was logged'}.",
        series=series,
        x_title="optimizer step",
        y_title="loss, nats a masked token",
        legend=True,
    )


def funnel_chart(rows: list[dict[str, Any]]) -> Chart:
    """Bars of what was read, dropped and kept.

    Args:
        rows: each with `name`, `count` and `kind` (read, dropped, kept, split), top first.
    """
    colours = {"read": GREY, "dropped": ORANGE, "kept": BLUE, "split": BLUE}
    named = {"read": "read", "dropped": "dropped", "kept": "kept", "split": "kept"}
    series = [
        Series(
            named[row["kind"]],
            "bar",
            [row["count"]],
            [row["name"]],
            colour=colours[row["kind"]],
            notes=[f"{row['count']:,}"],
        )
        for row in rows
    ]
    return Chart(
        name="funnel",
        title="Rows read, dropped and kept",
        alt=f"Bars of {len(rows)} counts, from rows read to tweets used; the table that follows has the numbers.",
        series=series,
        horizontal=True,
    )
