"""Charts of findings: groups in time are lines, other groups are rows, and small charts share one scale."""

from __future__ import annotations

from bert_tweets.config import AnalyzeConfig
from bert_tweets.page.analysis_charts import pair_charts, rank_charts, sense_charts
from bert_tweets.page.drawing import draw_chart
from bert_tweets.page.inputs import Change
from bert_tweets.words.analysis.records import Contrast, ControlRow
from tests.page.study import row, sense

PAIRS = [["red", "blue"], ["red", "green"]]


def change(by: str, contrast: Contrast) -> Change:
    """Two words in three groups, with ten control words between the first two."""
    rows = [
        row(word, contrast, pair, size, number, 50, True)
        for number, (word, size) in enumerate((("mask", 0.5), ("virus", 2.0)))
        for pair in PAIRS
    ]
    controls: list[ControlRow] = [
        {"word": f"c{n}", "groups": PAIRS[0], "estimate": n / 10, "clusters": 9, "subwords": 1, "frequency": 9}
        for n in range(10)
    ]
    return Change(rows, AnalyzeConfig(by=by), controls, {"mask": sense("mask", 2)})


def test_pairs_over_time_are_a_line_and_named_by_their_later_group() -> None:
    first, _ = pair_charts(change("year", Contrast.FIRST))
    assert [one.kind for one in first.series] == ["band", "line"] and not first.horizontal
    assert first.categories == ["blue", "green"] and first.x_title == "vs. red"
    adjacent, _ = pair_charts(change("year", Contrast.ADJACENT))
    assert adjacent.x_title == "vs. previous year"


def test_other_pairs_are_rows() -> None:
    first, second = pair_charts(change("party", Contrast.ALL))
    assert first.horizontal and first.categories == ["red – blue", "red – green"]
    assert first.extent == second.extent and first.extent is not None and first.extent[1] > 2.7
    (shares,) = sense_charts(change("party", Contrast.ALL))
    assert shares.horizontal and shares.legend and [one.kind for one in shares.series] == ["points", "points"]
    for chart in (first, shares):
        assert "<svg" in draw_chart(chart, files=False).svg


def test_control_words_are_drawn_only_between_the_same_groups() -> None:
    both = change("party", Contrast.ALL)
    one = Change([row for row in both.rows if row["groups"] == PAIRS[0]], both.settings, both.controls)
    assert [series.kind for series in pair_charts(both)[0].series] == ["points"]
    assert [series.kind for series in pair_charts(one)[0].series] == ["range", "points"]
    assert "Grey" in pair_charts(one)[0].alt


def test_comparisons_with_too_few_occurrences_have_no_mark() -> None:
    few = row("mask", Contrast.OMNIBUS, PAIRS[0], 0.1, 0, 5, True)
    for key in ("estimate", "low", "high", "p_value", "q_value"):
        few[key] = None  # type: ignore[literal-required]
    assert rank_charts(Change([few])) == [] and pair_charts(Change([few])) == []
    assert Change([few]).untested == [few] and Change([few]).tested == []
