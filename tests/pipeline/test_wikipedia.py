"""Wikipedia dumps and the cleaning of wikitext."""

import bz2
import gzip
import time
from pathlib import Path
from xml.sax.saxutils import escape

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mwparserfromhell.parser import ParserError

from pipeline.errors import PipelineError
from pipeline.readers import Failure, RawFile, Record, reader_for
from pipeline.readers import wikipedia as wikipedia_reader
from pipeline.readers.wikitext import plain_text

SITE = """<siteinfo><base>https://bg.wikipedia.org/wiki/Main_Page</base><namespaces>
<namespace key="0" /><namespace key="6">Файл</namespace><namespace key="14">Категория</namespace>
</namespaces></siteinfo>"""


def page(number: int, title: str, text: str, ns: int = 0, extra: str = "") -> str:
    return f"""<page><title>{escape(title)}</title><ns>{ns}</ns><id>{number}</id>{extra}
<revision><id>{number}00</id><timestamp>2016-04-22T10:19:33Z</timestamp>
<text xml:space="preserve">{escape(text)}</text></revision></page>"""


def dump(*pages: str, site: str = SITE) -> str:
    namespace = "http://www.mediawiki.org/xml/export-0.10/"
    return f'<mediawiki xmlns="{namespace}">{site}{"".join(pages)}</mediawiki>'


def raw_file(folder: Path, content: bytes, name: str = "a.xml") -> RawFile:
    (folder / "fetched").write_bytes(content)
    return RawFile(name, str(folder / "fetched"), len(content), "")


def read(file: RawFile) -> list[Record | Failure]:
    return list(reader_for(file)(file))


def texts(records: list[Record | Failure]) -> list[tuple[int, str]]:
    return [(record.row, record.fields["text"]) for record in records if isinstance(record, Record)]


# Dumps


def test_an_article_carries_its_title_body_and_revision(tmp_path: Path) -> None:
    [record] = read(raw_file(tmp_path, dump(page(12, "Anarchism", "'''Anarchism''' is & < a [[idea]].")).encode()))
    assert record == Record(
        0,
        {
            "id": "12",
            "text": "Anarchism\n\nAnarchism is & < a idea.",
            "created": "2016-04-22T10:19:33Z",
            "metadata": {
                "url": "https://bg.wikipedia.org/wiki?curid=12",
                "revid": "1200",
                "timestamp": "2016-04-22T10:19:33Z",
                "title": "Anarchism",
                "ns": 0,
            },
        },
    )


def test_redirects_and_other_namespaces_are_no_documents_but_have_rows(tmp_path: Path) -> None:
    content = dump(
        page(1, "Old name", "#REDIRECT [[New name]]", extra='<redirect title="New name" />'),
        page(2, "First", "one"),
        page(3, "Talk:First", "not an article", ns=1),
        page(4, "Before 2009", "#redirect [[First]]"),
        page(5, "Second", "two"),
    )
    assert texts(read(raw_file(tmp_path, content.encode()))) == [(1, "First\n\none"), (4, "Second\n\ntwo")]


def test_an_article_without_title_or_body_has_an_empty_text(tmp_path: Path) -> None:
    content = dump(page(1, "", "body"), page(2, "Only templates", "{{Infobox|a=b}}"), page(3, "A", ""))
    assert texts(read(raw_file(tmp_path, content.encode()))) == [(0, ""), (1, ""), (2, "")]


def test_the_wikis_own_names_of_files_and_categories_are_known(tmp_path: Path) -> None:
    content = dump(page(1, "Котка", "Котка.[[Файл:Cat.jpg|мини|Котка]][[категория:Котки]]"))
    assert texts(read(raw_file(tmp_path, content.encode()))) == [(0, "Котка\n\nКотка.")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2"])
def test_packed_and_multistream_dumps_are_read(tmp_path: Path, suffix: str, encoding: str) -> None:
    content = dump(*(page(number, f"Ж{number}", "text") for number in range(50))).encode(encoding)
    pack = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress}[suffix]
    streams = pack(content[:3000]) + pack(content[3000:])  # a multistream dump is several bzip2 files in one
    records = read(raw_file(tmp_path, streams, f"enwiki-pages-articles-multistream.xml{suffix}"))
    assert texts(records) == [(number, f"Ж{number}\n\ntext") for number in range(50)]


