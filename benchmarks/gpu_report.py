"""Tables of what benchmarks/gpu.sh found.

    python -m benchmarks.gpu_report FOLDER...

FOLDER  holds gpu-rows-1.jsonl or gpu-rows-2.jsonl, or both

Writes benchmarks/results/gpu.json and gpu.md, and prints a line for the table in docs/tested-on.md.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, appended_rows, table, usage, write_rows

RESULTS = "benchmarks/results/gpu"
Row = dict[str, Any]
_STEPS = ("step", "trainer_tuned", "flash_padding_free")


def rows_of(folders: list[str]) -> list[Row]:
    """All rows of these folders."""
    files = [Path(folder) / f"gpu-rows-{call}.jsonl" for folder in folders for call in (1, 2)]
    found = [row for file in files for row in appended_rows(file)]
    if not found:
        raise SystemExit(f"no gpu-rows-1.jsonl or gpu-rows-2.jsonl in {', '.join(folders)}")
    return found


def markdown(rows: list[Row]) -> str:
    """Everything that was found, as tables."""
    first = next((row for row in rows if row.get("device")), {})
    versions = ", ".join(f"{name} {number}" for name, number in first.get("versions", {}).items())
    parts = [
        f"# One {first.get('device', 'GPU')}",
        f"`benchmarks/gpu.sh`, commit {first.get('commit', '')}; {versions}.",
        "Real tokens only; each step with its optimizer step; rates are medians of steps.",
        *_section("Training step", _steps(rows)),
        *_section("Milliseconds of a step by kernels", _profiles(rows)),
        *_section("Matrix products of BERT-base at 65,536 tokens, bf16", _products(rows)),
        *_section("Attention against float64, relative errors", _attention(rows)),
        *_section("Compiled step against the eager one, two layers", _compiled(rows)),
        *_section("Tests on the GPU", _tests(rows)),
        *_section("Parts of the run", _parts(rows)),
    ]
    return "\n\n".join(parts) + "\n"


def readme_line(rows: list[Row]) -> str:
    """A line of the table in docs/tested-on.md."""
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


def _section(title: str, lines: tuple[tuple[str, ...], list[tuple[str, ...]]]) -> list[str]:
    return [f"## {title}", table(*lines)] if lines[1] else []


def _of(rows: list[Row], *who: str) -> list[Row]:
    return [row for row in rows if row["who"] in who]


def _steps(rows: list[Row]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    header = ("who", "precision", "attention", "real tokens/s", "MFU", "padding", "ms a step", "peak memory", "remarks")
    cells = []
    for row in _of(rows, *_STEPS):
        remarks = [f"{name} {row[name]}" for name in ("rows", "batch_rows") if row.get(name)]
        remarks += [] if row.get("compiled") is None else ["compiled" if row["compiled"] else "not compiled"]
        remarks += [f"first step {row['first_step_seconds']:.0f} s"] if row.get("first_step_seconds") else []
        who = ("bert_tweets" if row["who"] == "step" else row["who"], row["precision"], row.get("attention") or "")
        if not row.get("tokens_per_second"):
            cells.append((*who, "", "", "", "", "", row.get("skipped") or f"failed: {row.get('failed')}"))
            continue
        rate = (f"{row['tokens_per_second']:,.0f}", f"{row['mfu']:.1%}", f"{row['padding_fraction']:.1%}")
        size = (f"{row['step_milliseconds']:.1f}", f"{row['peak_memory_bytes'] / 1e9:.1f} GB")
        cells.append((*who, *rate, *size, ", ".join(remarks)))
    return header, cells


def _profiles(rows: list[Row]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    profiles = _of(rows, "profile")
    groups = list(dict.fromkeys(group for row in profiles for group in row["milliseconds_by_group"]))
    cells = [
        (
            f"{row['precision']}, {row['rows']} rows",
            *(f"{row['milliseconds_by_group'].get(group, 0.0):.2f}" for group in groups),
            f"{row['milliseconds_of_kernels']:.2f}",
        )
        for row in profiles
    ]
    return ("", *groups, "all"), cells


def _products(rows: list[Row]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    header = ("layer", "product", "M", "N", "K", "ms", "TFLOP/s")
    cells = [
        (
            *(row["layer"], row["direction"], str(row["m"]), str(row["n"]), str(row["k"])),
            *(f"{row['milliseconds']:.3f}", f"{row['tflops']:.0f}"),
        )
        for row in _of(rows, "product")
    ]
    cells += [
        ("square", "forward", *3 * (str(row["size"]),), "", f"{row['tflops']:.0f}")
        for row in _of(rows, "square product")
    ]
    copies = [f"{row['terabytes_per_second']:.2f} TB/s read and written" for row in _of(rows, "copy")]
    return header, cells + [("copy", copy, "", "", "", "", "") for copy in copies]


def _attention(rows: list[Row]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    names = ("output", "query", "key", "value")
    cells = [
        (
            *(row["attention"], row["dtype"]),
            *(f"{row[name]:.1e}" if name in row else "" for name in names),
            row.get("failed") or row.get("skipped") or "",
        )
        for row in _of(rows, "attention check")
    ]
    return ("backend", "type", *names, "remarks"), cells


def _compiled(rows: list[Row]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    header = ("precision", "eager loss", "compiled loss", "gradient norm", "error of all gradients", "remarks")
    names = ("eager_loss", "compiled_loss", "gradient_norm", "error_of_all_gradients")
    cells = [
        (row["precision"], *(f"{row[name]:.6g}" if name in row else "" for name in names), row.get("failed", ""))
        for row in _of(rows, "compiled check")
    ]
    return header, cells


def _tests(rows: list[Row]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    cells = [
        (row["which"], ", ".join(f"{count} {name}" for name, count in row["counts"].items()), row.get("failed", ""))
        for row in _of(rows, "tests")
    ]
    return ("which", "outcomes", "remarks"), cells


def _parts(rows: list[Row]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    return ("part", "seconds", ""), [(r["part"], f"{r['seconds']:.0f}", r["trouble"]) for r in _of(rows, "part")]


def main(words: list[str]) -> None:
    usage(words, __doc__)
    rows = rows_of(words)
    write_rows(f"{RESULTS}.json", [row for row in rows if row["who"] != "part"])
    (ROOT / f"{RESULTS}.md").write_text(markdown(rows), encoding="utf-8")
    print(f"{RESULTS}.json, {RESULTS}.md\n{readme_line(rows)}")


if __name__ == "__main__":
    main(sys.argv[1:])
