"""analyze: does the use of a word differ between groups or over time, and by more than that of ordinary words?"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from bert_tweets.common.errors import run_entry
from bert_tweets.common.output_folder import atomic_output_folder, is_up_to_date
from bert_tweets.common.terminal import console

from .config import AnalyzeConfig, parser

if TYPE_CHECKING:
    from rich.table import Table

    from bert_tweets.words.analysis.pipeline import Findings
    from bert_tweets.words.analysis.records import AnalyzeRecord, ChangeRow, RegressionRow, WordSenses

logger = logging.getLogger(__name__)


def stage(argv: list[str]) -> None:
    """Compare words, write the findings and print them. Uses no model."""
    from bert_tweets.words.analysis.records import SETTINGS

    config = parser.load(AnalyzeConfig, argv)
    record = _record(config)
    if is_up_to_date(config.output, SETTINGS, dict(record.to_json()), "analyze"):
        print(f"{config.output}: is complete already")
        return
    with atomic_output_folder(config.output) as folder:
        findings, senses = _write_findings(config, folder, record)
    _print(config, findings, senses)


def within(words: str, by: str, seed: int) -> None:
    """Compare words at the end of `embed by=...`: write the files of `analyze` into the folder of words itself.

    Args:
        words: complete folder of embed; if it has findings already, nothing happens.
        by, seed: the settings of embed.

    Raises:
        UserError: there is nothing to compare; the folder stays complete.
    """
    from bert_tweets.words.analysis.records import CHANGE
    from bert_tweets.words.statistics.mixture_clusters import has_sklearn
    from bert_tweets.words.store.summary import read_summary

    folder = Path(words)
    if (folder / CHANGE).is_file():
        return
    layer = read_summary(folder).vectors_layer
    config = AnalyzeConfig(words=words, by=by, output=words, seed=seed, layer=layer, senses=has_sklearn())
    _print(config, *_write_findings(config, folder, _record(config)))


def _write_findings(
    config: AnalyzeConfig, folder: Path, record: AnalyzeRecord
) -> tuple[Findings, dict[str, WordSenses]]:
    """Analyze, and write the findings into a folder, the comparisons last."""
    from bert_tweets.words.analysis import records
    from bert_tweets.words.analysis.pipeline import analyze
    from bert_tweets.words.analysis.sense_files import analyze_senses
    from bert_tweets.words.statistics.mixture_clusters import require_sklearn

    if config.senses:
        require_sklearn()
    findings = analyze(config)
    senses = analyze_senses(folder, config) if config.senses else {}
    records.write_controls(folder, findings.controls)
    if findings.regression is not None:
        records.write_regression(folder, findings.regression)
    if config.senses:
        records.write_senses(folder, senses)
    records.write_settings(folder, record)
    records.write_change(folder, findings.change)
    return findings, senses


def main(argv: list[str] | None = None) -> None:
    run_entry(stage, argv)


def _record(config: AnalyzeConfig) -> AnalyzeRecord:
    from bert_tweets.words.analysis.records import AnalyzeRecord
    from bert_tweets.words.store.folder import read_embed_record

    control_words = read_embed_record(config.control_words) if config.control_words else None
    return AnalyzeRecord(config, read_embed_record(config.words), control_words)


def _print(config: AnalyzeConfig, findings: Findings, senses: dict[str, WordSenses]) -> None:
    from rich.text import Text

    from bert_tweets.words.analysis.records import CHANGE, Contrast, Measure
    from bert_tweets.words.analysis.verdicts import senses_text

    rows = [row for row in findings.change if row["measure"] == Measure.ENERGY]
    wide, narrow = console(width=150), console()
    wide.print(_change_table(rows))
    for row in rows:
        if row["contrast"] == Contrast.OMNIBUS:
            narrow.print(Text(row["statement"] or ""))
    if findings.regression is not None:
        wide.print(_regression_table(findings.regression))
    for word, record in senses.items():
        if record["count"] > 1:
            narrow.print(Text(senses_text(word, record)))
    for note in findings.notes:
        logger.warning(note)
    print(f"figures: {Path(config.output) / CHANGE}")


def _change_table(rows: list[ChangeRow]) -> Table:
    from rich.text import Text

    from bert_tweets.words.analysis.verdicts import groups_text, rank_text, verdict_label

    table = _table("groups", "energy distance", "verdict")
    for row in rows:
        energy = ""
        if row["estimate"] is not None:
            energy = f"{row['estimate']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
        rank = rank_text(row) if row["estimate"] is not None else None
        cells = [energy, *_test_cells(row), rank or "", *_size_cells(row), verdict_label(row["verdict"])]
        table.add_row(Text(row["word"]), Text(groups_text(row)), *cells)
    return table


def _regression_table(rows: list[RegressionRow]) -> Table:
    from rich.text import Text

    from bert_tweets.words.analysis.verdicts import rank_text, reason_text

    table = _table("term", "partial R²", "")
    for row in rows:
        estimate = "" if row["estimate"] is None else f"{row['estimate']:.4f}"
        reason = "" if row["reason"] is None else reason_text(row["reason"])
        cells = [estimate, *_test_cells(row), rank_text(row) or "", *_size_cells(row), reason]
        table.add_row(Text(row["word"]), Text(row["term"]), *cells)
    return table


def _table(second: str, measure: str, last: str) -> Table:
    from rich.table import Table

    table = Table("word", second, box=None, header_style="bold")
    for name in (measure, "p", "q", "rank", "clusters", "authors"):
        table.add_column(name, justify="right")
    table.add_column(last)
    return table


def _test_cells(row: ChangeRow | RegressionRow) -> list[str]:
    return ["" if value is None else f"{value:.4f}" for value in (row["p_value"], row["q_value"])]


def _size_cells(row: ChangeRow | RegressionRow) -> list[str]:
    return [f"{row['clusters']:,}", "" if row["authors"] is None else f"{row['authors']:,}"]


if __name__ == "__main__":
    main()
