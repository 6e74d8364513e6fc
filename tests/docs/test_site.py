"""The pages as a site: built without a warning, all links whole, nothing from outside; and their Markdown alone."""

import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
LOADS = {"src", "srcset", "poster", "data", "background", "xlink:href"}  # attributes by which a page loads what they name
LOADED_BY_LINK = {"stylesheet", "icon", "shortcut", "preload", "modulepreload", "prefetch", "preconnect", "dns-prefetch", "manifest"}


class Page(HTMLParser):
    """What a page has for others to link to, what it links to, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        self.loads += [given[name] for name in LOADS & given.keys() if tag != "param"]
        if "href" in given:
            by_itself = tag in ("image", "use") or (tag == "link" and LOADED_BY_LINK & set(given.get("rel", "").split()))
            (self.loads if by_itself else self.links).append(given["href"])


def broken_links(site: Path) -> list[str]:
    """page → link, of each that leads to no file or no place in it."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    broken = []
    for path, page in pages.items():
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if not target.is_file() or (anchor and target in pages and anchor not in pages[target].anchors):
                broken.append(f"{path.relative_to(site)} → {link}")
    return sorted(broken)


def from_outside(site: Path) -> list[str]:
    """file → address, of all that pages and style sheets load from elsewhere than the site."""
    found = []
    for path in site.rglob("*"):
        if path.suffix == ".html":
            named = Page(path.read_text(encoding="utf-8")).loads
        elif path.suffix == ".css":
            named = re.findall(r"""(?:url\(|@import\s)\s*["']?([^"')\s]+)""", path.read_text(encoding="utf-8"))
        else:
            continue
        found += [f"{path.relative_to(site)} → {name}" for name in named if urlsplit(name).netloc]
    return sorted(found)


def build(docs: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """As `make docs` does it."""
    (command,) = re.findall(r"\$\(BIN\)/python -m (sphinx [^&\n]+)", (ROOT / "Makefile").read_text())
    words = [{"docs": str(docs), "build/docs": str(out)}.get(word, word) for word in command.split()]
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")  # who asks the network fails
    return subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, env={**os.environ, **nowhere})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = build(DOCS, out)
    assert (done.returncode, done.stderr) == (0, "")
    return out


@pytest.mark.slow
def test_every_page_is_there_and_in_the_contents(site: Path) -> None:
    linked = {urlsplit(link).path for link in Page((site / "index.html").read_text()).links}
    assert len(PAGES) > 20
    assert [page.name for page in PAGES if page.stem != "index" and f"{page.stem}.html" not in linked] == []
    assert [page.name for page in PAGES if not (site / f"{page.stem}.html").is_file()] == []


@pytest.mark.slow
def test_every_link_leads_somewhere(site: Path) -> None:
    assert broken_links(site) == []


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    assert from_outside(site) == []


@pytest.mark.slow
def test_a_browser_asks_for_nothing_from_elsewhere_and_has_no_errors(site: Path, browser: "Browser") -> None:
    """Here with what scripts do too: the switch between light and dark, and the search."""
    heard: list[str] = []

    def answer(route: "Route") -> None:
        if route.request.url.startswith(site.as_uri()):
            route.continue_()
        else:
            heard.append(f"request: {route.request.url[:200]}")
            route.abort()

    context = browser.new_context(color_scheme="light")
    context.route("**/*", answer)
    page = context.new_page()
    page.on("console", lambda message: heard.append(f"{message.type}: {message.text}") if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: heard.append(f"error: {error}"))
    for each in PAGES:
        page.goto((site / f"{each.stem}.html").as_uri())
    page.goto(f"{(site / 'search.html').as_uri()}?q=tokenizer")
    page.wait_for_selector("#search-results li")
    page.goto((site / "architecture.html").as_uri())
    paper = "getComputedStyle(document.querySelector('#architecture .paper')).fill"
    shown = set()
    for theme in ("light", "dark"):
        page.evaluate(f"document.body.dataset.theme = '{theme}'")
        shown.add(page.evaluate(paper))
    context.close()
    assert len(shown) == 2  # the drawing follows the page
    assert heard == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault, said",
    [
        ("[nowhere](nowhere.md)", "nowhere"),
        ("[no place](index.md#no-such-place)", "no-such-place"),
        ("![no picture](no-picture.png)", "no-picture"),
        ("```yaml\na: [1\nb: }\n```", "yaml"),
        ("```{toctree}\nno-page\n```", "no-page"),
    ],
    ids=["page", "anchor", "picture", "block", "contents"],
)
def test_a_fault_in_a_page_stops_the_build_and_is_named(fault: str, said: str, tmp_path: Path) -> None:
    shutil.copy(DOCS / "conf.py", tmp_path)
    (tmp_path / "index.md").write_text(f"# Title\n\n{fault}\n")
    done = build(tmp_path, tmp_path / "out")
    assert done.returncode != 0
    assert "index.md" in done.stderr and said in done.stderr


