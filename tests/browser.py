"""A Chromium without network, for pages as their readers see them."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page, Playwright, Route

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = (
    "--no-sandbox",
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass
class Visit:
    """A page and its log.

    Attributes:
        page: Playwright's page.
        requests: The addresses beyond the page's origin that it requested; all were refused.
        errors: The exceptions of its scripts, and the errors that it logged.
    """

    page: Page
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@cache
def _running() -> tuple[Playwright, Browser]:
    """Return the browser of this process: to start one takes longer than to open a page."""
    sync_api = pytest.importorskip("playwright.sync_api")
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        pytest.skip("There is no Chromium on this machine: install one to test reports in it.")
    playwright = sync_api.sync_playwright().start()
    return playwright, playwright.chromium.launch(executable_path=executable, args=list(OPTIONS))


def close() -> None:
    """End the browser of this process, if there is one."""
    if _running.cache_info().currsize:
        playwright, browser = _running()
        browser.close()
        playwright.stop()
        _running.cache_clear()


@contextmanager
def visit(
    address: str, *, javascript: bool = True, timezone: str = "UTC", width: int = 1100
) -> Iterator[Visit]:
    """Open an address in a new profile that refuses requests to other origins."""
    _, browser = _running()
    origin = "file://" if address.startswith("file://") else "/".join(address.split("/")[:3]) + "/"
    allowed = (origin, origin.replace("http://", "ws://"), "data:", "blob:")
    context = browser.new_context(
        java_script_enabled=javascript,
        timezone_id=timezone,
        viewport={"width": width, "height": 900},
    )
    context.set_default_timeout(120_000)  # others may use the machine at the same time
    seen = Visit(context.new_page())

    # Requests that the page's own policy stops do not reach this function.
    def leaving(route: Route) -> None:
        if route.request.url.startswith(allowed):
            route.continue_()
        else:
            seen.requests.append(route.request.url)
            route.abort()

    context.route("**/*", leaving)
    seen.page.on("pageerror", lambda error: seen.errors.append(str(error)))
    seen.page.on(
        "console",
        lambda message: seen.errors.append(message.text) if message.type == "error" else None,
    )
    try:
        seen.page.goto(address)
        yield seen
    finally:
        context.close()
