"""Source files: their figures against plain Python, what is known of a file, and StarCoder's and AlgebraicStack's decisions."""

import re
from typing import Any

import pytest
from bs4 import BeautifulSoup
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.pipeline.filters import columns, documents, dropped_by

BREAKS = ["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x1f", "\x85", "\u2028", "\u2029", "\x00"]
DEGENERATE = (
    "",
    "x",
    "\n",
    "\r\n",
    "\n\r",
    "....",
    "😀😀",
    "漢字かな",
    "שלום עולם",
    "e\u0301",
    "a\r\nb\rc\u2028d",
    "٣٤",
    "²½",
    "\ufeff<?xml version=",
)


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.lists(st.sampled_from([*BREAKS, "a", "9", "٣", "é", "漢", "😀", " ", "_", "<"]), max_size=30).map("".join), max_size=5))
@example(list(DEGENERATE))
def test_figures_are_those_of_python_strings(texts: list[str]) -> None:
    got = columns("code", documents(texts))
    for index, text in enumerate(texts):
        lines = [len(line) for line in text.splitlines()]
        visible = "".join(text.split())
        assert got["code_longest_line"][index] == max(lines, default=0)
        assert got["code_mean_line_length"][index] == (sum(lines) / len(lines) if lines else 0.0)
        assert got["code_alphanumeric_share"][index] == (sum(map(str.isalnum, text)) / len(text) if text else 0.0)
        assert got["code_digit_share"][index] == (sum(c in "0123456789" for c in visible) / len(visible) if visible else 0.0)
        assert got["code_xml"][index] == ("<?xml version=" in text[:100])


def test_a_line_of_20_million_characters_is_one_line() -> None:
    got = columns("code", documents(["é1" * 10_000_000]))
    assert got["code_longest_line"] == [20_000_000] and got["code_digit_share"] == [0.5]


@pytest.mark.parametrize("before", ["", "é" * 86, "é" * 87, "é" * 100])
def test_xml_counts_where_it_stands_in_the_first_100_characters(before: str) -> None:
    assert columns("code", documents([f'{before}<?xml version="1.0"?>']))["code_xml"] == [len(before) <= 86]


@pytest.mark.parametrize(
    "metadata, file, language, extension, path, repository",
    [
        ({"max_stars_repo_path": "a/B.PY", "max_stars_repo_name": "o/r"}, "python/train-0.parquet", "python", "py", "a/B.PY", "o/r"),
        ({"max_stars_repo_path": "a/b.h"}, "cpp/train-00000-of-00001.parquet", "c++", "h", "a/b.h", ""),
        ({"max_stars_repo_path": "a/b.h", "extension": "cpp"}, "data/starcoder-0000.json.gz", "c++", "h", "a/b.h", ""),
        ({"max_stars_repo_path": "a/b.h", "lang": "C", "ext": "H"}, "cpp/x.parquet", "c", "h", "a/b.h", ""),
        ({"lang": "C#", "ext": "cs"}, "a.jsonl", "c-sharp", "cs", "", ""),
        ({"lang": "Jupyter Notebook"}, "a.jsonl", "jupyter-notebook", "", "", ""),
        ({"path": "x/Makefile", "repo": "proofs"}, "a.jsonl", "", "", "x/Makefile", "proofs"),
        ({"path": "src/a.lean", "extension": "lean"}, "p-1/src/a.lean", "lean", "lean", "src/a.lean", ""),
        ({}, "p-1/src/a.f90", "fortran", "f90", "p-1/src/a.f90", ""),
        ({}, "data/0001.json.gz", "", "", "", ""),
        ({"ext": 3, "lang": None, "path": ["x"]}, "a.zst", "", "", "", ""),
    ],
)
def test_what_a_file_is(metadata: dict[str, Any], file: str, language: str, extension: str, path: str, repository: str) -> None:
    got = columns("code_file", documents(["x"], [metadata], file))
    assert got == {"code_language": [language], "code_extension": [extension], "code_path": [path], "code_repository": [repository]}


def visible(html: str) -> int:
    soup = BeautifulSoup(html, features="html.parser")
    for tag in soup(["script", "style"]):
        tag.extract()
    return len(soup.get_text())


