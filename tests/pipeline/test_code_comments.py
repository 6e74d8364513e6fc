"""Comments of source files: against ast, tokenize and Pygments, as bigcode-dataset and Dolma use them."""

import ast
import io
import json
import textwrap
import tokenize
import warnings
from pathlib import Path
from typing import Any

import pygments
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pygments.lexers import get_lexer_by_name
from pygments.token import Comment

from tests.pipeline.filters import columns, documents, dropped_by


def shares(texts: list[str], language: str) -> list[float]:
    return columns("code_comments", documents(texts, [{"lang": language}] * len(texts)))["code_comment_share"]


def by_pygments(text: str, language: str) -> float:
    tokens = pygments.lex(text, get_lexer_by_name(language))
    return sum(len(token) for kind, token in tokens if kind in (Comment.Single, Comment.Multiline)) / max(len(text), 1)


def by_python(text: str) -> float:
    kinds = [ast.ClassDef, ast.FunctionDef, ast.Module]
    try:
        nodes: list[Any] = [node for node in ast.walk(ast.parse(text)) if type(node) in kinds]
        nodes.sort(key=lambda node: (kinds.index(type(node)), getattr(node, "name", "")))
        docstrings = "\n".join(filter(None, map(ast.get_docstring, nodes)))
    except (SyntaxError, ValueError):
        docstrings = ""
    try:
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        comments = "".join(token.string for token in tokens if token.type == tokenize.COMMENT)
    except Exception:
        comments = ""
    return len((docstrings + "\n" + comments.replace("#", "")).strip()) / max(len(text), 1)


def check_python(texts: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # strange escapes
        assert shares(texts, "Python") == [by_python(text) for text in texts]


def folder_of(module: object) -> Path:
    return Path(str(module.__file__)).parent  # type: ignore[attr-defined]


DEGENERATE = (
    "", "#", "x", "\n", "\r\n", "\n\r", "....", "😀😀", "漢字", "שלום", "e\u0301", "\x00", "\x1c", "\x85", "\u2028", "\ufeff# x",
    "//", "/*", "*/", "/**/", "'", '"', "`", "\\", "# a\r\n# b\r\n", "# a\r# b", "/* a\r\n b */", "// a\r// b", "#\xa0#",
)  # fmt: skip


@pytest.mark.parametrize("language", ["Python", "Java", "JavaScript"])
def test_degenerate_texts(language: str) -> None:
    right = [by_python(text) if language == "Python" else by_pygments(text, language) for text in DEGENERATE]
    assert shares(list(DEGENERATE), language) == right


@pytest.mark.slow
def test_twenty_million_characters_without_a_line_end() -> None:
    assert shares(["#" + "é" * 20_000_000], "Python") == [20_000_000 / 20_000_001]
    assert shares(["x//" + "é" * 20_000_000, '"' * 19_999_999], "JavaScript") == [20_000_002 / 20_000_003, 0]
    assert shares(["x " * 10_000_000, "/* " * 7_000_000], "Java") == [0, 0]


JAVASCRIPT = st.sampled_from(
    "/|//|/*|*/|\"|'|`|${|}|{|\\|\n|\n  | |in|return|x|$|new$|$in|1|0x1f|0b1|.5|1e-5|=>|==|=|++|--|<!--|-->|[|]|(|)|/a/g|/[/]/|/a/z|é"
    "|²|#|#in|\\u0041|()|?.|...|\r\n|\r|\ufeff|😀|??|as|in²|#! /x|() {|\\\n|&&|0n|x/y/z|>>>=|!=".split("|")
)
JAVA = st.sampled_from(
    '//|/*|*/|"|"""\n|"""|\'|\'\\\'\'|\'"\'|\\|\n|\n  | |class |record |import |import static |package |module |var |x|foo|(|)|Foo<A> '
    "|.class|@interface |@Foo|$|:|default|case |public |static |/|{|}|;|é|٣|😀|=|a.b|[|int |\r\n|\t|*|\u2028|\r".split("|")
)


@settings(deadline=None, max_examples=200)  # the first call compiles
@given(st.lists(JAVASCRIPT, max_size=25).map("".join))
@example("a = b / 2 // c /d\n  /x/.y // z")
@example("`a ${ b // c }` /* d */")
def test_comments_of_javascript_are_those_of_pygments(text: str) -> None:
    assert shares([text], "JavaScript") == [by_pygments(text, "javascript")]


@settings(deadline=None, max_examples=200)
@given(st.lists(JAVA, max_size=25).map("".join))
@example('record.foo = "a//b";\n\'"\' // c')
@example("import /* lost */ a; /* kept */ Foo.class /* kept */")
def test_comments_of_java_are_those_of_pygments(text: str) -> None:
    assert shares([text], "Java") == [by_pygments(text, "java")]


LINES = st.sampled_from(
    [
        "x = 1", "x.y[0](a, b=c)", "# one", "#! two ##  ", "'''doc'''", '"""doc\n\tmore  \n      most\n   """', "r'a\\d'",
        "'a\\td\\x41\\\n b'", "b'x'", "f'{x}'",
        "f'{x[\"a\"]:#x} {y!r:{z}} {{'", "f'{x[y}'", "f'{x$}'", "f'{10L}'",
        'f"{a["b"]}"', "'a' 'b'", "'a'; b", "('a')", "'a'.join(b)", "'\\n  \\n'", "'\xa0a\x0b'",
        "'\\N{x}'", "'\\xz'", "'a' # b", "def f(a, b=1, *c, d: int = 2, **e) -> 'x':", "def g(): 'doc'", "async def f():",
        "class A(B, c=d):", "class C: pass", "if x:", "elif y:", "else:", "for x in y:", "while x: y", "try:", "except X as y:",
        "finally:", "with a as b, c as d:", "@a.b(c)", "match x:", "case 1:", "return x", "lambda: 0", "print 'x'", "exec x in y",
        "f(a=1, b)", "f() = 1", "x = [1,\n  2] # three", "x = (1 + \\\n 2)", "x = (1", "import a.b.c, d", "from . import (x, y)",
        "import f().x", "global f().x", "del a.b().c, d[0]", "0777", "10L", "1_000.5e-3j", "a, *b = c", "x: int = 1", "assert a, b, c",
        "assert a, b", "a, b, c, d = 1, 2, 3, 4", "{'a': 1, **b}", "{1, 2: 3}", "[x for x in y if z]", "f(x for x in y)",
        "f(x for x in y, 1)", "a[1:2, ::3]", "a[]", "é = 1", "x = 'é' # é", "x\f= 1", "$", "a ! b", "a != b", "a <> b", "yield",
        "type X = int", "type = 1", "None = 1", "x is not None", "`a`", "a if b else c", "\\", ")", "pass;", "", "   ", "\t# tab", "not",
        "x = =1",
    ]
)  # fmt: skip
BLOCK = st.lists(LINES, max_size=4).map("\n".join)


@settings(deadline=None, max_examples=400)
@given(
    st.lists(st.tuples(st.sampled_from(["", "", " ", "    ", "        ", "\t"]), LINES), max_size=8),
    st.sampled_from(["\n", "\r\n", "\n\n"]),
    st.text("\n #x"),
)
def test_comments_and_docstrings_of_python_are_those_of_ast_and_tokenize(lines: list[tuple[str, str]], end: str, last: str) -> None:
    check_python([end.join(indent + line for indent, line in lines) + last])


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(["def f():", "class A:", "async def f():", "if x:\n  class A:", "def f(a=g(b)):  # x", "@a\ndef f():"]), BLOCK, BLOCK
)
def test_docstrings_of_blocks(header: str, block: str, rest: str) -> None:
    check_python([f"{header}\n{textwrap.indent(block, '      ')}\n{rest}"])


