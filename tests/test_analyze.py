"""analyze: planted differences are found, others are not, and no claim goes too far."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bert_tweets.common.errors import UserError
from bert_tweets.config import AnalyzeConfig
from bert_tweets.words.analysis.occurrence_table import OccurrenceTable, with_vectors, word_samples
from bert_tweets.words.embedding.parquet_writer import occurrence_schema
from tests.analyses import DAY, run, word, words_folder
from tests.words.summaries import control_word_record, summary_record, word_record
from tests.words.synthetic import WIDTH

FIELDS = [
    "word",
    "contrast",
    "group_a",
    "group_b",
    "measure",
    "estimate",
    "low",
    "high",
    "p_value",
    "q_value",
    "rank_among_controls",
    "controls",
    "difference",
    "beyond_ordinary",
    "verdict",
    "n_a",
    "n_b",
    "clusters",
    "authors",
]


def test_a_word_has_changed_only_if_it_differs_by_more_than_ordinary_words(tmp_path: Path, controls: Path) -> None:
    occurrences = [*word("virus", shift=3.0), *word("rain", drift=1.5), *word("goal"), *word("rare", 8)]
    rows = run(words_folder(tmp_path / "words", occurrences), tmp_path / "out", f"control_words={controls}")
    verdicts = {row["word"]: (row["difference"], row["beyond_ordinary"], row["verdict"]) for row in rows}
    assert verdicts == {
        "virus": (True, True, "changed"),
        "rain": (True, False, "differs as ordinary"),
        "goal": (False, None, "no difference"),
        "rare": (None, None, "too few"),
    }
    virus, rain, goal, rare = rows
    assert (virus["rank_among_controls"], virus["controls"]) == (1, 205)
    assert virus["matched_on"] == ["frequency", "subwords"]
    assert virus["p_value"] == 1 / 1000 and virus["q_value"] == pytest.approx(3 / 1000)
    assert virus["low"] < virus["estimate"] < virus["high"] and virus["group_a"] == "1970-01"
    assert (virus["n_a"], virus["n_b"], virus["clusters"], virus["authors"]) == (30, 30, 60, None)
    assert "change of meaning: rank 1 among 205" in virus["statement"]
    assert "permutation of whole near-duplicate clusters" in virus["statement"]
    assert "meaning" not in rain["statement"] + goal["statement"] + rare["statement"]
    assert goal["detectable_effect"] > max(goal["estimate"], 0) and "would have been a finding" in goal["statement"]
    assert rare["estimate"] is None and rare["p_value"] is None
    assert all(field in row for field in FIELDS for row in rows)


def test_without_control_words_no_word_has_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = run(words_folder(tmp_path / "words", word("virus", shift=3.0)), tmp_path / "out")
    assert [(row["difference"], row["verdict"]) for row in rows] == [(True, "not comparable")]
    assert "meaning" not in rows[0]["statement"]
    shown = capsys.readouterr()
    assert "0 control words, and 200 are needed" in shown.err and "near-duplicate clusters are permuted" in shown.err
    assert "not comparable" in shown.out


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_vectors_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    """No comparison with NaN is true: its p would be the smallest, and its rank the first."""
    rows = word("virus")
    rows[7]["vector"] = [value] * WIDTH
    for more in ("senses=false", "senses=true"):
        with pytest.raises(UserError, match="contain NaN"):
            run(words_folder(tmp_path / more / "words", rows), tmp_path / more / "out", more)
        assert not (tmp_path / more / "out").exists()


def test_copies_in_both_groups_are_not_a_difference_if_rows_come_group_by_group(tmp_path: Path) -> None:
    """Texts that both groups copy, at unknown times, count in either group, not all in the first one."""
    random = np.random.default_rng(0)
    vectors = random.standard_normal((160, 8)).astype(np.float32)
    vectors[:50, 0] += 2
    rows = [
        {"word": "mask", "cluster": number, "group.party": party, "vector": vectors[number].tolist()}
        for party in ("left", "right")
        for number in range(160)
        if number < 50 or (number % 2 == 0) == (party == "left")
    ]
    row = run(words_folder(tmp_path / "words", rows), tmp_path / "out", "by=party")[0]
    assert row["p_value"] > 0.05 and (row["cross_group_duplicates"], row["clusters"]) == (50, 160)


def test_control_words_may_be_in_the_same_folder(tmp_path: Path, controls: Path) -> None:
    there = pq.read_table(controls / "occurrences.parquet").to_pylist()
    folder = words_folder(tmp_path / "words", [])
    rows = [*({**row, "control": True} for row in there)]
    for row in word("virus", shift=3.0):
        rows.append({**there[0], **row, "control": False, "tweet_id": f"v{len(rows)}", "cluster": len(rows)})
    pq.write_table(pa.Table.from_pylist(rows, occurrence_schema(False, ["party"])), folder / "occurrences.parquet")
    found = run(folder, tmp_path / "out")
    assert [(row["word"], row["verdict"], row["controls"]) for row in found] == [("virus", "changed", 205)]


def test_control_words_match_in_frequency_and_subwords(tmp_path: Path, controls: Path) -> None:
    occurrences = [*word("many", 130, shift=3.0), *word("pieces", 60, shift=3.0, subwords=2)]
    rows = run(words_folder(tmp_path / "words", occurrences), tmp_path / "out", f"control_words={controls}")
    assert [(row["controls"], row["verdict"]) for row in rows] == [(0, "not comparable")] * 2


def test_frequencies_are_those_in_all_tweets_if_the_tweets_are_the_same(tmp_path: Path, controls: Path) -> None:
    """If a word is sampled more strictly than the control words, frequencies in the samples are not comparable."""
    folder = words_folder(tmp_path / "words", word("virus", 130, shift=3.0))
    counts = {"matches": 500, "part_of_speech": "noun"}
    record = summary_record(words={"virus": word_record(**counts)})
    (folder / "summary.json").write_text(json.dumps(record))
    everyone = {f"c{number}": control_word_record(**counts) for number in range(205)}
    for name, change, expected in (
        ("all", {}, (205, ["frequency", "subwords", "part of speech"])),
        ("half", {"part_of_speech": "verb"}, (205, ["frequency", "subwords"])),
        ("rare", {"matches": 249}, (199, ["frequency", "subwords"])),
        ("elsewhere", None, (0, ["frequency", "subwords"])),
    ):
        others = tmp_path / name
        shutil.copytree(controls, others)
        few = {f"c{number}": control_word_record(**{**counts, **(change or {})}) for number in range(6)}
        record["data"] = "d" if change is not None else "other"
        (others / "summary.json").write_text(json.dumps({**record, "control_words": everyone | few}))
        row = run(folder, tmp_path / f"out-{name}", f"control_words={others}")[0]
        assert (row["controls"], row["matched_on"]) == expected


def test_a_word_is_not_its_own_control(tmp_path: Path, controls: Path) -> None:
    folder = words_folder(tmp_path / "words", word("C0", shift=3.0))
    assert run(folder, tmp_path / "out", f"control_words={controls}")[0]["controls"] == 204


def test_a_word_without_found_occurrences_is_not_compared(tmp_path: Path) -> None:
    lost = [dict(row, status="unknown", vector=None) for row in word("😷")]
    rows = run(words_folder(tmp_path / "words", [*word("mask"), *lost]), tmp_path / "out", "senses=true")
    assert [(row["word"], row["verdict"]) for row in rows] == [("mask", "no difference")]
    assert set(json.loads((tmp_path / "out" / "senses.json").read_text())) == {"mask"}


def test_contrasts_follow_the_omnibus_test(tmp_path: Path) -> None:
    rows = word("mask", 120)
    for number, row in enumerate(rows):
        row["time"] = number // 30 * 40 * DAY
    folder = words_folder(tmp_path / "words", rows)
    months = ["1970-01", "1970-02", "1970-03", "1970-05"]
    expected = {
        "adjacent": [(0, 1), (1, 2), (2, 3)],
        "first": [(0, 1), (0, 2), (0, 3)],
        "all": [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)],
    }
    for kind, pairs in expected.items():
        omnibus, *others = run(folder, tmp_path / kind, f"contrasts={kind}")
        assert (omnibus["contrast"], omnibus["group_a"], omnibus["groups"]) == ("omnibus", None, months)
        assert [(row["contrast"], row["group_a"], row["group_b"]) for row in others] == [
            (kind, months[a], months[b]) for a, b in pairs
        ]
        assert omnibus["clusters"] == 120 and all(row["clusters"] == 60 for row in others)


def test_groups_may_be_a_column_and_authors_are_exchanged_as_wholes(tmp_path: Path) -> None:
    rows = word("mask", 80, shift=3.0)
    for number, row in enumerate(rows):
        row |= {"author": f"a{number // 2}", "group.party": "left" if number < 40 else "right"}
    found = run(words_folder(tmp_path / "words", rows), tmp_path / "out", "by=party")
    assert [(row["group_a"], row["group_b"], row["exchange_unit"]) for row in found] == [("left", "right", "authors")]
    assert (found[0]["authors"], found[0]["difference"], found[0]["clusters"]) == (40, True, 80)
    with pytest.raises(UserError, match="have no order"):
        run(tmp_path / "words", tmp_path / "other", "by=party", "contrasts=adjacent")


def test_a_few_authors_are_too_few_however_much_they_wrote(tmp_path: Path) -> None:
    rows = word("mask", 200, shift=3.0)
    for number, row in enumerate(rows):
        row["author"] = f"a{number // 50}"
    found = run(words_folder(tmp_path / "words", rows), tmp_path / "out")
    assert [(row["difference"], row["min_attainable_p"]) for row in found] == [(None, pytest.approx(1 / 6))]


def test_copies_count_once_in_the_group_of_the_earliest(tmp_path: Path) -> None:
    rows = word("mask", 60)
    rows += [{**rows[0], "cluster": 0, "time": 45 * DAY} for _ in range(50)]
    found = run(words_folder(tmp_path / "words", rows), tmp_path / "out")[0]
    assert (found["clusters"], found["n_a"], found["n_b"], found["cross_group_duplicates"]) == (60, 30, 80, 1)


def test_occurrences_are_capped_per_author_and_per_word(tmp_path: Path) -> None:
    rows = word("mask", 100)
    for number, row in enumerate(rows):
        row["author"] = "loud" if number < 30 else f"a{number}"
    folder = words_folder(tmp_path / "words", rows)
    assert run(folder, tmp_path / "capped", "max_per_author=5")[0]["clusters"] == 75
    assert run(folder, tmp_path / "sampled", "max_occurrences=50", "min_clusters=10")[0]["clusters"] == 50


def test_findings_depend_only_on_the_word_and_the_seed(tmp_path: Path) -> None:
    folder = words_folder(tmp_path / "words", [*word("mask"), *word("virus")])
    alone = words_folder(tmp_path / "alone", word("virus"))
    first, second = run(folder, tmp_path / "a"), run(folder, tmp_path / "b")
    assert first == second and first != run(folder, tmp_path / "c", "seed=1")
    assert first[1]["p_value"] == run(alone, tmp_path / "d")[0]["p_value"]


def test_spaces_are_never_mixed(tmp_path: Path) -> None:
    folder = words_folder(tmp_path / "words", word("mask"))
    others = words_folder(tmp_path / "others", word("rain"), weights="other")
    with pytest.raises(UserError, match=r"another space .*different weights"):
        run(folder, tmp_path / "out", f"control_words={others}")
    for number, (what, changed) in enumerate(
        {
            "recipe": {"recipe": "another"},
            "pooling": {"pooling": "first"},
            "correction_hash": {"correction_hashes": {"model": "of other tweets"}},
        }.items()
    ):
        other = words_folder(tmp_path / f"other-{number}", word("rain"))
        (other / "summary.json").write_text(json.dumps(summary_record(**changed)))
        with pytest.raises(UserError, match=f"different {what}.; embed both"):
            run(folder, tmp_path / "out", f"control_words={other}")
    mixed = words_folder(tmp_path / "mixed", [*word("mask"), *word("rain", layer="mean(2)")])
    with pytest.raises(UserError, match=r"has vectors of layer mean\(1\), mean\(2\); give layer="):
        run(mixed, tmp_path / "out")
    both = [*word("mask"), *({**row, "model": "base", "vector": [9.0, 9.0]} for row in word("mask"))]
    assert run(words_folder(tmp_path / "both", both), tmp_path / "out")[0]["clusters"] == 60
    assert not (tmp_path / "out" / "vectors").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["by=monht"], r"by=monht: neither one of day, week.*did you mean 'month'.*it has party"),
        (["by=year"], "all occurrences are of 1 year: nothing to compare"),
        (["by=party"], r"are of 0 value\(s\) of party"),
        (["model=model.2"], "has no model model.2 .*; it has model"),
        (["layer=mean(2)"], r"has no layer mean\(2\) .*; it has mean\(1\)"),
        (["words=nowhere"], "nowhere: has no embed.json"),
    ],
)
def test_mistakes_are_reported_in_one_line(tmp_path: Path, more: list[str], message: str) -> None:
    folder = words_folder(tmp_path / "words", word("mask"))
    with pytest.raises(UserError, match=message) as caught:
        run(folder, tmp_path / "out", *more)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_a_damaged_folder_is_reported_in_one_line(tmp_path: Path) -> None:
    folder = words_folder(tmp_path / "words", word("mask"))
    summary = (folder / "summary.json").read_text()
    for record in ("[]", '{"words": []}', "{"):
        (folder / "summary.json").write_text(record)
        with pytest.raises(UserError, match="cannot be read as"):
            run(folder, tmp_path / "out")
    (folder / "summary.json").write_text(summary)
    (folder / "occurrences.parquet").write_bytes(b"PAR1 and so on PAR1")
    with pytest.raises(UserError, match="cannot be read as"):
        run(folder, tmp_path / "out")
    (folder / "occurrences.parquet").unlink()
    with pytest.raises(UserError, match=r"has no occurrences\.parquet"):
        run(folder, tmp_path / "out")


def test_too_few_permutations_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row for name in "abcdef" for row in word(name)]
    run(words_folder(tmp_path / "words", rows), tmp_path / "out", "permutations=99")
    assert "99 permutations are too few for one finding among 6 tests; set permutations=120" in capsys.readouterr().err


def test_vectors_do_not_depend_on_how_many_words_are_read_at_once(tmp_path: Path) -> None:
    rows = [row for name in "abcde" for row in word(name)]
    np.random.default_rng(0).shuffle(rows)  # type: ignore[arg-type]
    table = OccurrenceTable(str(words_folder(tmp_path / "words", rows)), "model", "month")
    labels = table.labels(["1970-01", "1970-02"])
    every, few = (
        list(with_vectors(table, word_samples(table, labels, 2, AnalyzeConfig(by="month")), count)) for count in (32, 2)
    )
    assert [sample.word for sample, _ in every] == [sample.word for sample, _ in few] and len(few) == 5
    assert all((first == second).all() for (_, first), (_, second) in zip(every, few, strict=True))


def test_no_model_is_needed(tmp_path: Path) -> None:
    folder = words_folder(tmp_path / "words", word("mask"))
    code = (
        "import sys; from bert_tweets import analyze\n"
        f"analyze.main(['words={folder}', 'by=month', 'output={tmp_path / 'out'}', 'permutations=99'])\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True)
    again = subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True, text=True)
    assert "is complete already" in again.stdout


def test_vectors_are_read_in_the_order_of_the_rows(tmp_path: Path) -> None:
    table = OccurrenceTable(str(words_folder(tmp_path / "words", word("mask", 10))), "model", "month")
    rows = np.array([7, 2, 9])
    expected = pq.read_table(tmp_path / "words" / "occurrences.parquet").column("vector").to_pylist()
    assert np.allclose(table.vectors(rows), [expected[row] for row in rows.tolist()])
    assert table.vectors(np.empty(0, np.int64)).shape[0] == 0 and table.vectors(rows).shape == (3, WIDTH)


def test_control_words_are_written_for_the_page(tmp_path: Path, controls: Path) -> None:
    run(words_folder(tmp_path / "words", word("mask")), tmp_path / "out", f"control_words={controls}")
    rows = json.loads((tmp_path / "out" / "controls.json").read_text(encoding="utf-8"))
    assert len(rows) == 205 and len({row["word"] for row in rows}) == 205
    change = json.loads((tmp_path / "out" / "change.json").read_text(encoding="utf-8"))[0]
    above = sum(row["estimate"] >= change["estimate"] for row in rows)
    assert change["rank_among_controls"] == above + 1
    assert rows[0].keys() == {"word", "groups", "estimate", "clusters", "subwords", "frequency"}
    assert (rows[0]["groups"], rows[0]["clusters"]) == (["1970-01", "1970-02"], 60)
    assert not (tmp_path / "out" / "regression.json").exists()


def test_a_layer_must_be_named_if_there_are_several(tmp_path: Path) -> None:
    rows = word("mask", shift=3.0)
    layers = [{**row, "layer": name} for row in word("mask") for name in ("0", "1")]
    folder = words_folder(tmp_path / "words", [*layers, *({**row, "layer": "2"} for row in rows)])
    with pytest.raises(UserError, match=r"has vectors of layer 0, 1, 2; give layer= one of them"):
        run(folder, tmp_path / "out")
    with pytest.raises(UserError, match=r"has no layer 3.*; it has 0, 1, 2"):
        run(folder, tmp_path / "out", "layer=3")
    alone = words_folder(tmp_path / "alone", rows)
    last, expected = run(folder, tmp_path / "two", "layer=2"), run(alone, tmp_path / "expected")
    assert [row["estimate"] for row in last] == [row["estimate"] for row in expected]
    assert run(folder, tmp_path / "one", "layer=1")[0]["difference"] is False
