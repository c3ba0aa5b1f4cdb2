"""Verdicts: a change of meaning is claimed in one case only, and in one place only."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from bert_tweets.words.analysis import verdicts
from bert_tweets.words.analysis.records import (
    ChangeRow,
    Contrast,
    Criterion,
    ExchangeUnit,
    MatchedOn,
    Measure,
    Reason,
    RegressionRow,
    Verdict,
    WordSenses,
)
from bert_tweets.words.analysis.verdicts import (
    MIN_CONTROLS,
    Answers,
    change_statement,
    criterion_text,
    exchange_unit_text,
    matched_on_text,
    rank_text,
    reason_text,
    regression_statement,
    senses_text,
    verdict_label,
)

DIFFERENCES = (True, False, None)
CONTROLS = (0, MIN_CONTROLS - 1, MIN_CONTROLS)


def change_row(answers: Answers, **more: Any) -> ChangeRow:
    row: ChangeRow = {
        "word": "virus",
        "contrast": Contrast.OMNIBUS,
        "group_a": "2020-01",
        "group_b": "2020-02",
        "groups": ["2020-01", "2020-02"],
        "measure": Measure.ENERGY,
        "estimate": 0.2,
        "low": 0.1,
        "high": 0.3,
        "p_value": 0.001,
        "q_value": 0.002,
        "min_attainable_p": 0.001,
        "detectable_effect": 0.1,
        "rank_among_controls": 3,
        "controls": answers.controls,
        "matched_on": [MatchedOn.FREQUENCY],
        "difference": answers.difference,
        "beyond_ordinary": answers.beyond_ordinary,
        "verdict": answers.verdict,
        "n": 1300,
        "n_a": 700,
        "n_b": 600,
        "clusters": 1200,
        "authors": None,
        "cross_group_duplicates": 0,
        "exchange_unit": ExchangeUnit.CLUSTERS,
        "statement": None,
    }
    row.update(more)  # type: ignore[typeddict-item]
    return row


def regression_row(**more: Any) -> RegressionRow:
    row: RegressionRow = {
        "word": "virus",
        "term": "party",
        "adjusted_for": ["time", "links"],
        "statistic": "partial R²",
        "estimate": 0.02,
        "raw": 0.03,
        "coefficients": None,
        "p_value": 0.001,
        "q_value": 0.002,
        "min_attainable_p": 0.001,
        "permutations": 999,
        "reason": None,
        "rank_among_controls": None,
        "controls": 0,
        "n": 80,
        "clusters": 80,
        "authors": 60,
        "exchange_unit": ExchangeUnit.AUTHORS,
        "left_out": {"unknown": 0, "rare_level": 0, "author_surplus": 0},
        "statement": "",
    }
    row.update(more)  # type: ignore[typeddict-item]
    return row


def test_change_of_meaning_is_claimed_only_if_both_answers_are_yes() -> None:
    for difference, controls, stands_out in product(DIFFERENCES, CONTROLS, (False, True)):
        answers = Answers(difference, controls, stands_out)
        both = difference is True and controls >= MIN_CONTROLS and stands_out
        text = change_statement(change_row(answers))
        assert (answers.verdict == Verdict.CHANGED) == both == bool(answers.beyond_ordinary)
        assert bool(re.search("meaning|chang", text)) == both, text
        assert text.startswith("The use of virus differs") == (difference is True)
        assert "1,200 near-duplicate clusters" in text and "between 2020-01 and 2020-02" in text


@pytest.mark.parametrize(
    ("answers", "verdict", "beyond_ordinary"),
    [
        (Answers(True, 200, True), Verdict.CHANGED, True),
        (Answers(True, 200, False), Verdict.DIFFERS_AS_ORDINARY, False),
        (Answers(True, 199, True), Verdict.NOT_COMPARABLE, None),
        (Answers(False, 200, True), Verdict.NO_DIFFERENCE, None),
        (Answers(None, 200, True), Verdict.TOO_FEW, None),
    ],
)
def test_each_pair_of_answers_has_a_verdict(answers: Answers, verdict: Verdict, beyond_ordinary: bool | None) -> None:
    assert (answers.verdict, answers.beyond_ordinary) == (verdict, beyond_ordinary)


def test_missing_evidence_comes_with_the_detectable_effect() -> None:
    row = change_row(Answers(False, 0, False))
    assert "a distance above 0.1 would have been a finding" in change_statement(row)
    row["detectable_effect"] = None
    assert "no distance could have been a finding" in change_statement(row)


def test_findings_are_worded_in_one_module() -> None:
    words = Path(verdicts.__file__).parents[1]
    claiming = [file.name for file in words.rglob("*.py") if "suggests a change of meaning" in file.read_text("utf-8")]
    assert claiming == ["verdicts.py"]


@pytest.mark.parametrize("difference", DIFFERENCES)
@pytest.mark.parametrize("controls", CONTROLS)
@pytest.mark.parametrize("stands_out", [False, True])
def test_a_label_claims_no_more_than_the_verdict(difference: bool | None, controls: int, stands_out: bool) -> None:
    verdict = Answers(difference, controls, stands_out).verdict
    label = verdict_label(verdict)
    assert ("changed" in label) == (verdict == Verdict.CHANGED)
    assert ("differs" in label) == (difference is True and verdict != Verdict.CHANGED)
    assert "ordinary" not in label or "no evidence" in label


def test_a_rank_counts_the_word_and_needs_enough_control_words() -> None:
    assert rank_text(change_row(Answers(True, 257, True))) == "3 of 258"
    assert rank_text(change_row(Answers(True, 199, True))) is None


def test_a_regression_is_reported_with_the_covariates_that_it_is_adjusted_for() -> None:
    found = regression_statement(regression_row(controls=205, rank_among_controls=4), 0.05)
    assert found.startswith("The use of virus is associated with party, adjusted for time, links: partial R² 0.02")
    assert "permutation of whole authors; 80 near-duplicate clusters, 60 authors; rank 4 among 205" in found
    assert regression_statement(regression_row(q_value=0.06), 0.05).startswith("No evidence that the use of virus is")
    assert "partial R² not estimable" in regression_statement(
        regression_row(estimate=None, reason=Reason.SINGLE_UNIT), 0.05
    )
    untested = regression_row(p_value=None, q_value=None, reason=Reason.CONSTANT)
    assert regression_statement(untested, 0.05).endswith("is unknown: the same for all occurrences.")


def test_every_value_of_the_records_has_a_text() -> None:
    assert (
        all(map(verdict_label, Verdict))
        and all(map(reason_text, Reason))
        and all(map(exchange_unit_text, ExchangeUnit))
    )
    assert matched_on_text([MatchedOn.FREQUENCY]) == "frequency"
    assert matched_on_text(list(MatchedOn)) == "frequency, number of subwords and part of speech"


def test_senses_are_summarised_with_their_criterion() -> None:
    senses: Any = [{"share": 0.6}, {"share": 0.4}]
    record: WordSenses = {
        "count": 2,
        "criterion": Criterion.VALLEYS,
        "max_senses": 5,
        "p_values": {"2": 0.001},
        "stability": 0.97,
        "n": 100,
        "authors": None,
        "senses": senses,
    }
    assert senses_text("mask", record) == "mask: 2 senses (60%, 40%), stability 0.97"
    assert "up to 5" in criterion_text(record) and "p ≤ 0.0125" in criterion_text(record)
    assert "fewer than 48 occurrences" in criterion_text({**record, "criterion": Criterion.TOO_FEW})
    assert criterion_text({**record, "criterion": Criterion.IDENTICAL}) == "all vectors are the same"
