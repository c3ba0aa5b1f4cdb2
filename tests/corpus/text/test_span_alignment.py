"""A span is aligned with the cleaned text, or reported as lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_tweets.corpus.text.span_alignment import align_spans

SPANS = [
    # preset, text with the span in brackets, what is there afterwards ("" for lost)
    ("tweets", "I wear a [mask] today", "mask"),
    ("tweets", "[mask]", "mask"),
    ("tweets", "R&amp;D  and\n\n[R&amp;D] &lt;3", "R&D"),
    ("tweets", "my [mask]😷 on", "mask"),
    ("tweets", "my mask[😷] on", "😷"),
    ("tweets", "[👩🏽\u200d💻]mask", "👩🏽\u200d💻"),
    ("tweets", "[❤]\ufe0f", "❤\ufe0f"),
    ("tweets", "see https://t.co/abc [mask]", "mask"),
    ("tweets", "see https://t.co/[mask] now", ""),
    ("tweets", "see [https://t.co/abc] now", "http"),
    ("tweets", "RT [@alice]: mask", "@user"),
    ("tweets", "RT @[alice]: mask", ""),
    ("tweets", "the [new  york] times", "new york"),
    ("tweets", "un[mask]ed", "mask"),
    ("tweets", "[cafe\u0301] here", "café"),
    ("tweets", "a [\u200b] b", ""),
    ("tweets", "mask mask [mask] mask", "mask"),
    ("timelms", "[@alice] wears a mask", "@user"),
    ("timelms", "hello http://t.co/a [mask]", "mask"),
    ("timelms+names", "a [😷] on", ":face_with_medical_mask:"),
    ("raw", "a  [mask]\x07", "mask"),
    ("bertweet", "I don't [mask] 😷 it's", "mask"),
    ("bertweet", "I don't mask [😷] it's", ":face_with_medical_mask:"),
]


@pytest.mark.parametrize(("preset", "marked", "expected"), SPANS)
def test_a_span_stays_with_its_word(preset: str, marked: str, expected: str) -> None:
    start = marked.index("[")
    end = marked.index("]") - 1
    text = marked.replace("[", "", 1).replace("]", "", 1)
    (cleaned,), begins, ends = align_spans([text], np.array([start]), np.array([end]), preset)
    assert (cleaned[begins[0] : ends[0]] if begins[0] >= 0 else "") == expected
    if expected == "mask" and text.split().count("mask") > 1:
        assert cleaned[: begins[0]].count("mask") == text[:start].count("mask")


FRAGMENTS = [
    "mask",
    "virus ",
    "😷",
    "❤\ufe0f",
    "@bob",
    " @alice:",
    "https://t.co/a1 ",
    "#metoo",
    "&amp;",
    "e\u0301",
    "  ",
    "\n",
]
FRAGMENTS += ["!", "RT ", "\u200b", "漢字", "\ue0f0", "…", "www.x.org"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=6), st.lists(st.sampled_from(FRAGMENTS), max_size=6))
def test_a_word_between_spaces_is_never_lost(before: list[str], after: list[str]) -> None:
    """Whatever cleaning does around it."""
    front = "".join(before) + " "
    text = f"{front}zebra {''.join(after)}"
    for preset in ("tweets", "timelms", "raw"):
        cleaned, begins, ends = align_spans([text], np.array([len(front)]), np.array([len(front) + 5]), preset)
        assert cleaned[0][begins[0] : ends[0]] == "zebra"
