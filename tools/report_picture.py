"""`make report-picture`: docs/report.png, a window of the report on a mix, as a browser shows it.

In: a store with the mix, and Chromium. Out: a PNG, 1280 by 960 points. Cost: the report's, and a second.
"""

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

from pipeline.errors import ConfigError
from pipeline.store import Store
from tools.report.command import report

PICTURE = Path(__file__).parents[1] / "docs" / "report.png"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
REMEDY = "apt-get install chromium (Debian, Ubuntu), dnf install chromium (Fedora)"
DRAWN = "html[data-drawn=all]"  # report.js
SHOWN = "mix-shares"  # the section at the window's top


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mix", default="olmoe-mix")
    parser.add_argument("--store", default="data")
    options = parser.parse_args()
    report(mix=options.mix, store=options.store)
    draw(Store(options.store).local(f"reports/{options.mix}.html"), PICTURE)
    print(PICTURE)


def chromium() -> str | None:
    """The program, as the distribution packages it; None where there is none."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def draw(page: Path, picture: Path) -> None:
    """Raises ConfigError where there is no Chromium."""
    browser = chromium()
    if browser is None:
        raise ConfigError(f"no Chromium here; get it with: {REMEDY}")
    with sync_playwright() as playwright:
        window = playwright.chromium.launch(executable_path=browser).new_page(viewport={"width": 1280, "height": 960}, color_scheme="light")
        window.goto(f"{page.absolute().as_uri()}#{SHOWN}")
        window.locator(DRAWN).wait_for()
        window.locator(f"#{SHOWN}").evaluate("section => section.scrollIntoView({behavior: 'instant'})")
        window.screenshot(path=picture)


if __name__ == "__main__":
    main()