def test_broken_links_and_outside_resources_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        "<a href='b.html#there'></a><a href='b.html#not-there'></a><a href='c.html'></a><a href='https://elsewhere/'></a>"
        "<script src='https://elsewhere/a.js'></script><link rel='stylesheet' href='a.css'><link rel='canonical' href='https://here/'>"
    )
    (tmp_path / "b.html").write_text("<p id='there'><img src='//elsewhere/a.png'><a href='#there'></a>")
    (tmp_path / "a.css").write_text("@import 'https://elsewhere/b.css'; p { background: url(data:image/png;base64,AA==) url(b.html) }")
    assert broken_links(tmp_path) == ["a.html → b.html#not-there", "a.html → c.html"]
    assert from_outside(tmp_path) == [
        "a.css → https://elsewhere/b.css", "a.html → https://elsewhere/a.js", "b.html → //elsewhere/a.png",
    ]  # fmt: skip


def headings(text: str) -> set[str]:
    """The anchors of a page's headings, as hosts of repositories make them of words: lower case, no punctuation, blanks as hyphens."""
    seen: Counter[str] = Counter()
    found = set()
    for title in re.findall(r"^#{1,6} (.+)$", without_blocks(text), re.M):
        plain = re.sub(r"`|\[([^]]*)\]\([^)]*\)", r"\1", title).strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return found


def without_blocks(text: str) -> str:
    return re.sub(r"^( *)(```+|~~~+).*?^\1\2 *$", "", text, flags=re.M | re.S)


def relative_links(page: Path) -> Iterator[str]:
    text = re.sub(r"`[^`\n]+`", "", without_blocks(page.read_text()))
    yield from (link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not urlsplit(link).scheme)


def test_links_lead_somewhere_where_the_repository_is_read_too() -> None:
    broken, count = [], 0
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]:
        for link in relative_links(page):
            count += 1
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            if not target.exists() or (anchor and anchor not in headings(target.read_text())):
                broken.append(f"{page.name} → {link}")
    assert broken == []
    assert count > 100


def test_the_drawing_is_whole_by_itself_and_says_what_it_shows() -> None:
    drawing = ET.parse(DOCS / "architecture.svg").getroot()
    text = (DOCS / "architecture.svg").read_text()
    ids = {element.get("id") for element in drawing.iter()}
    assert set(re.findall(r"url\(#([\w-]+)\)", text)) <= ids
    assert set((drawing.get("aria-labelledby") or "").split()) <= ids - {None}
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text)
    # In a page it shares names with everything else there.
    assert all(name is None or name.startswith("architecture") for name in ids)
    (style,) = drawing.iter("{http://www.w3.org/2000/svg}style")
    styles = re.sub(r"/\*.*?\*/|@media[^{]*\{", "", style.text or "")
    assert all("#architecture" in selector for selector in re.findall(r"([^{}]+)\{", styles))
