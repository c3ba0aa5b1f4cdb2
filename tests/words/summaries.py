"""Records of summary.json and embed.json for tests, with defaults for what a test does not care about."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bert_tweets.words.store.folder import EMBED_RECORD, SUMMARY, EmbedRecord
from bert_tweets.words.store.summary import Summary


def summary_record(**changes: Any) -> dict[str, Any]:
    """summary.json of a model `w` and its base `b`, without words."""
    plain = Summary(
        words={},
        control_words={},
        models=["run/model"],
        base="bert",
        layers=["mean(1)"],
        base_layers=["mean(1)"],
        vectors_layer="mean(1)",
        layer_pooling="mean",
        pooling="mean",
        correction="none",
        correction_hashes={"model": "", "base": ""},
        weights={"model": "w", "base": "b"},
        recipe="r",
        data="d",
        background_tweets=1000,
        background_words=100,
        seed=0,
        notes=[],
    )
    return {**asdict(plain), **changes}


def word_record(found: int = 100, **changes: Any) -> dict[str, Any]:
    """A word of summary.json, without neighbours and drift."""
    plain = {
        "found": found,
        "truncated": 0,
        "unknown": 0,
        "matches": found,
        "subwords": 1,
        "part_of_speech": None,
        "tweets": found,
        "clusters": found,
        "neighbours": [],
        "base_neighbours": [],
        "drift": None,
    }
    return {**plain, **changes}


def control_word_record(matches: int = 100, **changes: Any) -> dict[str, Any]:
    """A control word of summary.json, without drift."""
    plain = {"matches": matches, "subwords": 1, "part_of_speech": None}
    return {**plain, "neighbour_overlap": None, "distance_correlation": None, **changes}


def write_records(folder: Path, summary: dict[str, Any], weights: str = "w", **settings: Any) -> None:
    """Write summary.json and embed.json."""
    made: EmbedRecord = {"settings": settings, "data": "d", "weights": {"run/model": weights}}
    (folder / SUMMARY).write_text(json.dumps(summary), encoding="utf-8")
    (folder / EMBED_RECORD).write_text(json.dumps(made), encoding="utf-8")