def test_whole_files_of_python() -> None:
    import email
    import unittest

    files = sorted({path for package in (email, unittest, json) for path in folder_of(package).glob("*.py")})
    texts = [path.read_text() for path in files]
    assert len(texts) > 30
    check_python(texts)
    check_python([text.replace("\n", "\r\n") for text in texts[:5]] + [text + "\nprint 'x'\n" for text in texts[:5]])


def test_other_languages_have_the_middle_of_the_limits() -> None:
    metadata = [{"lang": "C"}, {"lang": "Python"}, {"path": "a/b.js"}, {}]
    assert columns("code_comments", documents(["# a // b"] * 4, metadata))["code_comment_share"] == [0.5, 6 / 8, 4 / 8, 0.5]
    assert columns("code_comments", documents([])) == {"code_comment_share": []}


@pytest.mark.parametrize(
    "language, text, reason",
    [
        ("Python", "x" * 49 + "\n" + "x" * 48 + "#y", "few_comments"),
        ("Python", "x" * 49 + "#yy", None),
        ("Python", "x=1 #" + "y" * 19, None),
        ("Python", "x=1 #" + "y" * 20, "many_comments"),
        ("Java", "int xxxxx; // yyyyy", None),
        ("JavaScript", "let xxxxx", "few_comments"),
        ("JavaScript", "// let xxxxx", "many_comments"),
        ("Swift", "let xxxxx", None),
    ],
)
def test_the_stack_keeps_files_with_some_comments(language: str, text: str, reason: str | None) -> None:
    assert dropped_by("stack-code", documents([text], [{"lang": language}])) == [reason]
