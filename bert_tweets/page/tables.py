"""Tables: the numbers behind the charts, as texts in cells. Sentences come from words/analysis/verdicts.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bert_tweets.corpus.shards.funnel import NOTE_TEXTS, REASON_TEXTS, Funnel
from bert_tweets.training.records import Evaluation
from bert_tweets.words.analysis.records import ChangeRow, RegressionRow, Sense, WordSenses
from bert_tweets.words.analysis.verdicts import (
    criterion_text,
    exchange_unit_text,
    rank_text,
    reason_text,
    verdict_label,
)

from .names import short_name

_MAX_LISTED = 8
_MAX_Q = 0.05


@dataclass(frozen=True)
class Table:
    """A table. The first cell of a row is its header; a row of one cell is a header of the rows below it.

    Attributes:
        numeric: indices of the columns with numbers.
        emphasized: number of the row in bold; None: no such row.
        note: a sentence below the table.
    """

    caption: str
    columns: list[str]
    numeric: range
    rows: list[list[str]]
    emphasized: int | None = None
    note: str = ""


def comparison_table(caption: str, rows: Sequence[ChangeRow], with_rank: bool) -> Table:
    """The tests of change.json, with a column of ranks if there are control words."""
    units = ", or ".join(dict.fromkeys(exchange_unit_text(row["exchange_unit"]) for row in rows))
    columns = ["word", "groups", "energy distance", "95\u00a0% interval", "p", "q", *(["rank"] if with_rank else [])]
    columns += ["tweets", "clusters", "authors", "verdict"]
    return Table(
        caption=caption,
        columns=columns,
        numeric=range(2, len(columns) - 1),
        rows=[_comparison(row, with_rank) for row in rows],
        note=f"p-values: permutation of {units}. q-values: false discovery rate over all words and contrasts.",
    )


def _comparison(row: ChangeRow, with_rank: bool) -> list[str]:
    groups = row["groups"]
    span = f"{groups[0]}\u00a0…\u00a0{groups[-1]}" if len(groups) > 2 else "\u00a0–\u00a0".join(groups)
    interval = "–" if row["low"] is None or row["high"] is None else f"{row['low']:.3f} to {row['high']:.3f}"
    return [
        *(row["word"], span, _number(row["estimate"], 3), interval, _number(row["p_value"]), _number(row["q_value"])),
        *([rank_text(row) or "–"] if with_rank else []),
        *(f"{row['n']:,}", f"{row['clusters']:,}", _count(row["authors"]), verdict_label(row["verdict"])),
    ]


def senses_table(senses: dict[str, WordSenses]) -> Table:
    """The usage clusters of each word, under a header of the word."""
    rows = []
    usual = usual_criterion(senses)
    for word, of_word in senses.items():
        count = "one usage cluster" if of_word["count"] == 1 else f"{of_word['count']} usage clusters"
        reason = f"{criterion_text(of_word)}; " if criterion_text(of_word) != usual else ""
        rows.append([f"{word}: {count} ({reason}stability {of_word['stability']:.2f})"])
        rows += [_sense(one) for one in of_word["senses"]]
    return Table(
        caption="Usage clusters of each word",
        columns=["cluster", "occurrences", "authors", "share", "nearest words", "substitutes", "associated with"],
        numeric=range(1, 4),
        rows=rows,
        note="Substitutes: words that the masked-LM head most often predicts in place of the word. Associated with: "
        "covariates associated with the cluster at a false discovery rate of 5 %; a cluster associated with links or "
        "tweet length reflects form, not meaning.",
    )


def _sense(one: Sense) -> list[str]:
    associations = [each for each in one["associations"] if each["q_value"] is not None and each["q_value"] <= _MAX_Q]
    return [
        *(one["name"], f"{one['size']:,}", _count(one["authors"]), f"{one['share']:.1%}"),
        ", ".join(one["words"][:_MAX_LISTED]) or "–",
        ", ".join(word for word, _ in one["substitutes"][:_MAX_LISTED]) or "–",
        "; ".join(f"{each['covariate']} (q = {each['q_value']:.2g})" for each in associations) or "–",
    ]


def usual_criterion(senses: dict[str, WordSenses]) -> str:
    """How the number of usage clusters was chosen for most words."""
    texts = [criterion_text(one) for one in senses.values()]
    return max(dict.fromkeys(texts), key=texts.count)


def regression_table(rows: Sequence[RegressionRow]) -> Table:
    return Table(
        caption="Partial effects",
        columns=["word", "covariate", "partial R²", "p", "q", "tweets", "clusters", "authors", "permuted"],
        numeric=range(2, 8),
        rows=[
            [
                *(row["word"], row["term"], _number(row["estimate"]), _number(row["p_value"]), _number(row["q_value"])),
                *(f"{row['n']:,}", f"{row['clusters']:,}", _count(row["authors"])),
                reason_text(row["reason"]) if row["reason"] else exchange_unit_text(row["exchange_unit"]),
            ]
            for row in rows
        ],
    )


def evaluation_table(evaluation: Evaluation) -> Table:
    rows, difference, excluded = [], evaluation.difference, evaluation.excluded_base
    for role, scores in (("before", evaluation.base), ("after", evaluation.model)):
        if scores:
            interval = f"{scores.low:.4f} to {scores.high:.4f}"
            figures = [f"{scores.loss:.4f}", interval, f"{scores.perplexity:.2f}", f"{scores.accuracy:.2%}"]
            rows.append([f"{role}: {short_name(scores.name)}", *figures])
    if excluded:
        # No figure of a base that is not comparable, because a reader would subtract it.
        rows.insert(0, [f"before: {short_name(excluded.name)}", f"not comparable: {excluded.reason}", "–", "–", "–"])
    note = "Loss in nats per masked token; lower is better."
    if difference:
        interval = f"{difference.low:+.4f} to {difference.high:+.4f}"
        rows.append(["difference", f"{difference.loss:+.4f}", interval, "", f"{100 * difference.accuracy:+.2f} points"])
        note += (
            f" The interval of the difference is a paired bootstrap ({difference.samples:,} samples of "
            f"{difference.clusters:,} near-duplicate clusters)."
        )
    return Table(
        caption="Prediction of masked tokens",
        columns=["model", "loss", "95\u00a0% interval", "perplexity", "accuracy"],
        numeric=range(1, 5),
        rows=rows,
        emphasized=len(rows) - 1 if difference else None,
        note=note,
    )


def funnel_table(funnel: Funnel) -> Table:
    """Rows read, dropped and kept, and the splits."""
    rows = funnel_rows(funnel)
    notes = [f"{NOTE_TEXTS[note]}: {count:,}" for note, count in funnel.notes.items() if count]
    return Table(
        caption="Rows read, dropped and kept",
        columns=["rows", "number", "share of rows read"],
        numeric=range(1, 3),
        rows=[[name, f"{count:,}", f"{count / max(1, funnel.read):.1%}"] for name, count, _ in rows],
        emphasized=[kind for _, _, kind in rows].index("kept"),
        note=f"Notes on tweets that were kept: {'; '.join(notes)}." if notes else "",
    )


RowKind = Literal["read", "dropped", "kept"]


def funnel_rows(funnel: Funnel) -> list[tuple[str, int, RowKind]]:
    """Rows read, dropped by reason, kept, and in each split: name, count and kind."""
    rows: list[tuple[str, int, RowKind]] = [("rows read", funnel.read, "read")]
    rows += [(f"dropped: {REASON_TEXTS[why]}", count, "dropped") for why, count in funnel.dropped.items() if count]
    rows.append(("tweets kept", funnel.kept, "kept"))
    titles = {"train": "for training", "validation": "held out for validation"}
    return rows + [(titles.get(name, name), split.tweets, "kept") for name, split in funnel.splits.items()]


def _number(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _count(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"