HTML = [{"lang": "HTML", "ext": "html"}]
MARKUP = st.sampled_from(
    "<p>|</p>|<div class='a b'>|</div>|<br>|<br/>|</br>|<img src=x alt=\"1 > 2\"/>|<pre>|</pre>|<textarea>|</textarea>|<li>|<LI>|</li>"
    "|<script>if (a < b) '<p>'</script>|<STYLE type='x'>p > a {}</style >|<template>|</template>|<ruby>|<rt>|</rt>|<!-- <p> -->"
    "|<!doctype html>|<![CDATA[x <p> ]]>|<?php echo 1 ?>|text|é漢😀|\n| |\t \n|\xa0|&amp;|&nbsp;|&nbsp |&unknown;|&fjlig;|&Tab;|&#65;"
    "|&#x41;|&#32;|a & b|1 < 2|<a href='x' disabled b = c>|</a>".split("|")
)


@settings(deadline=None)  # the first call compiles
@given(st.lists(MARKUP, max_size=12).map("".join))
@example("".join(f"<x{depth}>" for depth in range(1_000)) + " </x3>\n")
def test_visible_text_is_beautiful_soups(html: str) -> None:
    assert columns("code_html", documents([html], HTML))["code_visible_text"] == [visible(html)]


@pytest.mark.parametrize(
    "html, shown",  # by Beautiful Soup 4.15.0 on Python 3.11.7; other versions of html.parser read some of these otherwise
    [
        ("", 0), ("<", 1), ("&", 1), ("&#", 2), ("a&lt", 4), ("&#;x &#;<b>", 11), ("&a", 1), ("&a-", 3), ("<p", 2), ("<p a='x", 7),
        ("<p a= 'x>y", 1), ("<p a=='x'>y", 1), ("<p a==b>c", 1), ("<p/ >x", 1), ("<script>x", 0), ("<script/>x", 1), ("</ p >x", 1),
        ("</3>x", 1), ("</>x", 1), ("<p\x00>x", 5), ("<!-->x-->y", 1), ("<!-- x -- >y", 1), ("<!x>y", 1), ("<![if x]>y<![endif]>", 1),
        ("x<![foo[y]]>", 0), ("x<![ y", 0), ("<![CDATA[]]>", 1), ("<template><![CDATA[x]]></template>", 1), ("x<!doctype", 10),
        ("<pre> \n </pre> \n ", 4), ("<input><input></input> </input> ", 1), ("<rt>a<p>b</rt>c", 1), ("<a b=c/>x</a>", 1),
    ],
)  # fmt: skip
def test_visible_text_of_odd_markup(html: str, shown: int) -> None:
    assert columns("code_html", documents([html], HTML))["code_visible_text"] == [shown]


def test_only_html_files_have_visible_text() -> None:
    page = "<p>one two</p>"
    metadata = [{"lang": "HTML"}, {"lang": "Python"}, {"path": "a/b.htm"}, {}]
    assert columns("code_html", documents([page] * 4, metadata))["code_visible_text"] == [7, 0, 7, 0]
    assert columns("code_html", documents([]))["code_visible_text"] == []


GOOD = "value = compute(first, second)\n" * 8


@pytest.mark.parametrize(
    "language, extension, text, reason",
    [
        ("Python", "py", GOOD, None),
        ("Python", "pyx", GOOD, "other_extension"),
        ("Swift", "swift", GOOD, "other_extension"),
        ("Python", "py", GOOD + "x" * 1001, "long_line"),
        ("Python", "py", GOOD + "x" * 1000, "long_lines"),
        ("GLSL", "fsh", GOOD * 9 + "x" * 501, "long_line"),
        ("GLSL", "vsh", GOOD * 9 + "x" * 501, None),
        ("Markdown", "md", GOOD + "x" * 5000, None),
        ("Python", "py", GOOD + "." * 90 * 10 + "\n" * 60, "few_alphanumeric"),
        ("SAS", "sas", GOOD + "." * 90 * 10 + "\n" * 60, None),
        ("Scheme", "scm", GOOD + "1 " * 300, "few_letters"),
        ("YAML", "yml", GOOD + "1 " * 90, "few_letters"),
        ("C++", "hpp", '<?xml version="1.0"?>' + GOOD, "xml"),
        ("XSLT", "xsl", '<?xml version="1.0"?>' + GOOD, None),
        ("HTML", "html", "<p>" + GOOD, None),
        ("HTML", "html", f"<p>{GOOD[:100]}", "html_without_text"),
        ("HTML", "html", "<p>" + GOOD + "<p class='abcdefgh'>\n" * 120, "html_without_text"),
        ("JSON", "json", GOOD[:99].replace(" ", "_"), "size"),
        ("JSON", "json", GOOD * 25, "size"),
        ("JSON", "json", GOOD * 20, None),
    ],
)
def test_starcoder_decides_by_language_and_extension(language: str, extension: str, text: str, reason: str | None) -> None:
    assert dropped_by("starcoder", documents([text], [{"lang": language, "ext": extension}])) == [reason]


