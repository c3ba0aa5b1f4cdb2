"""A headless Chromium that opens a page from a file, without a network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")


@dataclass
class Opened:
    """A page in the browser.

    Attributes:
        page: Playwright's page.
        messages: console messages and uncaught errors.
        requests: requested addresses.
    """

    page: Any
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium; skips the test if it or Playwright is not installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"no browser is installed: none of {', '.join(_NAMES)}")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, args=list(_ARGUMENTS))
        yield started
        started.close()


@contextmanager
def opened(started: Any, path: Path, scheme: str = "light", width: int = 1100) -> Iterator[Opened]:
    """A page, loaded and drawn, which has maps."""
    context = started.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
    result = Opened(context.new_page())
    result.page.on("console", lambda message: result.messages.append(message.text))
    result.page.on("pageerror", lambda error: result.messages.append(str(error)))
    result.page.on("request", lambda request: result.requests.append(request.url))
    result.page.goto(path.as_uri())
    result.page.wait_for_selector("#map-0 .point")
    yield result
    context.close()
