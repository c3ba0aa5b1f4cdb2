"""Drawing: any text can be drawn and stays text, and the same chart gives the same bytes."""

from __future__ import annotations

import re
import warnings
from xml.etree import ElementTree

import pytest

from bert_tweets.page.charts import GREY, Chart, Series
from bert_tweets.page.drawing import ENDINGS, draw_chart

HOSTILE = [
    "$x^2$",
    "</text><script>alert(1)</script>",
    "😷👩‍⚕️",
    "_hidden",
    "a\x00b\x1b\ud800",
    "w" * 2000,
    "一\n二",
    "&lt;",
]


def chart(names: list[str], horizontal: bool = True) -> Chart:
    """A chart with every text that a record can determine."""
    values = [0.1 * number for number in range(len(names))]
    x, y = (values, names) if horizontal else (names, values)
    low, high = [value - 0.5 for value in values], [value + 0.5 for value in values]
    return Chart(
        name="chart",
        title=names[0],
        alt="A chart.",
        series=[
            Series("controls", "strip" if horizontal else "band", x, y, low, high, GREY),
            Series(names[-1], "points" if horizontal else "line", x, y, low, high, labelled=not horizontal),
        ],
        x_title=names[0],
        horizontal=horizontal,
        legend=True,
        order=names,
        row_notes=["rank 1 of 201", "$"] if horizontal else (),
        small=not horizontal,
    )


@pytest.mark.parametrize("horizontal", [True, False])
@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_any_text_can_be_drawn(name: str, horizontal: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = draw_chart(chart([name, "plain"], horizontal), files=True)
    assert set(picture.files) == set(ENDINGS)
    for svg in (picture.svg, picture.files["svg"].decode()):
        texts = [one.text for one in ElementTree.fromstring(svg).iter() if one.tag.endswith("text")]
        assert "plain" in texts and "script" not in re.findall(r"<(\w+)", svg)
        if name in (HOSTILE[0], HOSTILE[2]):
            assert name in texts
        assert all(len(text or "") < 60 for text in texts)


def test_the_same_chart_gives_the_same_bytes() -> None:
    first, again = (draw_chart(chart(["mask", "virus"]), files=True) for _ in range(2))
    assert first == again


def test_the_svg_of_the_page_has_its_colours_and_no_rules_of_its_own() -> None:
    picture = draw_chart(chart(["#ffffff", "virus"]), files=True)
    assert "currentColor" in picture.svg and "var(--line)" in picture.svg and ">#ffffff<" in picture.svg
    assert not re.search(r"<style|<metadata|<\?xml|<!DOCTYPE|#1c2127|id=\"\w+_\d", picture.svg)
    assert b"#1c2127" in picture.files["svg"] and b"currentColor" not in picture.files["svg"]


def test_charts_of_one_page_share_no_ids() -> None:
    one = draw_chart(chart(["mask", "virus"]), files=False)
    other = draw_chart(Chart("other", "", "", chart(["mask", "virus"]).series, horizontal=True), files=False)
    ids = [set(re.findall(r' id="([^"]+)"', picture.svg)) for picture in (one, other)]
    assert one.files == {} and all(ids) and not ids[0] & ids[1]


def test_a_chart_without_series_is_empty() -> None:
    assert "<svg" in draw_chart(Chart("loss", "Loss", "Nothing was logged.", legend=True), files=False).svg
