"""analyze with covariates: the association of each with a word's use, adjusted for the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.analyses import DAY, run, word, words_folder


def regression(folder: Path, output: Path, *more: str) -> list[dict[str, Any]]:
    run(folder, output, *more)
    rows: list[dict[str, Any]] = json.loads((output / "regression.json").read_text(encoding="utf-8"))
    return rows


def test_each_covariate_is_adjusted_for_the_others(tmp_path: Path) -> None:
    rows = [*word("mask", 80, drift=2.0), *word("rain", 80)]
    random = np.random.default_rng(0)
    for row in rows:
        # The parties change over time, and have no effect of their own.
        late = row["time"] > 20 * DAY
        row["group.party"] = "left" if random.random() < (0.8 if late else 0.2) else "right"
    folder = words_folder(tmp_path / "words", rows)
    found = regression(folder, tmp_path / "out", "covariates=[party,month,subwords]")
    table = {(row["word"], row["term"]): row for row in found}
    assert table["mask", "month"]["q_value"] <= 0.05 < table["mask", "party"]["q_value"]
    assert "is associated with month, adjusted for party, subwords: partial R²" in table["mask", "month"]["statement"]
    assert table["rain", "month"]["q_value"] > 0.05 and abs(table["rain", "month"]["estimate"]) < 0.05
    assert (table["mask", "subwords"]["reason"], table["mask", "subwords"]["p_value"]) == ("constant", None)
    first = table["mask", "month"]
    assert (first["n"], first["clusters"], first["permutations"], first["exchange_unit"]) == (
        80,
        80,
        999,
        "near-duplicate clusters",
    )
    assert first["coefficients"][0]["name"] == "1970-02" and 1 < first["coefficients"][0]["squared_norm"] < 8
    both = regression(folder, tmp_path / "both", "covariates=[month,time,party]")
    assert all(row["reason"] is None for row in both)
    same = regression(folder, tmp_path / "same", "covariates=[party,group.party]")
    assert {row["reason"] for row in same} == {"collinear"}
    assert not (tmp_path / "out" / "senses.json").exists()


def test_a_word_that_is_too_rare_for_its_covariates_is_reported(tmp_path: Path) -> None:
    rows = word("mask", 60)
    for number, row in enumerate(rows):
        row["group.party"] = None if number < 20 else "left" if number < 25 else "right"
    found = regression(words_folder(tmp_path / "words", rows), tmp_path / "out", "covariates=[party,time]")
    assert [row["term"] for row in found] == ["party", "time"] and found[0]["clusters"] == 35
    assert found[0]["left_out"] == {"unknown": 20, "rare_level": 5, "author_surplus": 0}
    assert found[0]["reason"] == "constant" and found[1]["p_value"] is not None
    few = regression(tmp_path / "words", tmp_path / "few", "covariates=[party,time]", "min_clusters=36")
    assert {row["reason"] for row in few} == {"too few"} and "is unknown: too few occurrences" in few[0]["statement"]


def test_a_prolific_author_is_cut_to_a_size_that_others_have(tmp_path: Path) -> None:
    rows = word("mask", 100)
    for number, row in enumerate(rows):
        row["author"] = "loud" if number % 3 == 0 else f"a{number}"
    found = regression(words_folder(tmp_path / "words", rows), tmp_path / "out", "covariates=time")[0]
    assert (found["clusters"], found["authors"], found["exchange_unit"]) == (67, 67, "authors")
    assert found["left_out"] == {"unknown": 0, "rare_level": 0, "author_surplus": 33}


def test_a_term_is_ranked_among_control_words(tmp_path: Path, controls: Path) -> None:
    rows = [*word("mask", 60, drift=4.0), *word("rain", 60, drift=1.0)]
    folder = words_folder(tmp_path / "words", rows)
    mask, rain = regression(folder, tmp_path / "out", "covariates=time", f"control_words={controls}")
    assert (mask["rank_among_controls"], mask["controls"]) == (1, 205) and 40 < rain["rank_among_controls"] < 170
    assert "rank 1 among 205 control words" in mask["statement"]
