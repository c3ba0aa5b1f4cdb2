"""Tables and a picture of what `benchmarks.throughput` found.

python -m benchmarks.throughput_report benchmarks/results/throughput-gpu.json     (both again, from its rows)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, table

OURS = "bert_tweets"
Row = dict[str, Any]


def line(row: Row) -> str:
    """A row in a few words, while the benchmark runs."""
    way = [str(row[name]) for name in ("attention", "tokens_per_device", "batch_rows") if row.get(name)]
    about = f"{row['kind']}: {row['who']} {row['precision']} {' '.join(way)}"
    if row.get("skipped"):
        return f"{about}: {row['skipped']}"
    if row["tokens_per_second"] is None:
        return f"{about}: {row.get('tokens_that_fit'):,} tokens"
    mfu = f", MFU {row['mfu']:.1%}" if row["mfu"] else ""
    return f"{about}: {row['tokens_per_second']:,.0f} tokens/s{mfu}, {_size(row['peak_memory_bytes'])}"


def markdown(rows: list[Row]) -> str:
    """Everything that was found, as tables."""
    if not rows:
        return "Nothing was measured."
    first = rows[0]
    versions = ", ".join(f"{name} {number}" for name, number in first["versions"].items())
    parts = [
        f"# Throughput: {first['model']} on {first['device']}",
        f"`{first['command']}`, {first['ranks']} rank(s), commit {first['commit']}; {versions}.",
        "Real tokens only; each step with its optimizer step; rates are medians of steps.",
    ]
    for precision in dict.fromkeys(row["precision"] for row in _of(rows, "comparison")):
        parts += _comparison([row for row in _of(rows, "comparison") if row["precision"] == precision], precision)
    parts += _sweep(_of(rows, "sweep")) + _memory(_of(rows, "equal_tokens")) + _fits(_of(rows, "fits"))
    skipped = [f"- {line(row)}" for row in rows if row.get("skipped") and row["kind"] != "ladder"]
    if skipped:
        parts += ["## What was not run", "\n".join(skipped)]
    return "\n\n".join(parts) + "\n"


def _of(rows: list[Row], kind: str) -> list[Row]:
    return [row for row in rows if row["kind"] == kind]


def _ran(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["tokens_per_second"]]


def _comparison(rows: list[Row], precision: str) -> list[str]:
    ran = _ran(rows)
    if not ran:
        return []
    ours = next((row["tokens_per_second"] for row in ran if row["who"] == OURS), None)
    peak = ran[0]["matrix_peak"] / 1e12, ran[0]["measured_peak"] / 1e12
    header = (
        "who",
        "attention",
        "a step",
        "real tokens/s",
        "turns",
        "tweets/s",
        "MFU",
        "padding",
        "peak memory",
        "ours",
    )
    cells: list[tuple[str, ...]] = [
        (
            row["who"],
            row["attention"] or "",
            f"{row['tokens_per_step']:,.0f} tokens",
            f"{row['tokens_per_second']:,.0f}",
            f"{row['lowest_turn']:,.0f} to {row['highest_turn']:,.0f}",
            f"{row['tweets_per_second']:,.0f}",
            f"{row['mfu']:.1%}" if row["mfu"] else "",
            f"{row['padding_fraction']:.1%}",
            _size(row["peak_memory_bytes"]),
            f"{ours / row['tokens_per_second']:.2f} ×" if ours and row["who"] != OURS else "",
        )
        for row in ran
    ]
    said = [f"## {precision}, turn by turn", table(header, cells)]
    said.append(f"Matrix peak of MFU {peak[0]:,.3g} TFLOP/s; a plain product here reached {peak[1]:,.3g}.")
    for row in ran:
        if row.get("milliseconds_by_part"):
            shown = ", ".join(f"{name} {value:,.1f}" for name, value in row["milliseconds_by_part"].items())
            said.append(f"Milliseconds of our step ({row['step_milliseconds']:,.1f} in the turns): {shown}.")
    return said


def _sweep(rows: list[Row]) -> list[str]:
    header = (
        "what differs",
        "precision",
        "attention",
        "tokens a device",
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
        for row in _ran(rows)
    ]
    return ["## Our step, one thing changed at a time", table(header, cells)] if cells else []


def _memory(rows: list[Row]) -> list[str]:
    cells: list[tuple[str, ...]] = [
        (row["who"], f"{row['tokens_per_step']:,.0f}", _size(row["peak_memory_bytes"])) for row in _ran(rows)
    ]
    header = ("who", "real tokens of the step", "peak memory")
    return [f"## Memory at about equal tokens, {rows[0]['precision']}", table(header, cells)] if cells else []


def _fits(rows: list[Row]) -> list[str]:
    cells: list[tuple[str, ...]] = [
        (
            row["who"],
            f"{row['tokens_that_fit']:,}",
            f"{row['positions_that_fit']:,}",
            f"{row['tokens_too_many']:,}" if row["tokens_too_many"] else "not reached",
            _size(row["peak_memory_bytes"]),
        )
        for row in rows
        if row.get("tokens_that_fit")
    ]
    header = ("who", "real tokens that fit in a step", "positions", "asked for and too many", "peak memory")
    return [f"## Tokens that fit, {rows[0]['precision']}", table(header, cells)] if cells else []


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB"


def write(rows: list[Row], output: str) -> None:
    """The tables beside the rows."""
    (ROOT / f"{output}.md").write_text(markdown(rows), encoding="utf-8")


def picture(rows: list[Row], output: str) -> None:
    """Bars of real tokens a second by who, a panel for each precision; without matplotlib, none."""
    ran = _ran(_of(rows, "comparison"))
    if not ran:
        return
    try:
        import matplotlib  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        print("no picture: matplotlib is not installed (extra 'bench')", file=sys.stderr)
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    precisions = list(dict.fromkeys(row["precision"] for row in ran))
    most = max(row["tokens_per_second"] for row in ran)
    tall = 1.3 + 0.5 * max(sum(row["precision"] == precision for row in ran) for precision in precisions)
    figure, axes = pyplot.subplots(
        1, len(precisions), figsize=(1.5 + 5.5 * len(precisions), tall), squeeze=False, layout="constrained"
    )
    for axis, precision in zip(axes[0], precisions, strict=True):
        of_precision = [row for row in ran if row["precision"] == precision][::-1]
        rates = [row["tokens_per_second"] for row in of_precision]
        names = [row["who"].replace("_", " " if row["who"] != OURS else "_") for row in of_precision]
        colours = ["#1f6feb" if row["who"] == OURS else "#b8bec6" for row in of_precision]
        bars = axis.barh(names, rates, color=colours, height=0.68)
        said = [
            f"{row['tokens_per_second']:,.0f}" + (f"   MFU {row['mfu']:.0%}" if row["mfu"] else "")
            for row in of_precision
        ]
        axis.bar_label(bars, said, padding=4, fontsize=10)
        axis.set_xlim(0, 1.45 * most)
        axis.set_title(precision, fontsize=11, loc="left")
        axis.set_xlabel("real tokens a second", fontsize=10)
        axis.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axis.locator_params(axis="x", nbins=5)
        axis.tick_params(labelsize=10, length=0)
        axis.spines[["top", "right", "left"]].set_visible(False)
    figure.suptitle(f"{ran[0]['model']} on {ran[0]['device']}", fontsize=11)
    figure.savefig(ROOT / f"{output}.png", dpi=150)
    pyplot.close(figure)


if __name__ == "__main__":
    source = Path(sys.argv[1]).resolve()
    found = json.loads(source.read_text(encoding="utf-8"))
    write(found, str(source.with_suffix("")))
    picture(found, str(source.with_suffix("")))
    print(markdown(found))