@pytest.mark.parametrize("kept", [5, 100, 900, 1500])
def test_a_cut_off_dump_is_refused_with_its_place(tmp_path: Path, kept: int) -> None:
    content = dump(*(page(number, "A", "text") for number in range(20))).encode()[:kept]
    with pytest.raises(PipelineError, match=rf"a\.xml: is no whole XML .* {kept:,}; fetch the file again"):
        read(raw_file(tmp_path, content))
    packed = bz2.compress(dump(*(page(number, "A", "text") for number in range(20))).encode())
    with pytest.raises(PipelineError, match=r"a\.xml\.bz2: ends inside the bzip2 member"):
        read(raw_file(tmp_path, packed[:-10], "a.xml.bz2"))


def test_other_xml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="holds no MediaWiki page"):
        read(raw_file(tmp_path, b"<article><front/></article>"))
    with pytest.raises(PipelineError, match="its root is <book>"):
        read(raw_file(tmp_path, b"<book><page/></book>"))


def test_entity_bombs_and_outside_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    bomb = '<!ENTITY a "xxxxxxxxxx">' + "".join(
        f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    for entities in (bomb, f'<!ENTITY i SYSTEM "file://{tmp_path}/secret">'):
        content = f"<!DOCTYPE mediawiki [{entities}]>" + dump(page(1, "A", "@").replace("@", "&i;"))
        with pytest.raises(PipelineError, match=r"DOCTYPE|no whole XML"):
            read(raw_file(tmp_path, content.encode()))


def test_a_page_that_the_parser_gives_up_on_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def give_up(text: str, unshown: set[str]) -> str:
        if "poison" in text:
            raise ParserError("lost")
        return text

    monkeypatch.setattr(wikipedia_reader, "plain_text", give_up)
    content = dump(page(1, "A", "poison"), page(2, "B", "text"), page(3, "C", "d").replace("<id>3</id>", ""))
    content = content.replace("</mediawiki>", page(4, "D", "e").replace("<ns>0</ns>", "") + "</mediawiki>")
    assert read(raw_file(tmp_path, content.encode()))[0] == Failure(
        0, "broken_wikitext", "page 1 'A': This is a bug and should be reported. Info: lost."
    )
    failures = [record for record in read(raw_file(tmp_path, content.encode())) if isinstance(record, Failure)]
    assert failures[1:] == [
        Failure(2, "incomplete_page", "the page 'C' has no <id>"),
        Failure(3, "incomplete_page", "the page 'D' has no <ns>"),
    ]


# Wikitext


@pytest.mark.parametrize(
    ("wikitext", "plain"),
    [
        ("[[Cat|cats]] and [[dog]]s, [[#Top|top]]", "cats and dogs, top"),
        ("'''bold''', ''slanted'', '''''both'''''", "bold, slanted, both"),
        ("a {{convert|10|km}} b {{a|{{b}}|{{c|d={{e}}}}}}c", "a b c"),
        ("{{a|x={y} }}kept{{{1|argument}}}", "kept"),
        ('One.<ref name="a">note</ref> Two.<ref name="a" /> Three.<ref>{{cite|b}}', "One. Two. Three."),
        ("a<!-- hidden [[link]] -->b", "ab"),
        ("before\n{| class=wikitable\n|-\n| cell\n{|\n| inner\n|}\n|}\nafter", "before\n\nafter"),
        ("{|\n| closed by a template {{end}}\n==Next==\ntext", "Next\n\ntext"),
        ("[[File:A.jpg|thumb|a [[linked]] caption]]Text[[image:b.png]][[Category:C]]", "Text"),
        ("see [[:Category:Cats]]", "see Category:Cats"),
        ("text[[fr:Anarchie]][[zh-min-nan:X]] and [[doi:10.1/1]]", "text and doi:10.1/1"),
        ("[http://a.org the site] [http://a.org] http://a.org/x", "the site http://a.org/x"),
        ("* one\n** two\n# three\n*\n: indented", "- one\n- two\n- three\nindented"),
        ("mass <math>{{m}c^2}</math>, <math display=block>\\sum_i</math>.", "mass {{m}c^2}, \\sum_i."),
        ("<nowiki>'''[[not]]''' {{a}}</nowiki>", "'''[[not]]''' {{a}}"),
        ('<syntaxhighlight lang="c">\nif (a  ,b) {{x[0]}}\n</syntaxhighlight>', "if (a  ,b) {{x[0]}}"),
        ("H<sub>2</sub>O<br/>x<br>y &amp; &ndash;&nbsp;&#x41;&#2;", "H2O\nx\ny & – A"),
        ("__NOTOC__a __init__ __БЕЗСЪДЪРЖАНИЕ__b", "a __init__ b"),
        ("<gallery>\nA.jpg|caption\n</gallery><includeonly>x</includeonly>text", "text"),
        ("A ({{a}}; born 1947) was ({{b}}, {{c}}) here {{d}}, in .NET", "A (born 1947) was here, in .NET"),
        ("int[] of main() is", "int[] of main() is"),
        ("{{As of|2016}}, it stands.", "it stands."),
        ("<div>one</div><p>two</p>", "one\n\ntwo"),
        ("unclosed [[link and {{template and <b>tag", "unclosed [[link and {{template and <b>tag"),
    ],
)  # fmt: skip
def test_markup_becomes_what_a_reader_sees(wikitext: str, plain: str) -> None:
    assert plain_text(wikitext) == plain


def test_headings_are_lines_and_those_of_empty_sections_go() -> None:
    kept = "Lead.\n==One==\n===Inner===\ntext\n"
    empty = "== See also ==\n{{links}}\n===Deeper===\n[[Category:A]]\n"
    assert plain_text(f"{kept}{empty}==''Last''==\nend") == "Lead.\n\nOne\n\nInner\n\ntext\n\nLast\n\nend"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("abc déж5()", min_size=1).map(lambda line: " ".join(line.split())), max_size=5))