def test_the_stacks_basic_rules_are_the_same_for_all_files() -> None:
    texts = [GOOD, "x" * 1001, "x " * 51, ".... ..\n" * 9 + "x", ""]
    assert dropped_by("stack-code", documents(texts)) == [None, "long_line", "long_lines", "few_alphanumeric", "few_alphanumeric"]


@pytest.mark.parametrize(
    "language, text, reason",
    [
        ("Swift", GOOD, "other_language"),
        ("Fortran", GOOD, None),
        ("Fortran", GOOD * 35_000, "too_large"),
        ("Maple", GOOD * 3_300, "too_large"),
        ("Julia", GOOD * 3_300, "generated_julia"),
        ("Julia", (GOOD + "@test x\n") * 3_300, None),
        ("Fortran", GOOD + "1" * 300, "too_many_digits"),
        ("C++", "#include <boost/math>\n" + GOOD + "1" * 30, "too_many_digits"),
        ("C++", "#include <boost/math>\n" + GOOD, None),
        ("C++", "#include <vector>\n" + GOOD, "not_mathematical"),
        ("C", "#include <gsl/gsl_math.h>\n", None),
        ("C", "#include <fftw3.h>\n", "not_mathematical"),
        ("Python", "import numpy as np\n", None),
        ("Python", "from  numpy import x\n", "not_mathematical"),
        ("Python", '\n {"x": "import numpy"}', "other_kind_of_file"),
        ("Haskell", "import\u2003qualified \n Statistics", None),
        ("Haskell", "import Data\nComplex", "not_mathematical"),
        ("R", "Requirement{ Identifier", None),
        ("R", "Requirement\x1c{\nIdentifier", "other_kind_of_file"),
        ("R", " {", None),
        ("R", "{", "other_kind_of_file"),
        ("Jupyter Notebook", "IMPORT SymPy", None),
        ("Jupyter Notebook", "import ſympy", "not_mathematical"),
        ("Lean", "def x := 1", None),
    ],
)
def test_algebraic_stack_decides_by_language(language: str, text: str, reason: str | None) -> None:
    metadata = {"lang": language, "max_stars_repo_name": "owner/name"}
    assert dropped_by("algebraic-stack", documents([text], [metadata])) == [reason]


@pytest.mark.parametrize(
    "path, repository, text, reason",
    [
        ("a.lean", "mathlib", "theorem x : y", None),
        ("a.lean", "mathlib", "def x := 1", "not_mathematical"),
        ("a.lean", "miniF2F", "theorem x : y", "banned_repository"),
        ("_target/deps/a.lean", "mathlib", "theorem x : y", "banned_repository"),
        ("a.thy", "mirror-afp-devel", "lemma x", None),
        ("a.thy", "mirror-afp-2021", "lemma x", "banned_repository"),
        ("a.v", "x", "Qed.", None),
        ("a.v", "x", "Qed. always @(posedge clk)", "other_kind_of_file"),
        ("a.m", "x", "y = x';", None),
        ("a.m", "x", "int main(int x) {\n", "other_kind_of_file"),
        ("a.m", "x", "int main(int x) {\n}", None),
        ("a.tex", "x", r"\section{x}", None),
        ("latex/a.tex", "x", r"\section{x}", "not_a_tex_document"),
        ("a.sty", "x", r"\section{x}", "not_a_tex_document"),
        ("a.tex", "x", r"\paragraph*{x}", "not_mathematical"),
    ],
)
def test_algebraic_stack_decides_by_path_and_repository(path: str, repository: str, text: str, reason: str | None) -> None:
    assert dropped_by("algebraic-stack", documents([text], [{"path": path, "repo": repository}])) == [reason]


@given(st.text(st.sampled_from("@test\n 1")))
def test_tests_of_julia_are_a_share_of_lines(text: str) -> None:
    got = columns("algebraic_stack", documents([text], [{"lang": "Julia"}]))
    assert got["code_test_share"] == [len(re.findall("@test", text)) / (text.count("\n") + 1)]
