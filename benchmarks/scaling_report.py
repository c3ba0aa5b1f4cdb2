"""Tables and a picture of what `benchmarks.scaling` found.

python -m benchmarks.scaling_report benchmarks/results/scaling-cpu.json     (both again, from its rows)
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import scaling_cluster, scaling_picture
from benchmarks.common import ROOT, table

Row = dict[str, Any]


def line(row: Row) -> str:
    """A row in a few words, while the benchmark runs."""
    way = f"{row['precision']}, gradients {row['gradients']}, {row['ranks']} rank(s)"
    if row["kind"] == "step":
        return f"{way} of {row['tweets_a_rank']} tweets: {row['tokens_per_second']:,.0f} tokens/s; {_said(row)}"
    if row["kind"] == "all_reduce":
        return f"{way}: {row['bytes']:,} bytes reduced in {_ms(row['seconds'])} ms"
    return f"{way}: counts told in {_ms(row['seconds'])} ms"


def _said(row: Row) -> str:
    names = ("compute", "waiting", "exposed", "hidden", "data")
    return ", ".join(f"{name} {_ms(row[f'{name}_seconds'])}" for name in names) + " ms"


def markdown(rows: list[Row]) -> str:
    """Everything that was found, as tables."""
    steps = _of(rows, "step")
    if not steps:
        return "Nothing was measured."
    first = steps[-1]
    versions = ", ".join(f"{name} {number}" for name, number in first["versions"].items())
    parts = [
        f"# Scaling: {first['model']} on {first['device']}",
        "\n".join(f"    {command}" for command in dict.fromkeys(row["command"] for row in steps)),
        f"Commit {first['commit']}; {versions}.",
        "Real tokens only, each step with its optimizer step; rates are medians of steps that follow each other. "
        + ("Each rank keeps to a core of its own, with one thread." if first.get("core") is not None else ""),
    ]
    for precision, gradients in dict.fromkeys((row["precision"], row["gradients"]) for row in steps):
        of_way = [row for row in rows if (row.get("precision"), row.get("gradients")) == (precision, gradients)]
        parts += _measured(of_way, f"{precision}, gradients exchanged in {gradients}")
        parts += _fit(of_way)
    return "\n\n".join(parts + _predicted(_of(rows, "predicted"))) + "\n"


def _of(rows: list[Row], kind: str) -> list[Row]:
    return [row for row in rows if row["kind"] == kind]


def pairs(steps: list[Row], scaling: str) -> Iterator[tuple[Row, Row]]:
    """A row of one rank and one of several that is compared with it: the same share of each rank, or the same step."""
    ones = {row["tweets_a_rank"]: row for row in steps if row["ranks"] == 1}
    for row in steps:
        tweets = row["tweets_a_rank"] * (row["ranks"] if scaling == "strong" else 1)
        if row["ranks"] > 1 and tweets in ones:
            yield ones[tweets], row


def efficiency(one: Row, several: Row) -> float:
    """Real tokens/s over those of as many ranks alone: median of turns, each beside the one of its round."""
    rounds = zip(one["turn_rates"], several["turn_rates"], strict=True)
    return float(statistics.median(rate / alone for alone, rate in rounds) / several["ranks"])


def _measured(rows: list[Row], title: str) -> list[str]:
    steps = _of(rows, "step")
    parts = [f"## {title}"]
    names = ("compute", "waiting", "exposed", "hidden", "data")
    header = ("tweets a rank", "ranks", "tokens a step", "real tokens/s", "turns", "step, ms", *names)
    cells: list[tuple[str, ...]] = [
        (
            str(row["tweets_a_rank"]),
            str(row["ranks"]),
            f"{row['tokens_per_step']:,.0f}",
            f"{row['tokens_per_second']:,.0f}",
            f"{row['lowest_turn']:,.0f} to {row['highest_turn']:,.0f}",
            f"{row['step_milliseconds']:,.0f}",
            *(_ms(row[f"{name}_seconds"]) for name in names),
        )
        for row in sorted(steps, key=lambda row: (row["tweets_a_rank"], row["ranks"]))
    ]
    parts.append(table(header, cells))
    for scaling, same in (("weak", "the same tweets a rank"), ("strong", "the same tweets a step")):
        compared = list(pairs(steps, scaling))
        if compared:
            sizes: list[tuple[str, ...]] = [
                (
                    f"{one['tweets_a_rank']}" + (" a rank" if scaling == "weak" else " a step"),
                    str(row["ranks"]),
                    f"{one['tokens_per_second']:,.0f}",
                    f"{row['tokens_per_second']:,.0f}",
                    f"{efficiency(one, row):.3f}",
                    f"{_compute_a_token(row) / _compute_a_token(one):.3f}",
                )
                for one, row in compared
            ]
            head = ("tweets", "ranks", "one rank", "all ranks", "of ranks × one", "compute beside alone")
            parts += [f"{scaling.capitalize()} scaling, {same}:", table(head, sizes)]
    return parts


def _compute_a_token(row: Row) -> float:
    return float(row["compute_seconds"] / row["tokens_a_rank"])


def _fit(rows: list[Row]) -> list[str]:
    if not _of(rows, "fit"):
        return []
    (fit,) = _of(rows, "fit")
    said = [
        f"Fitted: a step of one rank takes {_ms(fit['fixed_seconds'])} ms and its tokens at "
        f"{fit['tokens_per_second']:,.0f} a second, with a deviation of {fit['jitter']:.1%}; "
        f"{fit['overlap']:.0%} of the all-reduce that could be hidden is."
    ]
    said += [
        f"{row['ranks']} ranks: all-reduce takes {1e6 * row['latency']:,.0f} µs a message and passes "
        f"{row['bandwidth'] / 1e9:.2f} GB/s; compute takes {row['compute_beside_others']:.3f} of its time alone."
        for row in _of(rows, "link")
    ]
    said += [
        f"{row['ranks']} ranks tell each other the counts of a step in {1e6 * row['seconds']:,.0f} µs."
        for row in _of(rows, "counts")
    ]
    checks: list[tuple[str, ...]] = [
        (
            str(row["tweets_a_rank"]),
            str(row["ranks"]),
            _ms(row["measured_seconds"]),
            _ms(row["model_seconds"]),
            f"{row['model_seconds'] / row['measured_seconds'] - 1:+.1%}",
        )
        for row in sorted(_of(rows, "check"), key=lambda row: (row["tweets_a_rank"], row["ranks"]))
    ]
    head = ("tweets a rank", "ranks", "step taken apart, ms", "by the model, ms", "off by")
    return ["\n".join(f"- {one}" for one in said), table(head, checks)]


def _predicted(rows: list[Row]) -> list[str]:
    if not rows:
        return []
    assumed: list[tuple[str, ...]] = [(one.what, one.shown, one.source) for one in scaling_cluster.ASSUMED.values()]
    parts = [
        "## BERT-base on 8 to 1,024 GPUs, by the model",
        "Predicted, not measured. Imbalance is that of real tweets, dealt by length (`imbalance.json`); all else is "
        "assumed:",
        table(("what", "assumed", "where from"), assumed),
        "Milliseconds of a step and efficiency beside one GPU alone. *Waiting* is imbalance, jitter, and counts that "
        "come late.",
    ]
    for scaling, tokens in [("weak", tokens) for tokens in scaling_cluster.WEAK_TOKENS] + [("strong", 0)]:
        for gradients in ("fp32", "bf16"):
            chosen = [
                row
                for row in rows
                if (row["scaling"], row["gradients"]) == (scaling, gradients)
                and (scaling == "strong" or row["tokens_a_gpu"] == tokens)
            ]
            parts += _prediction(chosen, scaling, tokens, gradients)
    return parts


def _prediction(rows: list[Row], scaling: str, tokens: int, gradients: str) -> list[str]:
    first, *others = scaling_cluster.NETWORKS
    of_first, of_other = ([row for row in rows if row["network"] == network] for network in (first, *others))
    what = (
        f"Weak scaling, {tokens:,} tokens a GPU"
        if scaling == "weak"
        else f"Strong scaling, {scaling_cluster.STRONG_TWEETS:,} tweets a step"
    )
    cells: list[tuple[str, ...]] = [
        (
            f"{row['gpus']:,}",
            f"{row['tokens_a_gpu']:,.0f}",
            *(_ms(row[name]) for name in ("compute", "waiting", "exposed", "hidden", "step")),
            f"{row['tokens_per_second'] / 1e6:,.1f} M",
            f"{row['efficiency']:.1%}",
            f"{other['efficiency']:.1%}",
        )
        for row, other in zip(of_first, of_other, strict=True)
    ]
    parts = ("compute", "waiting", "exposed", "hidden", "step")
    header = ("GPUs", "tokens each", *parts, "real tokens/s", "efficiency", f"with {others[0]}")
    return [f"{what}, gradients exchanged in {gradients}:", table(header, cells)]


def _ms(seconds: float) -> str:
    milliseconds = 1000 * seconds
    digits = 0 if milliseconds >= 100 else 1 if milliseconds >= 1 else 2
    return f"{milliseconds:,.{digits}f}"


def write(rows: list[Row], output: str) -> None:
    """The tables beside the rows."""
    (ROOT / f"{output}.md").write_text(markdown(rows), encoding="utf-8")


if __name__ == "__main__":
    source = Path(sys.argv[1]).resolve()
    found = json.loads(source.read_text(encoding="utf-8"))
    write(found, str(source.with_suffix("")))
    scaling_picture.picture(found, str(source.with_suffix("")))
    print(markdown(found))
