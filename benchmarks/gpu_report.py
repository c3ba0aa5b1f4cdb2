"""Tables of the results of benchmarks/gpu.sh.

    python -m benchmarks.gpu_report FOLDER...

FOLDER  contains gpu-rows-1.jsonl or gpu-rows-2.jsonl, or both

Writes benchmarks/results/gpu.json and gpu.md, and prints a line for the table in docs/tested-on.md.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import ROOT, Row, exit_with_help, markdown_table, read_jsonl, write_rows

RESULTS = "benchmarks/results/gpu"
Table = tuple[Sequence[str], Sequence[Sequence[str]]]
_STEPS = ("step", "trainer_tuned", "flash_padding_free")


def rows_of(folders: list[str]) -> list[Row]:
    """Read all rows of these folders."""
    files = [Path(folder) / f"gpu-rows-{call}.jsonl" for folder in folders for call in (1, 2)]
    rows = [row for file in files for row in read_jsonl(file)]
    if not rows:
        raise SystemExit(f"error: no gpu-rows-1.jsonl or gpu-rows-2.jsonl in {', '.join(folders)}")
    return rows


def markdown(rows: list[Row]) -> str:
    """All results as tables."""
    first = next((row for row in rows if row.get("device")), {})
    versions = ", ".join(f"{name} {number}" for name, number in first.get("versions", {}).items())
    sections = [
        f"# One {first.get('device', 'GPU')}",
        f"`benchmarks/gpu.sh`, commit {first.get('commit', '')}; {versions}.",
        "Rates count real tokens only and are medians of steps, optimizer included.",
        *_section("Training step", _steps(rows)),
        *_section("Milliseconds per step, by kernels", _profiles(rows)),
        *_section("Matrix products of BERT-base at 65,536 tokens, bf16", _products(rows)),
        *_section("Attention against float64, relative errors", _attention(rows)),
        *_section("Compiled step against the eager one, two layers", _compiled(rows)),
        *_section("Tests on the GPU", _tests(rows)),
        *_section("Parts of the run", _parts(rows)),
    ]
    return "\n\n".join(sections) + "\n"


def tested_on_line(rows: list[Row]) -> str:
    """A line for the table in docs/tested-on.md."""
    steps = [row for row in rows if row["who"] == "step" and row.get("tokens_per_second")]
    counts = [row["counts"] for row in rows if row["who"] == "tests"]
    passed, failed = (sum(count.get(name, 0) for count in counts) for name in ("passed", "failed"))
    if not steps:
        return f"no training step was measured; {passed} GPU tests passed, {failed} failed"
    best = max(steps, key=lambda row: float(row["tokens_per_second"]))
    return (
        f"{best['device']}, torch {best['versions'].get('torch')}, commit {best['commit']}: BERT-base, "
        f"{best['precision']}, {best['tokens_per_second']:,.0f} real tokens/s ({best['mfu']:.1%} MFU); "
        f"{passed} GPU tests passed, {failed} failed"
    )


def _section(title: str, table: Table) -> list[str]:
    return [f"## {title}", markdown_table(*table)] if table[1] else []


def _rows_of(rows: list[Row], *who: str) -> list[Row]:
    return [row for row in rows if row["who"] in who]


def _steps(rows: list[Row]) -> Table:
    header = (
        "who",
        "precision",
        "attention",
        "real tokens/s",
        "MFU",
        "padding",
        "ms per step",
        "peak memory",
        "remarks",
    )
    cells = []
    for row in _rows_of(rows, *_STEPS):
        remarks = [f"{name} {row[name]}" for name in ("rows", "batch_rows") if row.get(name)]
        remarks += [] if row.get("compiled") is None else ["compiled" if row["compiled"] else "not compiled"]
        remarks += [f"first step {row['first_step_seconds']:.0f} s"] if row.get("first_step_seconds") else []
        name = ("bert_tweets" if row["who"] == "step" else row["who"], row["precision"], row.get("attention") or "")
        if not row.get("tokens_per_second"):
            cells.append((*name, "", "", "", "", "", row.get("skipped") or f"failed: {row.get('failed')}"))
            continue
        speed = (f"{row['tokens_per_second']:,.0f}", f"{row['mfu']:.1%}", f"{row['padding_fraction']:.1%}")
        size = (f"{row['step_milliseconds']:.1f}", f"{row['peak_memory_bytes'] / 1e9:.1f} GB")
        cells.append((*name, *speed, *size, ", ".join(remarks)))
    return header, cells


def _profiles(rows: list[Row]) -> Table:
    profiles = _rows_of(rows, "profile")
    groups = list(dict.fromkeys(group for row in profiles for group in row["milliseconds_by_group"]))
    cells = [
        (
            f"{row['precision']}, {row['rows']} rows",
            *(f"{row['milliseconds_by_group'].get(group, 0.0):.2f}" for group in groups),
            f"{row['milliseconds_of_kernels']:.2f}",
        )
        for row in profiles
    ]
    return ("", *groups, "total"), cells


def _products(rows: list[Row]) -> Table:
    header = ("layer", "product", "M", "N", "K", "ms", "TFLOP/s")
    cells = [
        (
            *(row["layer"], row["direction"], str(row["m"]), str(row["n"]), str(row["k"])),
            *(f"{row['milliseconds']:.3f}", f"{row['tflops']:.0f}"),
        )
        for row in _rows_of(rows, "product")
    ]
    cells += [
        ("square", "forward", *3 * (str(row["size"]),), "", f"{row['tflops']:.0f}")
        for row in _rows_of(rows, "square product")
    ]
    copies = [f"{row['terabytes_per_second']:.2f} TB/s read and written" for row in _rows_of(rows, "copy")]
    return header, cells + [("copy", copy, "", "", "", "", "") for copy in copies]


def _attention(rows: list[Row]) -> Table:
    names = ("output", "query", "key", "value")
    cells = [
        (
            *(row["attention"], row["dtype"]),
            *(f"{row[name]:.1e}" if name in row else "" for name in names),
            row.get("failed") or row.get("skipped") or "",
        )
        for row in _rows_of(rows, "attention check")
    ]
    return ("backend", "type", *names, "remarks"), cells


def _compiled(rows: list[Row]) -> Table:
    header = ("precision", "eager loss", "compiled loss", "gradient norm", "error of all gradients", "remarks")
    names = ("eager_loss", "compiled_loss", "gradient_norm", "error_of_all_gradients")
    cells = [
        (row["precision"], *(f"{row[name]:.6g}" if name in row else "" for name in names), row.get("failed", ""))
        for row in _rows_of(rows, "compiled check")
    ]
    return header, cells


def _tests(rows: list[Row]) -> Table:
    cells = [
        (row["which"], ", ".join(f"{count} {name}" for name, count in row["counts"].items()), row.get("failed", ""))
        for row in _rows_of(rows, "tests")
    ]
    return ("which", "outcomes", "remarks"), cells


def _parts(rows: list[Row]) -> Table:
    return ("part", "seconds", "error"), [
        (r["part"], f"{r['seconds']:.0f}", r["error"]) for r in _rows_of(rows, "part")
    ]


def main(arguments: list[str]) -> None:
    exit_with_help(arguments, __doc__)
    rows = rows_of(arguments)
    write_rows(f"{RESULTS}.json", [row for row in rows if row["who"] != "part"])
    (ROOT / f"{RESULTS}.md").write_text(markdown(rows), encoding="utf-8")
    print(f"{RESULTS}.json, {RESULTS}.md\n{tested_on_line(rows)}")


if __name__ == "__main__":
    main(sys.argv[1:])
