"""Wording: a change of meaning is said of one case alone, and in one place alone."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest

from bert_tweets.words.analysis import verdicts
from bert_tweets.words.analysis.verdicts import (
    CHANGED,
    DIFFERS,
    FEWEST_CONTROLS,
    NO_EVIDENCE,
    TOO_FEW,
    Answers,
    label,
    statement,
)

ROW = {
    "word": "virus",
    "group_a": "2020-01",
    "group_b": "2020-02",
    "clusters": 1200,
    "authors": None,
    "estimate": 0.2,
    "low": 0.1,
    "high": 0.3,
    "p_value": 0.001,
    "q_value": 0.002,
    "smallest_effect": 0.1,
    "unit": "whole clusters",
    "rank_among_controls": 3,
    "matched_on": "frequency",
}


def test_a_change_is_said_only_where_both_answers_are_yes() -> None:
    for usage, controls, stands_out in product(
        (DIFFERS, NO_EVIDENCE, TOO_FEW), (0, FEWEST_CONTROLS - 1, FEWEST_CONTROLS), (False, True)
    ):
        answers = Answers(usage, controls, stands_out)
        both = usage == DIFFERS and controls >= FEWEST_CONTROLS and stands_out
        said = statement(answers, ROW)
        assert (answers.verdict == CHANGED) == both
        assert bool(re.search("meaning|chang", said)) == both, said
        assert said.startswith("The use of virus differs") == (usage == DIFFERS)
        assert "1,200 clusters" in said and "between 2020-01 and 2020-02" in said


def test_no_evidence_comes_with_what_would_have_been_evidence() -> None:
    answers = Answers(NO_EVIDENCE, 0, False)
    assert "one beyond 0.1 would have been a finding" in statement(answers, ROW)
    assert "no distance could have been a finding" in statement(answers, ROW | {"smallest_effect": None})


def test_findings_are_put_into_words_in_one_place() -> None:
    words = Path(verdicts.__file__).parents[1]
    said = [file.name for file in words.rglob("*.py") if "change of meaning" in file.read_text(encoding="utf-8")]
    assert said == ["verdicts.py"]


@pytest.mark.parametrize("usage", [DIFFERS, NO_EVIDENCE, TOO_FEW])
@pytest.mark.parametrize("controls", [0, 199, 200])
@pytest.mark.parametrize("stands_out", [False, True])
def test_a_label_claims_no_more_than_the_verdict(usage: str, controls: int, stands_out: bool) -> None:
    answers = Answers(usage, controls, stands_out)
    said = label(usage, answers.verdict)
    assert ("changed" in said) == (answers.verdict == CHANGED)
    assert ("differs" in said) == (usage == DIFFERS and answers.verdict != CHANGED)
    assert "ordinary" not in said or "no evidence" in said or "not comparable" in said
