"""A browser for pages, and what it saw."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def executable() -> str:
    """Where a Chromium is; without one the test is skipped, but fails where CI is set."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        sentence = "pages are looked at in Chromium, and there is none: on Debian apt install chromium"
        if os.environ.get("CI"):
            pytest.fail(sentence)
        pytest.skip(sentence)
    return found


@contextmanager
def started() -> Iterator[Browser]:
    """A headless browser. Chromium's sandbox does not run as root, and the pages are ours."""
    path = executable()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"], timeout=300_000)
        yield browser
        browser.close()


@dataclass
class Seen:
    """What a page asked for beside itself, and what went wrong in it."""

    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@contextmanager
def opened(browser: Browser, path: Path, **options: Any) -> Iterator[Page]:
    """A page from the disk, drawn. Afterwards: nothing was fetched, nothing went wrong, no dialog opened."""
    seen = Seen()
    context = browser.new_context(**options)
    context.set_default_timeout(300_000)  # milliseconds: patience for a busy machine, nothing is measured
    page = context.new_page()
    page.on(
        "console", lambda message: seen.errors.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on("dialog", lambda dialog: (seen.errors.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: seen.requests.append(request.url))
    page.route("**/*", lambda route: route.continue_() if route.request.url == path.as_uri() else route.abort())
    page.goto(path.as_uri())
    yield page
    context.close()
    assert seen.errors == []
    assert [url for url in seen.requests if url not in (path.as_uri(), "data:,", "about:srcdoc")] == []
