"""Pages in a Chromium that the tests of a process share."""

import contextlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, sync_playwright

from tests.support.missing import report, require

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')
PATIENCE = 120_000  # milliseconds, for a busy machine
ARGUMENTS = [
    '--no-sandbox',  # which root cannot have; the pages are our own
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
]


class Chromium:
    """A browser whose contexts are used again by later tests.

    The first page of a context costs about a CPU-second, another one a quarter of that. So each
    context keeps a blank page open; what a test opens in it is closed and forgotten afterwards.
    """

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._free: dict[str, list[BrowserContext]] = {}

    @contextmanager
    def context(self, **options: Any) -> Iterator[BrowserContext]:
        """A context with these options that no one else uses until the end of the block."""
        free = self._free.setdefault(repr(sorted(options.items())), [])
        if free:
            context = free.pop()
        else:
            context = self._browser.new_context(**options)
            context.set_default_timeout(PATIENCE)
            context.new_page()
        try:
            yield context
        except BaseException:
            context.close()
            raise
        _forget(context)
        free.append(context)


def _forget(context: BrowserContext) -> None:
    """Close all pages but the blank one, and drop what they have stored."""
    context.set_offline(False)
    for page in context.pages[1:]:
        with contextlib.suppress(Error):  # a page that may store nothing
            page.evaluate('localStorage.clear()')
        page.close()
    context.clear_cookies()


def require_chromium(path: str | None) -> str:
    """Where Chromium is. Without it, tests of pages are skipped, and fail in CI."""
    return require(path, 'There is no Chromium: the pages are not tested.')


def report_missing(path: str | None, reporter: pytest.TerminalReporter) -> None:
    """Say at the end of the session that the pages have not been tested, if so."""
    title = 'NO CHROMIUM, SO THE PAGES ARE NOT TESTED'
    report(path, reporter, title, "Install Debian's `chromium` to test them; CI does.")


@contextmanager
def running_chromium(path: str) -> Iterator[Chromium]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS, timeout=PATIENCE)
        yield Chromium(browser)
        browser.close()
