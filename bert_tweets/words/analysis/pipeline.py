"""Analysis: from the folder of embed to the rows of change.json, controls.json and regression.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bert_tweets.common.errors import UserError
from bert_tweets.common.terminal import ProgressBar
from bert_tweets.config import PERIODS, AnalyzeConfig
from bert_tweets.words.occurrences.groups import require_groups

from .comparisons import Comparison, ControlResult, change_rows, compare_control, compare_groups, control_rows
from .occurrence_table import OccurrenceTable, with_vectors, word_samples
from .records import ChangeRow, ControlRow, ExchangeUnit, MatchedOn, RegressionRow
from .regressions import regress_words
from .verdicts import MIN_CONTROLS


@dataclass(frozen=True)
class Findings:
    """The findings of an analysis.

    Attributes:
        change: rows of change.json.
        controls: rows of controls.json.
        regression: rows of regression.json; None without covariates.
        notes: warnings about the findings.
    """

    change: list[ChangeRow]
    controls: list[ControlRow]
    regression: list[RegressionRow] | None
    notes: list[str]


def analyze(config: AnalyzeConfig) -> Findings:
    """Compare the groups of each word, and regress its vectors on the covariates.

    Raises:
        UserError: the folders lack something that the settings name, or have vectors of different spaces.
    """
    table = _open_table(config.words, config)
    others = _open_table(config.control_words, config) if config.control_words else table
    if different := table.store.space.differences(others.store.space):
        raise UserError(
            f"{config.control_words}: its vectors are in another space than those of {config.words} (different "
            f"{', '.join(different)}); embed both with the same model, layers and shards"
        )
    if table.store.summary.data != others.store.summary.data:
        # The number of places of a word in other tweets does not say how frequent it is in these.
        table.word_records = others.word_records = {}
    names = sorted(set(table.group.tolist()) - {None})
    require_groups(names, config.by, config.words)
    if config.contrasts == "adjacent" and config.by not in PERIODS:
        raise UserError(f"contrasts=adjacent: the groups of {config.by} have no order; use contrasts=first or all")
    comparisons: list[Comparison] = []
    with ProgressBar("words") as advance:
        for sample, vectors in with_vectors(table, word_samples(table, table.labels(names), len(names), config)):
            comparisons += compare_groups(sample, vectors, config)
            advance(1)
    requested = {each.groups for each in comparisons if each.test}
    words = {each.sample.word.casefold() for each in comparisons}
    controls: list[ControlResult] = []
    with ProgressBar("control words") as advance:
        samples = word_samples(others, others.labels(names), len(names), config, controls=others is table)
        for sample, vectors in with_vectors(others, samples):
            if sample.word.casefold() not in words:
                controls.append(compare_control(sample, vectors, requested, config.min_clusters))
            advance(1)
    rows = change_rows(comparisons, controls, names, config)
    return Findings(
        rows,
        control_rows(controls, names),
        regress_words(table, others, config) if config.covariates else None,
        _notes(int(sum(group is None for group in table.group)), comparisons, len(controls), rows, config),
    )


def _open_table(folder: str, config: AnalyzeConfig) -> OccurrenceTable:
    return OccurrenceTable(folder, config.model, config.by, config.layer, config.covariates)


def _notes(
    without_group: int,
    comparisons: Sequence[Comparison],
    controls: int,
    rows: Sequence[ChangeRow],
    config: AnalyzeConfig,
) -> list[str]:
    notes = []
    if without_group:
        notes.append(f"{without_group:,} occurrences have no {config.by} and are left out")
    tested = [each for each in comparisons if each.test]
    if tested and 1 / (config.permutations + 1) > config.fdr / len(tested):
        notes.append(
            f"{config.permutations:,} permutations are too few for one finding among {len(tested):,} tests; set "
            f"permutations={int(np.ceil(len(tested) / config.fdr))}"
        )
    if any(each.sample.exchange_unit != ExchangeUnit.AUTHORS for each in tested):
        notes.append(
            "the authors of some occurrences are unknown: near-duplicate clusters are permuted there, and an author "
            "with many of them counts several times"
        )
    words = len({each.sample.word for each in tested})
    if controls < MIN_CONTROLS:
        notes.append(
            f"{controls} control words, and {MIN_CONTROLS} are needed to distinguish a change of meaning from the "
            "drift in the contexts of every word; embed with controls=250 or more (a file of spans has none), or set "
            "control_words=FOLDER"
        )
    else:
        if controls + 1 < words / config.fdr:
            notes.append(
                f"a single word among {words} cannot stand out among {controls} control words; "
                f"{int(np.ceil(words / config.fdr)) - 1} are needed"
            )
        if any(row["matched_on"] != list(MatchedOn) for row in rows):
            notes.append("control words are not matched on part of speech, or not those of every word")
    return notes
