"""Charts of the corpus and the training."""

from __future__ import annotations

from bert_tweets.corpus.shards.funnel import Funnel

from .charts import BLUE, GREY, ORANGE, Chart, Series, transposed
from .inputs import StudyRecords
from .tables import funnel_rows


def loss_chart(study: StudyRecords) -> Chart:
    """Training and validation loss by step, with a star at the exported step."""
    training = [(line["step"], loss) for line in study.training if (loss := line["loss_mean"]) is not None]
    validation = [(line["step"], loss) for line in study.validation if (loss := line["validation_loss"]) is not None]
    series = []
    for name, points, colour in (("training", training, BLUE), ("validation", validation, ORANGE)):
        if points:
            steps, losses = transposed(points)
            series.append(Series(name, "line", steps, losses, colour=colour))
    ends = [f"{one.name} from {one.y[0]:.3f} to {one.y[-1]:.3f}" for one in series]
    for step, loss in validation:
        if step == study.run.best_step:
            series.append(Series(f"exported: step {step}", "star", [step], [loss], colour=ORANGE))
    return Chart(
        name="loss",
        title="Loss by optimizer step",
        alt=f"Loss by optimizer step: {'; '.join(ends) or 'nothing was logged'}.",
        series=series,
        x_title="optimizer step",
        y_title="loss (nats per masked token)",
        legend=True,
    )


def funnel_chart(funnel: Funnel) -> Chart:
    """Bars of the rows read, dropped and kept."""
    colours, rows = {"read": GREY, "dropped": ORANGE, "kept": BLUE}, funnel_rows(funnel)
    bars = [(kind, [count], [name], [f"{count:,}"]) for name, count, kind in rows]
    return Chart(
        name="funnel",
        title="Rows read, dropped and kept",
        alt=f"Bars of {len(rows)} counts, from rows read to tweets used; the table below has the numbers.",
        series=[Series(kind, "bar", x, y, colour=colours[kind], notes=notes) for kind, x, y, notes in bars],
        horizontal=True,
    )
