"""Tables of the results of `benchmarks.scaling`.

python -m benchmarks.scaling_report benchmarks/results/scaling-cpu.json     (rewrites tables and plot from the rows)
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks import scaling_cluster, scaling_plot
from benchmarks.common import ROOT, Row, markdown_table, rows_of_kind

_PARTS = ("compute", "waiting", "exposed", "hidden", "data")


def line(row: Row) -> str:
    """A one-line summary of a row, printed while the benchmark runs."""
    setup = f"{row['precision']}, gradients {row['gradients']}, {row['ranks']} rank(s)"
    if row["kind"] == "step":
        parts = ", ".join(f"{name} {_ms(row[f'{name}_seconds'])}" for name in _PARTS)
        rate = f"{row['tokens_per_second']:,.0f} tokens/s"
        return f"{setup}, {row['tweets_per_rank']} tweets per rank: {rate}; {parts} ms"
    if row["kind"] == "all_reduce":
        return f"{setup}: {row['bytes']:,} bytes reduced in {_ms(row['seconds'])} ms"
    return f"{setup}: counts exchanged in {_ms(row['seconds'])} ms"


def markdown(rows: list[Row]) -> str:
    """All results as tables."""
    steps = rows_of_kind(rows, "step")
    if not steps:
        return "No results."
    first = steps[-1]
    versions = ", ".join(f"{name} {number}" for name, number in first["versions"].items())
    sections = [
        f"# Scaling: {first['model']} on {first['device']}",
        "\n".join(f"    {command}" for command in dict.fromkeys(row["command"] for row in steps)),
        f"Commit {first['commit']}; {versions}.",
        "Rates count real tokens only and are medians of consecutive steps, optimizer included. "
        + ("Each rank is pinned to its own core, with one thread." if first.get("core") is not None else ""),
    ]
    for precision, gradients in dict.fromkeys((row["precision"], row["gradients"]) for row in steps):
        of_setup = [row for row in rows if (row.get("precision"), row.get("gradients")) == (precision, gradients)]
        sections += _measured(of_setup, f"{precision}, gradients exchanged in {gradients}")
        sections += _fit(of_setup)
    return "\n\n".join(sections + _predicted(rows_of_kind(rows, "predicted"))) + "\n"


def pairs(steps: list[Row], scaling: str) -> Iterator[tuple[Row, Row]]:
    """Yield pairs to compare, a row of one rank and a row of several, with equal tweets per rank (weak) or step."""
    single = {row["tweets_per_rank"]: row for row in steps if row["ranks"] == 1}
    for row in steps:
        tweets = row["tweets_per_rank"] * (row["ranks"] if scaling == "strong" else 1)
        if row["ranks"] > 1 and tweets in single:
            yield single[tweets], row


def efficiency(one: Row, several: Row) -> float:
    """Real tokens/s relative to as many times one rank: the median over rounds of turns."""
    rounds = zip(one["turn_rates"], several["turn_rates"], strict=True)
    return float(statistics.median(rate / alone for alone, rate in rounds) / several["ranks"])


def _measured(rows: list[Row], title: str) -> list[str]:
    steps = rows_of_kind(rows, "step")
    sections = [f"## {title}"]
    header = ("tweets per rank", "ranks", "tokens per step", "real tokens/s", "range of turns", "step, ms", *_PARTS)
    cells: list[tuple[str, ...]] = [
        (
            str(row["tweets_per_rank"]),
            str(row["ranks"]),
            f"{row['tokens_per_step']:,.0f}",
            f"{row['tokens_per_second']:,.0f}",
            f"{row['lowest_turn']:,.0f} to {row['highest_turn']:,.0f}",
            f"{row['step_milliseconds']:,.0f}",
            *(_ms(row[f"{name}_seconds"]) for name in _PARTS),
        )
        for row in sorted(steps, key=lambda row: (row["tweets_per_rank"], row["ranks"]))
    ]
    sections.append(markdown_table(header, cells))
    for scaling, same in (("weak", "equal tweets per rank"), ("strong", "equal tweets per step")):
        compared = list(pairs(steps, scaling))
        if compared:
            sizes: list[tuple[str, ...]] = [
                (
                    f"{one['tweets_per_rank']}" + (" per rank" if scaling == "weak" else " per step"),
                    str(row["ranks"]),
                    f"{one['tokens_per_second']:,.0f}",
                    f"{row['tokens_per_second']:,.0f}",
                    f"{efficiency(one, row):.3f}",
                    f"{_compute_per_token(row) / _compute_per_token(one):.3f}",
                )
                for one, row in compared
            ]
            head = ("tweets", "ranks", "one rank", "all ranks", "efficiency", "compute against one rank")
            sections += [f"{scaling.capitalize()} scaling, {same}:", markdown_table(head, sizes)]
    return sections


def _compute_per_token(row: Row) -> float:
    return float(row["compute_seconds"] / row["tokens_per_rank"])


def _fit(rows: list[Row]) -> list[str]:
    if not rows_of_kind(rows, "fit"):
        return []
    (fit,) = rows_of_kind(rows, "fit")
    sentences = [
        f"Fit: a step of one rank takes {_ms(fit['fixed_seconds'])} ms plus its tokens at "
        f"{fit['tokens_per_second']:,.0f} per second, with a standard deviation of {fit['jitter']:.1%}; "
        f"{fit['overlap']:.0%} of the all-reduce time that could be hidden is hidden."
    ]
    sentences += [
        f"{row['ranks']} ranks: all-reduce takes {1e6 * row['latency']:,.0f} µs per message at "
        f"{row['bandwidth'] / 1e9:.2f} GB/s; compute takes {row['compute_slowdown']:.3f} times as long as on one rank."
        for row in rows_of_kind(rows, "link")
    ]
    sentences += [
        f"{row['ranks']} ranks exchange the counts of a step in {1e6 * row['seconds']:,.0f} µs."
        for row in rows_of_kind(rows, "counts")
    ]
    checks: list[tuple[str, ...]] = [
        (
            str(row["tweets_per_rank"]),
            str(row["ranks"]),
            _ms(row["measured_seconds"]),
            _ms(row["model_seconds"]),
            f"{row['model_seconds'] / row['measured_seconds'] - 1:+.1%}",
        )
        for row in sorted(rows_of_kind(rows, "check"), key=lambda row: (row["tweets_per_rank"], row["ranks"]))
    ]
    head = ("tweets per rank", "ranks", "measured parts of the step, ms", "model, ms", "model error")
    return ["\n".join(f"- {sentence}" for sentence in sentences), markdown_table(head, checks)]


def _predicted(rows: list[Row]) -> list[str]:
    if not rows:
        return []
    assumed: list[tuple[str, ...]] = [(one.name, one.text, one.source) for one in scaling_cluster.ASSUMED.values()]
    sections = [
        "## Prediction for BERT-base on 8 to 1,024 GPUs",
        "Predicted, not measured. Imbalance is that of real tweets, dealt by length (`imbalance.json`). Everything "
        "else is assumed:",
        markdown_table(("assumption", "value", "source"), assumed),
        "Times are milliseconds per step; efficiency is relative to one GPU. *Waiting* is imbalance, jitter and "
        "counts that arrive late.",
    ]
    for scaling, tokens in [("weak", tokens) for tokens in scaling_cluster.WEAK_TOKENS] + [("strong", 0)]:
        for gradients in ("fp32", "bf16"):
            curve = [
                row
                for row in rows
                if (row["scaling"], row["gradients"]) == (scaling, gradients)
                and (scaling == "strong" or row["tokens_per_gpu"] == tokens)
            ]
            sections += _prediction(curve, scaling, tokens, gradients)
    return sections


def _prediction(rows: list[Row], scaling: str, tokens: int, gradients: str) -> list[str]:
    first, *others = scaling_cluster.NETWORKS
    of_first, of_other = ([row for row in rows if row["network"] == network] for network in (first, *others))
    title = (
        f"Weak scaling, {tokens:,} tokens per GPU"
        if scaling == "weak"
        else f"Strong scaling, {scaling_cluster.STRONG_TWEETS:,} tweets per step"
    )
    parts = ("compute", "waiting", "exposed", "hidden", "step")
    cells: list[tuple[str, ...]] = [
        (
            f"{row['gpus']:,}",
            f"{row['tokens_per_gpu']:,.0f}",
            *(_ms(row[name]) for name in parts),
            f"{row['tokens_per_second'] / 1e6:,.1f} M",
            f"{row['efficiency']:.1%}",
            f"{other['efficiency']:.1%}",
        )
        for row, other in zip(of_first, of_other, strict=True)
    ]
    header = ("GPUs", "tokens per GPU", *parts, "real tokens/s", "efficiency", f"with {others[0]}")
    return [f"{title}, gradients exchanged in {gradients}:", markdown_table(header, cells)]


def _ms(seconds: float) -> str:
    milliseconds = 1000 * seconds
    digits = 0 if milliseconds >= 100 else 1 if milliseconds >= 1 else 2
    return f"{milliseconds:,.{digits}f}"


def write(rows: list[Row], output: str) -> None:
    """Write the tables next to the JSON file."""
    (ROOT / f"{output}.md").write_text(markdown(rows), encoding="utf-8")


if __name__ == "__main__":
    source = Path(sys.argv[1]).resolve()
    results = json.loads(source.read_text(encoding="utf-8"))
    write(results, str(source.with_suffix("")))
    scaling_plot.plot(results, str(source.with_suffix("")))
    print(markdown(results))
