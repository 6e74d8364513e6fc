"""A real browser for the tests that need one: Chromium, as the distribution packages it, driven by Playwright."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SCREENSHOTS = Path(__file__).parents[1] / "screenshots"  # git ignores it


def executable() -> str:
    """Where Chromium is. Without one the test is skipped; under CI it fails."""
    from tools.report_picture import REMEDY, chromium

    found = chromium()
    if found is None:
        message = f"no Chromium here; get it with: {REMEDY}"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return found


@contextmanager
def launched() -> Iterator["Browser"]:
    path = executable()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@contextmanager
def opened(browser: "Browser", file: Path, **options: object) -> Iterator["Page"]:
    """The page in a window of its own. Whatever it writes to the console, throws or asks for beside itself fails the test."""
    context = browser.new_context(**options)  # type: ignore[arg-type]
    page = context.new_page()
    heard: list[str] = []
    page.on("console", lambda message: heard.append(f"console {message.type}: {message.text}"))
    page.on("pageerror", lambda error: heard.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (heard.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: None if request.url == file.as_uri() else heard.append(f"request: {request.url[:200]}"))
    page.goto(file.as_uri())
    yield page
    context.close()
    if heard:
        raise AssertionError("\n".join(heard))


def screenshot(page: "Page", name: str, whole: bool = False) -> None:
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=whole)
