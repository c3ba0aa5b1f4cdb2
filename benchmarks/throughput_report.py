"""Tables and a plot of the results of `benchmarks.throughput`.

python -m benchmarks.throughput_report benchmarks/results/throughput-gpu.json     (rewrites both from the rows)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.common import ROOT, Row, load_pyplot, markdown_table, rows_of_kind

OURS = "bert_tweets"


def line(row: Row) -> str:
    """A one-line summary of a row, printed while the benchmark runs."""
    setup = [str(row[name]) for name in ("attention", "tokens_per_device", "batch_rows") if row.get(name)]
    about = f"{row['kind']}: {row['who']} {row['precision']} {' '.join(setup)}"
    if row.get("skipped"):
        return f"{about}: {row['skipped']}"
    if row["tokens_per_second"] is None:
        return f"{about}: {row.get('tokens_that_fit'):,} tokens"
    mfu = f", MFU {row['mfu']:.1%}" if row["mfu"] else ""
    return f"{about}: {row['tokens_per_second']:,.0f} tokens/s{mfu}, {_size(row['peak_memory_bytes'])}"


def markdown(rows: list[Row]) -> str:
    """All results as tables."""
    if not rows:
        return "No results."
    first = rows[0]
    versions = ", ".join(f"{name} {number}" for name, number in first["versions"].items())
    sections = [
        f"# Throughput: {first['model']} on {first['device']}",
        f"`{first['command']}`, {first['ranks']} rank(s), commit {first['commit']}; {versions}.",
        "Rates count real tokens only and are medians of steps, optimizer included.",
    ]
    comparison = rows_of_kind(rows, "comparison")
    for precision in dict.fromkeys(row["precision"] for row in comparison):
        sections += _comparison([row for row in comparison if row["precision"] == precision], precision)
    sections += _sweep(rows_of_kind(rows, "sweep"))
    sections += _memory(rows_of_kind(rows, "equal_tokens"))
    sections += _fits(rows_of_kind(rows, "fits"))
    skipped = [f"- {line(row)}" for row in rows if row.get("skipped") and row["kind"] != "ladder"]
    if skipped:
        sections += ["## Skipped", "\n".join(skipped)]
    return "\n\n".join(sections) + "\n"


def _completed(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["tokens_per_second"]]


def _comparison(rows: list[Row], precision: str) -> list[str]:
    completed = _completed(rows)
    if not completed:
        return []
    ours = next((row["tokens_per_second"] for row in completed if row["who"] == OURS), None)
    peaks = [completed[0][name] / 1e12 for name in ("matrix_peak", "measured_peak")]
    header = (
        "who",
        "attention",
        "tokens per step",
        "real tokens/s",
        "range of turns",
        "tweets/s",
        "MFU",
        "padding",
        "peak memory",
        "bert_tweets is faster by",
    )
    cells: list[tuple[str, ...]] = [
        (
            row["who"],
            row["attention"] or "",
            f"{row['tokens_per_step']:,.0f}",
            f"{row['tokens_per_second']:,.0f}",
            f"{row['lowest_turn']:,.0f} to {row['highest_turn']:,.0f}",
            f"{row['tweets_per_second']:,.0f}",
            f"{row['mfu']:.1%}" if row["mfu"] else "",
            f"{row['padding_fraction']:.1%}",
            _size(row["peak_memory_bytes"]),
            f"{ours / row['tokens_per_second']:.2f} ×" if ours and row["who"] != OURS else "",
        )
        for row in completed
    ]
    section = [f"## {precision}, in turns", markdown_table(header, cells)]
    section.append(f"MFU refers to a matrix peak of {peaks[0]:,.3g} TFLOP/s; a plain product reached {peaks[1]:,.3g}.")
    for row in completed:
        if row.get("milliseconds_by_phase"):
            phases = ", ".join(f"{name} {value:,.1f}" for name, value in row["milliseconds_by_phase"].items())
            section.append(f"Milliseconds of our step ({row['step_milliseconds']:,.1f} in the turns): {phases}.")
    return section


def _sweep(rows: list[Row]) -> list[str]:
    header = (
        "changed",
        "precision",
        "attention",
        "tokens per device",
        "real tokens/s",
        "MFU",
        "padding",
        "peak memory",
    )
    cells: list[tuple[str, ...]] = [
        (
            row["sweep"],
            row["precision"],
            row["attention"],
            f"{row['tokens_per_device']:,}",
            f"{row['tokens_per_second']:,.0f}",
            f"{row['mfu']:.1%}" if row["mfu"] else "",
            f"{row['padding_fraction']:.1%}",
            _size(row["peak_memory_bytes"]),
        )
        for row in _completed(rows)
    ]
    return ["## Our step, one setting changed at a time", markdown_table(header, cells)] if cells else []


def _memory(rows: list[Row]) -> list[str]:
    cells: list[tuple[str, ...]] = [
        (row["who"], f"{row['tokens_per_step']:,.0f}", _size(row["peak_memory_bytes"])) for row in _completed(rows)
    ]
    header = ("who", "real tokens per step", "peak memory")
    return (
        [f"## Peak memory at about equal tokens, {rows[0]['precision']}", markdown_table(header, cells)]
        if cells
        else []
    )


def _fits(rows: list[Row]) -> list[str]:
    cells: list[tuple[str, ...]] = [
        (
            row["who"],
            f"{row['tokens_that_fit']:,}",
            f"{row['positions_that_fit']:,}",
            f"{row['tokens_that_do_not_fit']:,}" if row["tokens_that_do_not_fit"] else "not reached",
            _size(row["peak_memory_bytes"]),
        )
        for row in rows
        if row.get("tokens_that_fit")
    ]
    header = ("who", "real tokens that fit in a step", "positions", "tokens that did not fit", "peak memory")
    return [f"## Tokens that fit, {rows[0]['precision']}", markdown_table(header, cells)] if cells else []


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB"


def write(rows: list[Row], output: str) -> None:
    """Write the tables next to the JSON file."""
    (ROOT / f"{output}.md").write_text(markdown(rows), encoding="utf-8")


def plot(rows: list[Row], output: str) -> None:
    """Plot bars of real tokens per second, with a panel per precision, if matplotlib is installed."""
    completed = _completed(rows_of_kind(rows, "comparison"))
    pyplot = load_pyplot() if completed else None
    if pyplot is None:
        return
    precisions = list(dict.fromkeys(row["precision"] for row in completed))
    fastest = max(row["tokens_per_second"] for row in completed)
    height = 1.3 + 0.5 * max(sum(row["precision"] == precision for row in completed) for precision in precisions)
    figure, axes = pyplot.subplots(
        1, len(precisions), figsize=(1.5 + 5.5 * len(precisions), height), squeeze=False, layout="constrained"
    )
    for axis, precision in zip(axes[0], precisions, strict=True):
        of_precision = [row for row in completed if row["precision"] == precision][::-1]
        rates = [row["tokens_per_second"] for row in of_precision]
        names = [row["who"].replace("_", " " if row["who"] != OURS else "_") for row in of_precision]
        colours = ["#1f6feb" if row["who"] == OURS else "#b8bec6" for row in of_precision]
        bars = axis.barh(names, rates, color=colours, height=0.68)
        labels = [
            f"{row['tokens_per_second']:,.0f}" + (f"   MFU {row['mfu']:.0%}" if row["mfu"] else "")
            for row in of_precision
        ]
        axis.bar_label(bars, labels, padding=4, fontsize=10)
        axis.set_xlim(0, 1.45 * fastest)
        axis.set_title(precision, fontsize=11, loc="left")
        axis.set_xlabel("real tokens per second", fontsize=10)
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.locator_params(axis="x", nbins=5)
        axis.tick_params(labelsize=10, length=0)
        axis.spines[["top", "right", "left"]].set_visible(False)
    figure.suptitle(f"{completed[0]['model']} on {completed[0]['device']}", fontsize=11)
    figure.savefig(ROOT / f"{output}.png", dpi=150)
    pyplot.close(figure)


if __name__ == "__main__":
    source = Path(sys.argv[1]).resolve()
    results = json.loads(source.read_text(encoding="utf-8"))
    write(results, str(source.with_suffix("")))
    plot(results, str(source.with_suffix("")))
    print(markdown(results))
