"""A real Chromium, and pages opened in it from disk with every request counted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@dataclass
class Opened:
    """A page with whatever went wrong in it."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    """Console errors and warnings, CSP violations, uncaught exceptions, dialogs."""
    requests: list[str] = field(default_factory=list)
    """Whatever it asked for beyond its own file."""

    def is_quiet(self) -> bool:
        """Nothing went wrong and nothing was asked of anybody."""
        return not self.complaints and not self.requests


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The browser. Without one its tests are skipped, except in CI, where that is a failure.

    It lives no longer than a module: Playwright's loop runs in this thread, where no asynchronous test then can.
    """
    if CHROMIUM is None:
        reason = "the report in a browser: there is no Chromium here; apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Any) -> Iterator[Callable[..., Opened]]:
    """Open a page and wait until it can be used; keyword arguments are a browser context's."""
    contexts = []

    def open_page(path: Path, fragment: str = "", **settings: Any) -> Opened:
        context = chromium.new_context(viewport=settings.pop("viewport", {"width": 1280, "height": 900}), **settings)
        contexts.append(context)
        opened = Opened(context.new_page())
        _watch(opened, path)
        opened.page.goto(f"{path.as_uri()}{fragment}")
        opened.page.wait_for_selector("html[data-ready]", timeout=20_000)
        return opened

    yield open_page
    for context in contexts:
        context.close()


def _watch(opened: Opened, path: Path) -> None:
    page, noted = opened.page, opened.complaints

    def route(call: Any) -> None:
        url = call.request.url
        if url.partition("#")[0] == path.as_uri() or url.startswith("data:"):
            return call.continue_()
        opened.requests.append(url)
        return call.abort()

    def dialog(shown: Any) -> None:
        noted.append(f"dialog: {shown.message}")
        shown.dismiss()

    page.route("**/*", route)
    page.on(
        "request",
        lambda request: None if request.url.startswith(("file:", "data:")) else opened.requests.append(request.url),
    )
    page.on(
        "console", lambda said: noted.append(f"{said.type}: {said.text}") if said.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: noted.append(f"exception: {error}"))
    page.on("dialog", dialog)
    page.add_init_script(
        "addEventListener('securitypolicyviolation', (e) => console.error(`CSP ${e.violatedDirective} ${e.sample}`))"
    )
