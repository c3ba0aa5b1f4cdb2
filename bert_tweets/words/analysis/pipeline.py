"""Analysis: from what embed left to the rows of change.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bert_tweets.common.errors import UserError
from bert_tweets.common.terminal import ProgressBar
from bert_tweets.config import PERIODS, AnalyzeConfig
from bert_tweets.words.occurrences.groups import require_groups

from .comparisons import MATCHED_ON_ALL, Comparison, ControlResult, compare, conclude, control, rows_of_controls
from .occurrence_table import Table, choose_samples, with_vectors
from .regressions import regress
from .verdicts import FEWEST_CONTROLS

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Findings:
    """What analyze leaves.

    Attributes:
        change: rows of change.json.
        controls: rows of controls.json.
        regression: rows of regression.json; None where nothing is regressed.
        notes: what their reader should know.
    """

    change: Rows
    controls: Rows
    regression: Rows | None
    notes: list[str]


def analyze(config: AnalyzeConfig) -> Findings:
    """Compares the groups of each word, and regresses its vectors on the covariates.

    Args:
        config: the settings.

    Raises:
        UserError: the folders do not hold what is asked, or are of different spaces.
    """
    table = _table(config.words, config)
    others = _table(config.control_words, config) if config.control_words else table
    _require_one_space(table, others, config)
    if table.summary.get("data") != others.summary.get("data"):
        # Counts in other tweets say nothing of how frequent a word is in these.
        table.told = others.told = {}
    names = sorted(set(table.period.tolist()) - {None})
    require_groups(names, config.by, config.words)
    if config.contrasts == "adjacent" and config.by not in PERIODS:
        raise UserError(f"contrasts=adjacent: the groups of {config.by} have no order; give first or all")
    comparisons: list[Comparison] = []
    with ProgressBar("words") as advance:
        for chosen, vectors in with_vectors(table, choose_samples(table, table.labels(names), len(names), config)):
            comparisons += compare(chosen, vectors, config)
            advance(1)
    asked = {one.groups for one in comparisons if one.test}
    words = {one.chosen.word.casefold() for one in comparisons}
    controls: list[ControlResult] = []
    with ProgressBar("controls") as advance:
        labelled = choose_samples(others, others.labels(names), len(names), config, asked=others is not table)
        for chosen, vectors in with_vectors(others, labelled):
            if chosen.word.casefold() not in words:
                controls.append(control(chosen, vectors, asked, config.min_clusters))
            advance(1)
    rows = conclude(comparisons, controls, names, config)
    return Findings(
        rows,
        rows_of_controls(controls, names),
        regress(table, others, config) if config.covariates else None,
        _notes(table, comparisons, controls, {str(row["matched_on"]) for row in rows}, config),
    )


def _table(folder: str, config: AnalyzeConfig) -> Table:
    return Table(folder, config.model, config.by, config.layer, config.covariates)


def _require_one_space(table: Table, others: Table, config: AnalyzeConfig) -> None:
    different = [name for name in table.space if table.space[name] != others.space[name]]
    if different:
        raise UserError(
            f"{config.control_words}: its vectors are of another space than those of {config.words}: they differ in "
            f"{', '.join(different)}; embed both with the same model, layers and shards"
        )


def _notes(
    table: Table,
    comparisons: Sequence[Comparison],
    controls: Sequence[ControlResult],
    matched_on: set[str],
    config: AnalyzeConfig,
) -> list[str]:
    notes = []
    without = int(sum(period is None for period in table.period))
    if without:
        notes.append(f"{without:,} occurrences have no {config.by} and are left out")
    tests = sum(one.test is not None for one in comparisons)
    if tests and 1 / (config.permutations + 1) > config.fdr / tests:
        notes.append(
            f"{config.permutations:,} permutations cannot reach the level for one finding among {tests:,} tests; "
            f"give permutations={int(np.ceil(tests / config.fdr))}"
        )
    tested = [one for one in comparisons if one.test]
    if any(not one.chosen.by_author for one in tested):
        notes.append(
            "authors are not known of all occurrences: clusters of near-duplicates are permuted there, and an author "
            "who wrote many of them counts as many"
        )
    if len(controls) < FEWEST_CONTROLS:
        notes.append(
            f"{len(controls)} control words: fewer than {FEWEST_CONTROLS}, so that no change can be told from the "
            "drift of every word's contexts; embed with controls=250 or more (a file of spans has none), or give "
            "controls=FOLDER"
        )
    else:
        words = len({one.chosen.word for one in tested})
        if len(controls) + 1 < words / config.fdr:
            notes.append(
                f"a single word among {words} cannot stand out of {len(controls)} controls; "
                f"{int(np.ceil(words / config.fdr)) - 1} are needed"
            )
        if matched_on != {MATCHED_ON_ALL}:
            notes.append("control words are not matched on part of speech, or not those of every word")
    return notes
