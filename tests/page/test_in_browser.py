"""The page in a real browser: offline, by keyboard, with a screen reader, in dark mode, on a phone and on paper."""

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
# The accessible name of each chart, map, table and control.
NAMES = """() => [...document.querySelectorAll(
  "table, select, .chart, .js-plotly-plot, .wide, #map-key"
)].map((node) => {
  const picture = node.closest("[role=img]");
  const name = node.tagName === "TABLE" ? node.caption && node.caption.textContent
    : node.tagName === "SELECT" ? node.labels[0] && node.labels[0].firstChild.textContent
    : (picture || node).getAttribute("aria-label");
  return (name || "").trim();
})"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with every kind of chart and table."""
    folder = tmp_path_factory.mktemp("study")
    report.main([*study.write(folder, words=4, points=60, text=True), "include_text=true"])
    return folder / "report.html"


@pytest.fixture(scope="module")
def started() -> Iterator[Any]:
    with browser() as one:
        yield one


@pytest.fixture(scope="module")
def day(started: Any, page: Path) -> Iterator[Opened]:
    """The page in light mode; shared, because it takes seconds to load."""
    with opened(started, page) as one:
        yield one


@pytest.fixture(scope="module")
def night(started: Any, page: Path) -> Iterator[Opened]:
    """The page in dark mode; shared."""
    with opened(started, page, "dark") as one:
        yield one


def test_it_loads_nothing_and_logs_nothing(day: Opened, page: Path) -> None:
    for select in ("#map-word", "#map-colour"):
        for value in day.page.eval_on_selector_all(f"{select} option", "all => all.map((one) => one.index)"):
            day.page.select_option(select, index=value)
    assert day.messages == []
    assert day.requests == [page.as_uri()]
    assert day.page.locator("#maps figure").count() == 2


def test_every_chart_and_map_is_drawn(day: Opened) -> None:
    """Each chart has marks, and text that is text."""
    counts = day.page.eval_on_selector_all(
        ".chart svg",
        "all => all.map((one) => [one.querySelectorAll('path').length, one.querySelectorAll('text').length])",
    )
    # Loss, funnel, two of drift, ranks, four of pairs, three of senses.
    assert len(counts) == 12 and all(marks > 4 and texts > 2 for marks, texts in counts)
    assert day.page.locator(".js-plotly-plot .point").count() > 20


def test_ids_are_unique(day: Opened) -> None:
    """Also those within charts, which a browser would resolve to the first chart that has them."""
    ids = day.page.eval_on_selector_all("main [id]:not(.maps *)", "all => all.map((one) => one.id)")
    assert len(ids) > 20 and len(set(ids)) == len(ids)


def test_charts_follow_the_colours_of_the_page(day: Opened, night: Opened) -> None:
    fill = "getComputedStyle(document.querySelector('.chart .legend text, .chart text')).fill"
    assert day.page.evaluate(fill) != night.page.evaluate(fill)


def chosen(one: Opened, word: int, colour: int) -> None:
    one.page.select_option("#map-word", index=word)
    one.page.select_option("#map-colour", index=colour)


def test_hover_shows_a_point_with_accounts_masked(day: Opened) -> None:
    chosen(day, 0, 0)
    day.page.locator("#map-0 .point").nth(7).hover(force=True)
    day.page.wait_for_selector("#map-0 .hovertext")
    text = day.page.locator("#map-0 .hovertext").first.text_content()
    assert "time: 20" in text and "usage cluster: mask#" in text and "party:" in text
    assert "@user thinks that the mask" in text and "some_body" not in text
    # Markup of a tweet is text.
    assert "<b>of it</b>" in text.replace("\u00a0", " ")
    # The same occurrence, in the other model's map.
    day.page.wait_for_selector("#map-1 .hovertext")
    assert day.page.locator("#map-1 .hovertext").first.text_content() == text


def test_menus_work_by_keyboard(day: Opened) -> None:
    chosen(day, 0, 0)
    before = day.page.locator("#map-status").text_content()
    day.page.focus("#map-word")
    day.page.keyboard.press("ArrowDown")
    day.page.keyboard.press("Tab")
    assert day.page.evaluate("document.activeElement.id") == "map-colour"
    day.page.keyboard.press("ArrowDown")
    after = day.page.locator("#map-status").text_content()
    assert before.startswith("mask") and after.startswith("virus") and after.endswith("coloured by party.")
    assert "red" in day.page.locator("#map-key").text_content()
    assert "virus" in day.page.get_attribute("#map-0", "aria-label")
    # Folded tables can be opened.
    day.page.focus("summary")
    day.page.keyboard.press("Enter")
    assert day.page.evaluate("document.querySelector('details').open")


def test_every_element_has_an_accessible_name(day: Opened) -> None:
    names = day.page.evaluate(NAMES)
    levels = day.page.eval_on_selector_all("h1, h2, h3, h4", "all => all.map((one) => Number(one.tagName[1]))")
    assert day.page.get_attribute("html", "lang") == "en"
    assert len(names) > 15 and all(names)
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_enough_contrast(day: Opened, night: Opened, scheme: str) -> None:
    one = day if scheme == "light" else night
    found = one.page.evaluate(CONTRAST)
    paper = one.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    assert len(found) > 200
    assert [pair for pair in found if pair[0] < 4.5] == []


def test_it_fits_a_phone(day: Opened) -> None:
    day.page.set_viewport_size({"width": 360, "height": 800})
    # Maps are redrawn once the window has its new size.
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
    assert night.messages == []
