"""What the pages' blocks are taken for, that each stand-in has a use, and that what pages name in passing exists. No command runs here."""

import re
from pathlib import Path

import pytest
import yaml

from tests.docs.checkout import ROOT
from tests.docs.pages import Block, blocks, commands, pages
from tests.docs.stand_ins import BEFORE, COMMENT, SMALLER, STAND_INS, StandIn, stood_in

ALL = [block for page in pages(ROOT) for block in blocks(ROOT, page)]
# Text that pages give to a shell or to a file, with the page.
GIVEN = [
    (block.page, text)
    for block in ALL
    for text in ([block.text] if block.file else [command for _, command in commands(block.text)] if block.language == "sh" else [])
]


def of(tmp_path: Path, text: str) -> list[Block]:
    (tmp_path / "README.md").write_text(text)
    return blocks(tmp_path, "README.md")


@pytest.mark.parametrize(
    "text, expected",
    [
        ("make a\nmake b  # why\n", ["make a\n", "make b  # why\n"]),
        ("# only said\n\nmake a\n", ["make a\n"]),
        ("make a \\\n  B=1\nmake c\n", ["make a \\\n  B=1\n", "make c\n"]),
        ("until false\ndo\n  make a\ndone\nmake b", ["until false\ndo\n  make a\ndone\n", "make b\n"]),
        ("cat > a <<'END'\nif true\nEND\nmake b\n", ["cat > a <<'END'\nif true\nEND\n", "make b\n"]),
        ('make sql Q="SELECT 1,\n2"\nmake b &&\nmake c\n', ['make sql Q="SELECT 1,\n2"\n', "make b &&\nmake c\n"]),
    ],
)
def test_a_command_is_the_fewest_lines_that_a_shell_takes_for_whole(text: str, expected: list[str]) -> None:
    assert [command for _, command in commands(text)] == expected


@pytest.mark.parametrize("text", ["make a \\\n", 'make Q="a\n', "if true\n", "make a )\n"])
def test_what_is_no_command_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="line 1"):
        list(commands(text))


def test_a_block_has_its_place_its_language_and_the_file_that_the_text_above_names(tmp_path: Path) -> None:
    text = "One file,\n`a/b.yaml`, like `c.yaml`:\n\n```yaml\nx: 1\n```\n\nElsewhere, `d.yaml`.\n\nA part:\n\n```yaml\ny: 2\n```\n"
    found = of(tmp_path, text + "* a list\n\n  ```sh\n  make a\n    b\n  ```\n\n~~~\nmake no\n~~~\n\n```{toctree}\na\n```\n")
    assert [(block.line, block.language, block.text, block.file) for block in found] == [
        (5, "yaml", "x: 1\n", "a/b.yaml"), (13, "yaml", "y: 2\n", ""), (18, "sh", "make a\n  b\n", ""), (23, "", "make no\n", ""),
    ]  # fmt: skip


def test_a_script_is_a_file_and_commands_are_none(tmp_path: Path) -> None:
    scripts = "`job.sbatch`:\n\n```sh\n#!/bin/bash\nmake a\n```\n\n`run.sh`:\n\n```sh\nmake b\n```\n\n```dockerfile\nFROM a\n```\n"
    assert [block.file for block in of(tmp_path, scripts)] == ["job.sbatch", "", "Dockerfile"]


@pytest.mark.parametrize("text", ["```bash\nmake a\n```\n", "```console\n$ make a\n```\n", "```sh\nmake a\n"])
def test_no_command_hides_under_another_language_or_without_an_end(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"README\.md:1"):
        of(tmp_path, text)


def test_pages_are_read_in_the_order_of_the_contents_and_none_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for name in ("README.md", "CONTRIBUTING.md", "docs/a.md", "docs/b.md", "docs/c.md"):
        (tmp_path / name).touch()
    (tmp_path / "docs" / "index.md").write_text("```{toctree}\n:maxdepth: 1\n\nc\nThe title <b.md>\n```\n")
    assert pages(tmp_path) == ["README.md", "docs/c.md", "docs/b.md", "docs/a.md", "docs/index.md", "CONTRIBUTING.md"]


def test_a_stand_in_takes_whole_words_and_leaves_remarks_out() -> None:
    stand_in = StandIn("make test", "make test QUICK=1", "")
    assert stand_in.put_in("make test  # make test\n") == "make test QUICK=1\n"
    assert not any(stand_in.is_for("README.md", text) for text in ("make test-all", "remake test", "make a  # make test"))
    assert StandIn("a/b", "c", "").put_in("x=a/b/d a/b") == "x=a/b/d c"
    assert StandIn("make a X=", "make a Y=1 X=", "").put_in("make a X=2") == "make a Y=1 X=2"
    assert not StandIn("make", "x", "", page="docs/a.md").is_for("README.md", "make")


def test_every_stand_in_is_used() -> None:
    """In the table's order, as they are put in."""
    used = set()
    for page, given in GIVEN:
        text = given
        for each in STAND_INS:
            if each.is_for(page, text):
                used.add(each)
                text = each.put_in(text)
        assert text == stood_in(page, given)
    assert not [each.says for each in STAND_INS if each not in used]
    assert not [before.page for before in BEFORE if before.page not in pages(ROOT)]


def test_every_smaller_file_has_the_keys_that_it_makes_smaller() -> None:
    for smaller in SMALLER:
        content = (ROOT / smaller.file).read_text()
        assert smaller.applied(yaml.safe_load(content)) != yaml.safe_load(content)


def test_every_target_and_variable_of_make_that_a_page_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    variables = set(re.findall(r"^([A-Z]+) *\?=", makefile, re.M)) | set(re.findall(r"\$\((?:value )?([A-Z]+)\)", makefile))
    wrong = []
    for page in pages(ROOT):
        for said in [*re.findall(r"`(make [^`]+)`", (ROOT / page).read_text()), *(text for each, text in GIVEN if each == page)]:
            for call in re.findall(r"(?:^|[\s;&|(])make ([^#;&|]+)", COMMENT.sub("", said)):
                named = re.findall(r"^[a-z-]+|(?<!\S)[A-Z]+(?==)", re.sub(r"\"[^\"]*\"|'[^']*'", "", call))
                wrong += [f"{page}: make {call.strip()}: {word}" for word in named if word not in targets | variables]
    assert not wrong
