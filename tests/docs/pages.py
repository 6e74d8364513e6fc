"""What the pages ask a reader to type: their fenced blocks, and a block's commands.

In: README.md, CONTRIBUTING.md and docs/*.md of a checkout, in the order in which they are read. Out: blocks, each with its language, its
text, the page's line that it begins on, and the file that the paragraph above it names. Cost: milliseconds a page; a command of several
lines asks bash once per line where it ends. Not: outputs and drawings (fences without a language), and Sphinx's directives.
"""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<language>[^`]*)$")
# Suffixes of the files that a language is written to.
SUFFIXES = {"sh": "sbatch|sh", "yaml": "ya?ml", "python": "py", "json": "jsonl?", "text": "txt"}
NAMES = {"dockerfile": "Dockerfile"}  # a language that is a file's name
# A language colours a text, says that it is a file's, or that it is run. A shell's commands have one name alone, so that all are found.
LANGUAGES = {"", "text", "sql", "json", "sh", "yaml", "python", "dockerfile"}
UNFINISHED = ("end of file", "end-of-file", "unexpected EOF")  # bash, of a text that goes on


@dataclass(frozen=True)
class Block:
    """page: relative to the checkout. line: of the first line of text, from 1. file: what the paragraph above says it is, or empty."""

    page: str
    line: int
    language: str
    text: str
    file: str

    @property
    def is_script(self) -> bool:
        return self.text.startswith("#!")

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def pages(root: Path) -> list[str]:
    """README first, then the site in the order of its contents, then what the contents leave out, CONTRIBUTING last."""
    index = root / "docs" / "index.md"
    listed = re.findall(r"^(?:.*<)?([\w-]+)(?:\.md)?>?$", _contents(index.read_text()), re.M) if index.exists() else []
    present = {path.stem: f"docs/{path.name}" for path in sorted((root / "docs").glob("*.md"))}
    site = [present[name] for name in dict.fromkeys([*listed, *present]) if name in present]
    return [page for page in ("README.md", *site, "CONTRIBUTING.md") if (root / page).exists()]


def _contents(text: str) -> str:
    return "\n".join(re.findall(r"^```\{toctree\}\n(.*?)^```$", text, re.M | re.S))


def blocks(root: Path, page: str) -> list[Block]:
    """The fenced blocks of a page. Raises ValueError for a fence that does not end, or whose language is not among LANGUAGES."""
    found, lines = [], (root / page).read_text().splitlines()
    above: list[str] = []  # the paragraph before this line
    place = 0
    while place < len(lines):
        opened = FENCE.match(lines[place])
        if not opened:
            above = [*above, lines[place]] if lines[place].strip() else above if _fence_follows(lines, place) else []
            place += 1
            continue
        end = next((at for at in range(place + 1, len(lines)) if lines[at].strip() == opened["fence"]), None)
        if end is None:
            raise ValueError(f"{page}:{place + 1}: this block does not end")
        language = opened["language"].strip()
        if not language.startswith("{"):
            if language not in LANGUAGES:
                known = ", ".join(sorted(LANGUAGES - {""}))
                raise ValueError(f"{page}:{place + 1}: {language} is not among {known}; a shell's commands are sh")
            indent = len(opened["indent"])
            text = "\n".join(line[indent:] if not line[:indent].strip() else line for line in lines[place + 1 : end])
            found.append(Block(page, place + 2, language, f"{text}\n", _named(language, text, " ".join(above))))
        above, place = [], end + 1
    return found


def _fence_follows(lines: list[str], place: int) -> bool:
    return place + 1 < len(lines) and FENCE.match(lines[place + 1]) is not None


def _named(language: str, text: str, paragraph: str) -> str:
    if language in NAMES:
        return NAMES[language]
    if language not in SUFFIXES or (language == "sh" and not text.startswith("#!")):
        return ""
    found = re.search(rf"`([\w./-]+\.(?:{SUFFIXES[language]}))`", paragraph)
    return found[1] if found else ""


def commands(text: str) -> Iterator[tuple[int, str]]:
    """A block's commands with the lines that they begin on, from 0: each the fewest lines that bash takes for something whole.

    Raises ValueError if the last of them is not whole, or one is none.
    """
    begun, so_far = 0, ""
    for number, line in enumerate(text.splitlines()):
        if not so_far:
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            begun = number
        so_far += f"{line}\n"
        if line.endswith("\\"):
            continue
        answer = subprocess.run(["bash", "-n"], input=so_far, capture_output=True, text=True, env={"LC_ALL": "C"})
        if any(sign in answer.stderr for sign in UNFINISHED):
            continue
        if answer.returncode:
            raise ValueError(f"line {begun + 1}: {answer.stderr.strip()}")
        yield begun, so_far
        so_far = ""
    if so_far:
        raise ValueError(f"line {begun + 1}: this command does not end")
