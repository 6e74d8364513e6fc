"""arXiv sources: RedPajama's cleaning rules, and the archives that papers come in."""

import gzip
import io
import random
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import PipelineError
from pipeline.readers import Failure, RawFile, Record, reader_for
from pipeline.readers import latex as latex_reader
from pipeline.readers.latex import arxiv_identifier, cleaned

PAPER = r"\documentclass{article}\begin{document}\section{A}text\end{document}"
CLEAN = r"\section{A}text\end{document}"
TIME = 1177977600  # 2007-05-01


def tar(**members: str | bytes) -> bytes:
    """A tar of the members in their order; `main_tex` is main.tex."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in members.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name.replace("_", "."))
            member.size, member.mtime = len(data), TIME
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def bulk(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        folder = tarfile.TarInfo("0704")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in members.items():
            member = tarfile.TarInfo(f"0704/{name}")
            member.size, member.mtime = len(content), TIME
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def raw_file(folder: Path, name: str, content: bytes) -> RawFile:
    (folder / "fetched").write_bytes(content)
    return RawFile(name, str(folder / "fetched"), len(content), "")


def read(file: RawFile) -> list[Record | Failure]:
    return list(reader_for(file)(file))


def outcomes(records: list[Record | Failure]) -> list[tuple[int, str, str]]:
    return [
        (record.row, "failure", record.reason) if isinstance(record, Failure) else (record.row, record.fields["id"], record.fields["text"])
        for record in records
    ]


# Cleaning


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (r"no sectioning \emph{at all}", ""),
        ("preamble\n\\section{A} body", "\\section{A} body"),
        ("x\\chapter*{A}y", "\\chapter*{A}y"),
        ("x\\subsubsection[short]{long}y\\part{B}", "\\subsubsection[short]{long}y\\part{B}"),
        ("\\section {spaced} never counts", ""),
        ("\\sectionmark{A} never counts", ""),
        ("a\\paragraph{never counts}b\\subparagraph{c}", ""),
        ("%\\section{commented out} counts\n\\section{B}", "\\section{commented out} counts\n\\section{B}"),
        ("\\section{A}\n% whole line\nb\n%\nc", "\\section{A}\nb\nc"),
        ("\\section{A}\nword % note\nnext", "\\section{A}\nword\nnext"),
        ("\\section{A}\nword% the d goes too", "\\section{A}\nwor"),
        ("\\section{A}\nbare%\nnext", "\\section{A}\nbare%\nnext"),
        ("\\section{A}\n5\\% stay % not this", "\\section{A}\n5\\% stay"),
        ("\\section{A}a\\appendix\\section{B}", "\\section{A}a"),
        ("\\section{A}a\\begin{references}b", "\\section{A}a"),
        ("\\section{A}a\\begin{REFERENCES}b", "\\section{A}a"),
        ("\\section{A}a\\begin{thebibliography}{9}\n\\bibitem{b}", "\\section{A}a"),
        ("\\section{A}a\\bibliographystyle{b}c\\bibliography{d}\n\\end{document}", "\\section{A}a\\bibliographystyle{b}c"),
        ("\\appendix\\section{A}a", "\\section{A}a"),
    ],
)  # fmt: skip
def test_one_file_is_cleaned_by_the_published_rules(source: str, text: str) -> None:
    assert cleaned([source]) == text


@pytest.mark.parametrize(
    ("definition", "body", "expanded"),
    [
        (r"\newcommand{\be}{\begin{equation}}", r"\be x", r"\begin{equation} x"),
        (r"\newcommand*{\R}{\mathbb{R}}", r"$\R$ \Rx \R2", r"$\mathbb{R}$ \Rx \R2"),
        (r"\def\eps{\varepsilon}", r"(\eps)", r"(\varepsilon)"),
        (r"\def \eps {\varepsilon}", r"(\eps)", r"(\varepsilon)"),
        (r"\newcommand{\ket}[1]{|#1\rangle}", r"\ket{a}", r"\ket{a}"),
        (r"\newcommand{\a}{b} % no definition, for its line goes on", r"\a.", r"\a."),
        (r"\newcommand{\group}{\1\g<0>\n}", r"\group.", r"\1\g<0>\n."),
        (r"\newcommand{\name}{Erdős}", r"\name.", "Erdős."),
        (
            r"\def\a{x}",
            r"\a\a\a.",
            r"x\ax.",
        ),  # a match takes the next character along, so every other is missed
        (r"\def\a{x}", r"at the end \a", r"at the end \a"),
    ],
)
def test_macros_without_arguments_are_expanded(definition: str, body: str, expanded: str) -> None:
    assert cleaned([f"{definition}\n\\section{{A}}{body}"]) == f"\\section{{A}}{expanded}"


def test_macros_of_all_files_count_in_the_order_of_their_first_definition() -> None:
    sources = [
        "\\def\\one{\\two!}\n\\def\\two{2}",
        "\\section{A}\\one.\\two.",
        "\\def\\two{zwei}\n\\section{B}\\two.",
    ]
    assert cleaned(sources) == "\n\\section{A}zwei!.zwei.\n\\section{B}zwei."


def test_files_are_joined_in_their_order_and_nothing_but_blanks_is_empty() -> None:
    assert cleaned(["\\section{Z}z", "no section", "\\section{A}a"]) == "\\section{Z}z\n\n\\section{A}a"
    assert cleaned(["no section", "none"]) == ""


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["%", "a", " ", "\n", "\\%", "\\", "b%c", "\n%d\n"]), max_size=15).map("".join))
def test_comments_go_as_a_scan_of_characters_says(body: str) -> None:
    lines = f"\\section{{}}{body}".split("\n")
    kept = "\n".join(line for line in lines[:-1] if not line.startswith("%"))
    if not lines[-1].startswith("%"):
        kept = f"{kept}\n{lines[-1]}" if len(lines) > 1 and kept else lines[-1]
    elif len(lines) > 1:
        kept += "\n"  # its own newline was the end of the line before
    expected = []
    for line in kept.split("\n"):
        for place in range(1, len(line) - 1):
            if line[place] == "%" and line[place - 1] != "\\":
                line = line[: place - 1]
                break
        expected.append(line)
    assert cleaned([f"\\section{{}}{body}"]) == "\n".join(expected)


# Archives


def test_a_tex_file_is_one_paper(tmp_path: Path) -> None:
    [record] = read(raw_file(tmp_path, "george-0.4.4/paper/ms.tex", PAPER.encode()))
    assert isinstance(record, Record)
    assert record.row == 0
    assert record.fields["id"] == "george-0.4.4/paper/ms.tex"
    assert record.fields["text"] == CLEAN
    assert record.fields["metadata"]["arxiv_id"] is None


@pytest.mark.parametrize("suffix", [".tar.gz", ".tgz"])
def test_a_papers_archive_is_one_paper_of_its_tex_files_in_their_order(tmp_path: Path, suffix: str) -> None:
    content = gzip.compress(tar(z_tex="\\section{Z}z", fig_png=b"\x89PNG\xff", a_tex="\\section{A}a", A_TEX="\xff"))
    [record] = read(raw_file(tmp_path, f"1703.09710{suffix}", content))
    assert record == Record(
        0,
        {
            "id": "1703.09710",
            "text": "\\section{Z}z\n\\section{A}a",
            "created": "2007-05-01T00:00:00+00:00",
            "metadata": {
                "arxiv_id": "1703.09710",
                "yymm": "1703",
                "timestamp": "2007-05-01T00:00:00+00:00",
                "language": None,
                "url": "https://arxiv.org/abs/1703.09710",
            },
        },
    )


def test_a_bulk_tar_yields_each_paper_and_names_those_it_cannot(tmp_path: Path) -> None:
    papers = {
        "0704.0001.gz": gzip.compress(tar(main_tex=PAPER)),
        "0704.0002.gz": gzip.compress(PAPER.encode()),
        "0704.0003.pdf": b"%PDF-1.4",
        "0704.0004.gz": gzip.compress("\\section{Caf\xe9}".encode("latin-1")),
        "0704.0005.gz": gzip.compress(tar(main_tex=PAPER, other_tex=b"caf\xe9")),
        "0704.0006.gz": gzip.compress(tar(main_html="<p>")),
        "0704.0007.gz": gzip.compress(b"%!PS-Adobe-2.0"),
        "0704.0008.gz": gzip.compress(PAPER.encode())[:-9],
        "0704.0009.gz": gzip.compress(tar(main_tex=PAPER)[:700]),
        "0704.0010.gz": b"",
        "hep-th0001001.gz": gzip.compress(b"%auto-ignore\nwithdrawn"),
        "0704.0012.gz": gzip.compress(PAPER.encode()),
    }
    records = read(raw_file(tmp_path, "arXiv_src_0704_001.tar", bulk(papers)))
    assert outcomes(records) == [
        (0, "0704.0001", CLEAN),
        (1, "0704.0002", CLEAN),
        (2, "failure", "no_latex_source"),
        (3, "failure", "invalid_utf8"),
        (4, "failure", "invalid_utf8"),
        (5, "failure", "no_latex_source"),
        (6, "failure", "no_latex_source"),
        (7, "failure", "broken_archive"),
        (8, "failure", "broken_archive"),
        (9, "failure", "broken_archive"),
        (10, "hep-th/0001001", ""),
        (11, "0704.0012", CLEAN),
    ]
    assert isinstance(records[1], Record)
    assert records[1].fields["created"] == "2007-05-01T00:00:00+00:00"  # the member's, for a single file has none


@pytest.mark.parametrize("kept", [100, 700, 1100, 1536, 2048])
def test_a_cut_off_bulk_tar_is_refused(tmp_path: Path, kept: int) -> None:
    content = bulk({"0704.0001.gz": gzip.compress(PAPER.encode()), "0704.0002.gz": random.Random(0).randbytes(900)})
    with pytest.raises(PipelineError, match=r"arXiv_src_0704_001\.tar: is no whole tar .*fetch the file again"):
        read(raw_file(tmp_path, "arXiv_src_0704_001.tar", content[:kept]))


def test_a_damaged_header_inside_a_bulk_tar_is_refused(tmp_path: Path) -> None:
    content = bytearray(bulk({"0704.0001.gz": gzip.compress(PAPER.encode()), "0704.0002.gz": b"x"}))
    content[3 * 512 + 10] ^= 0xFF  # tarfile itself would take this for the archive's end
    with pytest.raises(PipelineError, match="no member and no end mark at byte 1,536"):
        read(raw_file(tmp_path, "arXiv_src_0704_001.tar", bytes(content)))


def test_a_lone_damaged_paper_is_refused(tmp_path: Path) -> None:
    for content in (gzip.compress(tar(main_tex=PAPER))[:-4], gzip.compress(tar(main_tex=PAPER)[:700])):
        with pytest.raises(PipelineError, match=r"1703\.09710\.tar\.gz: .*fetch the file again"):
            read(raw_file(tmp_path, "1703.09710.tar.gz", content))


def test_a_paper_beyond_the_limit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latex_reader, "PAPER_BYTES", 5000)
    half = "x" * 3000
    for name, content in (
        ("a.tex", half * 2),
        ("a.tex.gz", gzip.compress((half * 2).encode()).decode("latin-1")),
        ("a.tar.gz", gzip.compress(tar(a_tex=half, b_tex=half)).decode("latin-1")),
    ):
        [failure] = read(raw_file(tmp_path, name, content.encode("latin-1")))
        assert isinstance(failure, Failure)
        assert failure.reason == "paper_too_large"


@pytest.mark.parametrize(
    ("name", "identifier"),
    [
        ("0704/0704.0001.gz", ("0704.0001", "0704")),
        ("1703.09710v2.tar.gz", ("1703.09710v2", "1703")),
        ("1911.07688.tex", ("1911.07688", "1911")),
        ("9901/hep-th9901001.gz", ("hep-th/9901001", "9901")),
        ("math0601001.tex", ("math/0601001", "0601")),
        ("math-ph0601001.gz", ("math-ph/0601001", "0601")),
        ("paper0601001.gz", (None, None)),
        ("1713.0001.gz", (None, None)),
        ("ms.tex", (None, None)),
    ],
)
def test_a_files_name_tells_the_arxiv_identifier(name: str, identifier: tuple[str | None, str | None]) -> None:
    assert arxiv_identifier(name) == identifier