def test_prose_without_markup_keeps_its_words(lines: list[str]) -> None:
    def words(text: str) -> list[str]:
        return "".join(character if character.isalnum() else " " for character in text).split()

    assert words(plain_text("\n\n".join(lines))) == words("\n\n".join(lines))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.sampled_from(
            ["{{", "}}", "[[", "]]", "|", "{|", "|}", "==", "'''", "<ref>", "</ref>", "<ref/>", "<!--", "-->", "<math>",
             "</math>", "<nowiki>", "File:", "word", "* ", "&amp;", "{", "}", "<b>", "</b>", ":", "[http://a ", "]",
             "__TOC__", "\n", " "]
        ),
        max_size=40,
    ).map("".join)
)  # fmt: skip
def test_no_markup_however_broken_makes_it_fail(wikitext: str) -> None:
    text = plain_text(wikitext)
    assert "\x02" not in text and "\x03" not in text


@pytest.mark.parametrize("piece", ["<ref>", "{{", "<!--", "<math>", "{|\n", "[[", "{{{", "<pre>a", "}}", "('", "( ,"])
def test_unclosed_markup_is_read_in_linear_time(piece: str) -> None:
    started = time.process_time()
    plain_text(piece * 20_000)
    assert time.process_time() - started < 2


def test_templates_nested_without_end_are_read_in_linear_time() -> None:
    started = time.process_time()
    assert plain_text("a" + "{{b|" * 20_000 + "}}" * 20_000).startswith("a")
    assert time.process_time() - started < 2
