"""The columns about a word's context describe the tweet."""

from __future__ import annotations

import pyarrow as pa
import pytest

from bert_tweets.words.occurrences.features import casing


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("mask", "lower"),
        ("Mask", "title"),
        ("MASK", "upper"),
        ("mAsk", "mixed"),
        ("I", "title"),
        ("New York", "title"),
        ("new York", "mixed"),
        ("#MeToo", "mixed"),
        ("#metoo", "lower"),
        ("😷", "none"),
        ("漢字", "none"),
        ("007", "none"),
        ("COVID-19", "upper"),
        ("Éa", "title"),
    ],
)
def test_casing(word: str, expected: str) -> None:
    assert casing(pa.array([word])).to_pylist() == [expected]
    assert casing(pa.array([], pa.string())).to_pylist() == []
