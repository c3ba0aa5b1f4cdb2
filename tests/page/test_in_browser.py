"""The page in a real browser: offline, by keyboard, for those who do not see it, at night, on a phone and on paper."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bert_tweets import report
from tests.page import study
from tests.page.browser import Opened, browser, opened
from tests.processes import wait_for

# Contrast as WCAG 2.1 defines it (1.4.3), of every text against the nearest background that is painted.
CONTRAST = """() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const parts = numbers(getComputedStyle(at).backgroundColor);
      if (parts.length < 4 || parts[3] > 0) return parts;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walk = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || !node.getClientRects().length) continue;
    if (node.closest("script, style, noscript, option, [aria-hidden=true]")) continue;
    const style = getComputedStyle(node), inside = node.closest("svg");
    const [a, b] = [light(numbers(inside ? style.fill : style.color)), light(ground(node))].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), node.textContent.trim().slice(0, 40)]);
  }
  return found;
}"""
# What a screen reader is told of each picture, table and control.
NAMES = """() => [...document.querySelectorAll("table, select, .js-plotly-plot, .wide, #map-key")].map((node) => {
  const told = node.closest("[role=img]");
  const name = node.tagName === "TABLE" ? node.caption && node.caption.textContent
    : node.tagName === "SELECT" ? node.labels[0] && node.labels[0].firstChild.textContent
    : (told || node).getAttribute("aria-label");
  return (name || "").trim();
})"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of every kind of picture and table."""
    folder = tmp_path_factory.mktemp("study")
    report.main([*study.write(folder, words=4, points=60, text=True), "include_text=true"])
    return folder / "report.html"


@pytest.fixture(scope="module")
def started() -> Iterator[Any]:
    with browser() as one:
        yield one


@pytest.fixture(scope="module")
def day(started: Any, page: Path) -> Iterator[Opened]:
    """The page in light, which tests share: to load it takes seconds."""
    with opened(started, page) as one:
        yield one


@pytest.fixture(scope="module")
def night(started: Any, page: Path) -> Iterator[Opened]:
    """The page in dark, shared too."""
    with opened(started, page, "dark") as one:
        yield one


def test_it_asks_for_nothing_and_complains_of_nothing(day: Opened, page: Path) -> None:
    for select in ("#map-word", "#map-colour"):
        for value in day.page.eval_on_selector_all(f"{select} option", "all => all.map((one) => one.index)"):
            day.page.select_option(select, index=value)
    assert day.said == []
    assert day.asked == [page.as_uri()]
    assert day.page.locator("#maps figure").count() == 2


def test_every_picture_is_drawn(day: Opened) -> None:
    drawn = day.page.eval_on_selector_all(".js-plotly-plot", "all => all.map((one) => one.id)")
    empty = day.page.eval_on_selector_all(
        ".js-plotly-plot",
        "all => all.filter((one) => !one.querySelector('.trace, .point, .bars')).map((one) => one.id)",
    )
    kinds = {name.partition("-")[2].partition("-")[0] for name in drawn}
    assert {"loss", "funnel", "words", "neighbours", "distances", "change", "senses"} <= kinds and empty == []


def chosen(one: Opened, word: int, colour: int) -> None:
    one.page.select_option("#map-word", index=word)
    one.page.select_option("#map-colour", index=colour)


def test_a_point_tells_what_it_is_with_accounts_masked(day: Opened) -> None:
    chosen(day, 0, 0)
    day.page.locator("#map-0 .point").nth(7).hover(force=True)
    day.page.wait_for_selector("#map-0 .hovertext")
    said = day.page.locator("#map-0 .hovertext").first.text_content()
    assert "time: 20" in said and "usage cluster: mask#" in said and "party:" in said
    assert "@user thinks that the mask" in said and "some_body" not in said
    # Markup of a tweet is text.
    assert "<b>of it</b>" in said.replace("\u00a0", " ")
    # The same occurrence, in the other model's map.
    day.page.wait_for_selector("#map-1 .hovertext")
    assert day.page.locator("#map-1 .hovertext").first.text_content() == said


def test_the_choosers_work_by_keyboard(day: Opened) -> None:
    chosen(day, 0, 0)
    before = day.page.locator("#map-told").text_content()
    day.page.focus("#map-word")
    day.page.keyboard.press("ArrowDown")
    day.page.keyboard.press("Tab")
    assert day.page.evaluate("document.activeElement.id") == "map-colour"
    day.page.keyboard.press("ArrowDown")
    told = day.page.locator("#map-told").text_content()
    assert before.startswith("mask") and told.startswith("virus") and told.endswith("coloured by party.")
    assert "red" in day.page.locator("#map-key").text_content()
    assert "virus" in day.page.get_attribute("#map-0", "aria-label")
    # Both tables that are folded away and those that are too wide can be reached.
    day.page.focus("summary")
    day.page.keyboard.press("Enter")
    assert day.page.evaluate("document.querySelector('details').open")


def test_those_who_do_not_see_it_are_told(day: Opened) -> None:
    names = day.page.evaluate(NAMES)
    levels = day.page.eval_on_selector_all("h1, h2, h3, h4", "all => all.map((one) => Number(one.tagName[1]))")
    assert day.page.get_attribute("html", "lang") == "en"
    assert len(names) > 15 and all(names)
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(day: Opened, night: Opened, scheme: str) -> None:
    one = day if scheme == "light" else night
    found = one.page.evaluate(CONTRAST)
    paper = one.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    assert len(found) > 200
    assert [pair for pair in found if pair[0] < 4.5] == []


def test_it_fits_a_phone(day: Opened) -> None:
    day.page.set_viewport_size({"width": 360, "height": 800})
    # Pictures are drawn anew once the window has its new size.
    widest = "Math.max(...[...document.querySelectorAll('.main-svg')].map((one) => one.clientWidth))"
    wait_for(lambda: day.page.evaluate(widest) <= 360)
    assert day.page.evaluate("document.documentElement.scrollWidth") <= 360
    day.page.set_viewport_size({"width": 1100, "height": 900})


def test_it_prints(night: Opened) -> None:
    night.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    night.page.emulate_media(media="print")
    # A4 without margins of 12 mm.
    night.page.set_viewport_size({"width": 702, "height": 1000})
    assert night.page.evaluate("document.documentElement.scrollWidth") <= 702
    assert night.page.evaluate("[...document.querySelectorAll('details')].every((one) => one.open)")
    assert night.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    night.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not night.page.evaluate("document.querySelector('details').open")
    assert night.page.pdf(format="A4").startswith(b"%PDF")
    assert night.said == []
