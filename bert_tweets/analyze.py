"""analyze: does a word's use differ between groups or over time, and by more than that of ordinary words?"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bert_tweets.common.errors import UserError, run_entry
from bert_tweets.common.output_folder import atomic_output_folder, is_up_to_date, write_json_atomic
from bert_tweets.common.terminal import console

from .config import AnalyzeConfig, parser

if TYPE_CHECKING:
    from bert_tweets.words.analysis.pipeline import Findings

CHANGE, CONTROLS, REGRESSION = "change.json", "controls.json", "regression.json"
SETTINGS = "analyze.json"
_FIGURES = {"estimate": ".4f", "p_value": ".4f", "q_value": ".4f"}


def stage(argv: list[str]) -> None:
    """Reads the settings, compares, writes change.json and prints what it says. Uses no model."""
    config = parser.load(AnalyzeConfig, argv)
    settings = _record(config)
    if is_up_to_date(config.output, SETTINGS, settings, "analyze"):
        print(f"{config.output}: is complete already")
        return
    with atomic_output_folder(config.output) as folder:
        found, senses = _compared(config, folder, settings)
    _tell(config, found, senses)


def within(words: str, by: str, seed: int) -> None:
    """The comparison that `embed by=...` ends with: what `analyze` would write, in the folder of the words itself.

    Args:
        words: folder that embed left whole; one that holds a comparison stays as it is.
        by, seed: as embed was given them.

    Raises:
        UserError: there is nothing to compare; the folder stays whole.
    """
    folder = Path(words)
    if (folder / CHANGE).is_file():
        return
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    from bert_tweets.words.statistics.mixture_clusters import has_learners

    layer, senses = summary["vectors_layer"], has_learners()
    config = AnalyzeConfig(words=words, by=by, output=words, seed=seed, layer=layer, senses=senses)
    _tell(config, *_compared(config, folder, _record(config)))


def _compared(config: AnalyzeConfig, folder: Path, settings: dict[str, Any]) -> tuple[Findings, dict[str, Any]]:
    """Compares, and writes what comes of it into a folder, the comparisons last; returns the usage clusters, too."""
    from bert_tweets.words.analysis.pipeline import analyze
    from bert_tweets.words.analysis.sense_files import write_senses
    from bert_tweets.words.statistics.mixture_clusters import require_learners

    if config.senses:
        require_learners()
    found = analyze(config)
    write_json_atomic(folder / CONTROLS, found.controls)
    if found.regression is not None:
        write_json_atomic(folder / REGRESSION, found.regression)
    senses = write_senses(folder, config) if config.senses else {}
    write_json_atomic(folder / SETTINGS, settings)
    write_json_atomic(folder / CHANGE, found.change)
    return found, senses


def _tell(config: AnalyzeConfig, found: Findings, senses: dict[str, Any]) -> None:
    _show(found.change)
    if found.regression is not None:
        _show_regression(found.regression)
    _show_senses(senses)
    for note in found.notes:
        print(f"warning: {note}", file=sys.stderr)
    print(f"figures: {Path(config.output) / CHANGE}")


def main(argv: list[str] | None = None) -> None:
    run_entry(stage, argv)


def _record(config: AnalyzeConfig) -> dict[str, Any]:
    """What analyze.json holds: the settings, and what the folders of words were made from."""
    settings = {key: value for key, value in asdict(config).items() if key not in ("output", "words", "control_words")}
    made = {name: _made_from(folder) for name in ("words", "control_words") if (folder := getattr(config, name))}
    return {"settings": settings, **made}


def _made_from(folder: str) -> Any:
    """What embed says that its folder is made from."""
    path = Path(folder) / "embed.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder}: holds no embed.json; give the folder that embed left") from None
    except (OSError, ValueError):
        raise UserError(f"{path}: cannot be read; embed again") from None


def _show(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table
    from rich.text import Text

    from bert_tweets.words.analysis.verdicts import rank_told

    table = Table("word", "groups", box=None, header_style="bold")
    for name in ("energy distance", "p", "q", "rank", "clusters", "authors"):
        table.add_column(name, justify="right")
    table.add_column("use")
    table.add_column("verdict")
    for row in rows:
        if row["measure"] != "energy":
            continue
        pair = "all" if row["group_a"] is None else f"{row['group_a']} – {row['group_b']}"
        figures = ["", "", "", ""]
        if row["estimate"] is not None:
            figures = [f"{row['estimate']:.3f} ({row['low']:.3f} to {row['high']:.3f})"]
            figures += [f"{row['p_value']:.4f}", f"{row['q_value']:.4f}"]
            figures += [rank_told(row) or ""]
        authors = "" if row["authors"] is None else f"{row['authors']:,}"
        shown = [*figures, f"{row['clusters']:,}", authors, row["usage"], row["verdict"]]
        table.add_row(Text(row["word"]), Text(pair), *shown)
    console(width=140).print(table)
    for row in rows:
        if row["measure"] == "energy" and row["contrast"] == "omnibus":
            console().print(Text(row["statement"]))


def _show_regression(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table
    from rich.text import Text

    from bert_tweets.words.analysis.verdicts import rank_told

    table = Table("word", "term", box=None, header_style="bold")
    for name in ("partial R²", "p", "q", "rank", "clusters", "authors"):
        table.add_column(name, justify="right")
    table.add_column("")
    for row in rows:
        figures = [f"{row[name]:{form}}" if row[name] is not None else "" for name, form in _FIGURES.items()]
        figures += [rank_told(row) or ""]
        authors = "" if row["authors"] is None else f"{row['authors']:,}"
        figures += [f"{row['clusters']:,}", authors, row["reason"] or ""]
        table.add_row(Text(row["word"]), Text(row["term"]), *figures)
    console(width=140).print(table)


def _show_senses(records: dict[str, Any]) -> None:
    from rich.text import Text

    for word, record in records.items():
        if record["count"] > 1:
            shares = ", ".join(f"{cluster['share']:.0%}" for cluster in record["clusters"])
            told = f"{word}: {record['count']} usage clusters ({shares}), stability {record['stability']:.2f}"
            console().print(Text(told))


if __name__ == "__main__":
    main()
