"""Source files: which language they are in, where they come from, and how their lines look.

The figures are those of The Stack and StarCoder (bigcode-project/bigcode-dataset, preprocessing/filtering.py), whose
thresholds, by language and extension, are in mixes/filters/starcoder.yaml.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.taggers import Batch, tagger

# Files that hold many documents: their endings and names say nothing about a document.
CONTAINERS = {"json", "jsonl", "ndjson", "parquet", "gz", "zst", "zstd", "bz2", "xz", "tar", "warc", "txt"}

# Language → the extensions that mean it where nothing else names the language. Names as in bigcode-dataset's table, which
# are GitHub Linguist's in lower case. An extension of several languages stands with the one that has most files of it in
# The Stack or in Proof-Pile-2's AlgebraicStack (.h: C, .v: Coq, .m: MATLAB).
LANGUAGES = {
    "ada": "ada adb ads", "agda": "agda", "alloy": "als", "antlr": "g4", "applescript": "applescript scpt",
    "assembly": "a51 asm nasm", "augeas": "aug", "awk": "auk awk gawk mawk nawk", "batchfile": "bat cmd", "bison": "bison",
    "bluespec": "bsv", "c": "c cats h w", "c-sharp": "cake cs cshtml csx",
    "c++": "c++ cc cp cpp cxx h++ hh hpp hxx inl ipp tcc tpp", "clojure": "boot cl2 clj cljc cljs cljx", "cmake": "cmake",
    "coffeescript": "_coffee cjsx coffee cson iced", "common-lisp": "asd lisp lsp ny sexp", "coq": "v", "css": "css",
    "cuda": "cu cuh", "cython": "pxd pxi pyx", "dart": "dart", "dockerfile": "dockerfile", "elixir": "ex exs", "elm": "elm",
    "emacs-lisp": "el emacs", "erlang": "erl escript hrl xrl yrl", "f-sharp": "fs fsi fsx",
    "fortran": "f f03 f08 f77 f90 f95 for fpp", "gap": "g gap gd gi",
    "glsl": "fp frag frg fsh fshader geo geom glsl glslv shader vert vrx vsh vshader", "go": "go",
    "groovy": "groovy grt gtpl gvy", "haskell": "hs hsc", "html": "htm html xht xhtml", "idris": "idr lidr",
    "isabelle": "thy", "java": "java", "java-server-pages": "jsp", "javascript": "es6 js jsm pac sjs xsjslib", "json": "json",
    "julia": "jl", "jupyter-notebook": "ipynb", "kotlin": "kt kts", "lean": "hlean lean", "literate-agda": "lagda",
    "literate-coffeescript": "litcoffee", "literate-haskell": "lhs", "lua": "lua nse wlua", "makefile": "mak mk",
    "maple": "mpl", "markdown": "markdown md mkd mkdn ron", "mathematica": "cdf ma mathematica mt nb nbp wl wlt",
    "matlab": "m matlab", "ocaml": "eliom eliomi ml ml4 mli mll mly", "pascal": "dfm dpr lpr pas",
    "perl": "al perl ph pl plx pm psgi t", "php": "ctp php phpt", "powershell": "ps1 psd1 psm1", "prolog": "prolog yap",
    "protocol-buffer": "proto", "python": "bzl gyp py pyde pyw", "r": "r rd rsx", "racket": "rkt rktd rktl scrbl",
    "restructuredtext": "rest rst", "rmarkdown": "rmd",
    "ruby": "builder gemspec jbuilder podspec rabl rake rb rbw ru ruby thor", "rust": "rs", "sas": "sas",
    "scala": "sbt scala", "scheme": "scm sld sps", "shell": "bash bats command ksh sh tmux tool zsh", "smalltalk": "st",
    "solidity": "sol", "sparql": "rq sparql", "sql": "cql db2 ddl pck pkb pks plb pls plsql prc sql tab udf",
    "stan": "stan", "standard-ml": "fun sig sml", "stata": "ado do doh ihlp mata matah sthlp", "swift": "swift",
    "systemverilog": "sv svh vh", "tcl": "adp tcl tm", "tcsh": "csh tcsh",
    "tex": "aux bbx bib cbx dtx ins lbx ltx mkii mkiv mkvi sty tex toc", "thrift": "thrift", "typescript": "ts tsx",
    "verilog": "veo", "vhdl": "vhd vhdl vhf vhi vho vht vhw", "visual-basic": "bas frm frx vb vba vbhtml vbs",
    "xml": "xml", "xslt": "xsl xslt", "yacc": "y yacc yy", "yaml": "yaml yml", "zig": "zig",
}  # fmt: skip
LANGUAGE_OF = {extension: language for language, extensions in LANGUAGES.items() for extension in extensions.split()}
ALIASES = {"c#": "c-sharp", "f#": "f-sharp", "cpp": "c++", "jupyter": "jupyter-notebook"}


@tagger(
    columns={"code_language": pa.string(), "code_extension": pa.string(), "code_path": pa.string(), "code_repository": pa.string()},
    reads=("metadata", "file"),
)
def code_file(batch: Batch) -> dict[str, pa.Array]:
    """What the metadata says about a source file; "" where it says nothing.

    code_path: `max_stars_repo_path`, or `path`; else the name of the raw file, unless that holds many documents.
    code_repository: `max_stars_repo_name`, or `repo`. code_extension: `ext`, else what follows the last dot of the path's
    last part; lower case, without the dot. code_language: `lang`, else the folder of StarCoder data that the file came
    from (`extension` in Dolma's form, or the first folder of the raw file), else by LANGUAGES from the extension; spelt as
    bigcode-dataset's table does ("c++", "c-sharp", "jupyter-notebook").
    """
    return files(batch)


def files(batch: Batch) -> dict[str, pa.Array]:
    """The columns of `code_file`."""
    rows = [_file(*row) for row in zip(batch["metadata"].to_pylist(), batch["file"].to_pylist(), strict=True)]
    names = ("code_language", "code_extension", "code_path", "code_repository")
    return {name: pa.array([row[index] for row in rows], pa.string()) for index, name in enumerate(names)}


def _file(metadata: str | None, file: str) -> tuple[str, str, str, str]:
    known: dict[str, Any] = orjson.loads(metadata) if metadata else {}
    whole = _extension(file) in CONTAINERS
    path = _text(known, "max_stars_repo_path") or _text(known, "path") or ("" if whole else file)
    extension = _text(known, "ext").lower() or _extension(path)
    folders = (_text(known, "extension"), file.partition("/")[0] if whole else "")
    language = _spelt(_text(known, "lang")) or next((name for name in map(_spelt, folders) if name in LANGUAGES), "")
    return language or LANGUAGE_OF.get(extension, ""), extension, path, _text(known, "max_stars_repo_name") or _text(known, "repo")


def _text(metadata: dict[str, Any], key: str) -> str:
    value = metadata.get(key)
    return value if isinstance(value, str) else ""


def _extension(path: str) -> str:
    name = path.rpartition("/")[2]
    return name.rpartition(".")[2].lower() if "." in name else ""


def _spelt(language: str) -> str:
    name = language.lower().replace(" ", "-")
    return ALIASES.get(name, name)


@tagger(
    columns={
        "code_longest_line": pa.int64(),
        "code_mean_line_length": pa.float64(),
        "code_alphanumeric_share": pa.float64(),
        "code_digit_share": pa.float64(),
        "code_xml": pa.bool_(),
    },
    reads=("text",),
)
def code(batch: Batch) -> dict[str, pa.Array | npt.NDArray]:
    """Figures that tell code from data and generated files. An empty text has 0 everywhere and no XML.

    code_longest_line, code_mean_line_length: characters of the lines that `str.splitlines()` gives, as The Stack's
    `max_line_length` and `avg_line_length`. code_alphanumeric_share: characters that are `str.isalnum()` / characters,
    its `alphanum_fraction`. code_digit_share: digits 0 to 9 / characters that are not whitespace, the "numerical density"
    of AlgebraicStack (EleutherAI/math-lm, process_stack.py). code_xml: "<?xml version=" stands in the first 100
    characters (filter_xml).
    """
    from pipeline.text.code_text import begins_as_xml, shape_counts

    characters, visible, alphanumeric, digits, lines, inside, longest = shape_counts(*batch.utf8).T
    return {
        "code_longest_line": longest,
        "code_mean_line_length": inside / np.maximum(lines, 1),
        "code_alphanumeric_share": alphanumeric / np.maximum(characters, 1),
        "code_digit_share": digits / np.maximum(visible, 1),
        "code_xml": begins_as_xml(*batch.utf8),
    }


@tagger(columns={"code_visible_text": pa.int64()}, reads=("text", "metadata", "file"), version=2)
def code_html(batch: Batch) -> dict[str, npt.NDArray]:
    """code_visible_text: of an HTML file (`code_language`) the characters that a browser would show, without scripts and
    styles, as filter_html counts them (html_text.py); 0 for other files, an empty one, and one that the parser rejects
    or would not come to an end with.
    """
    from pipeline.text.html_text import visible_characters

    language = files(batch)["code_language"]
    visible = np.zeros(len(batch), dtype=np.int64)
    rows = np.flatnonzero(pc.equal(language, "html").to_numpy(zero_copy_only=False))
    if len(rows):
        texts = batch["text"].take(pa.array(rows))
        visible[rows] = visible_characters(*Batch(pa.table({"text": texts})).utf8)
    return {"code_visible_text": visible}


@tagger(columns={"code_comment_share": pa.float64()}, reads=("text", "metadata", "file"))
def code_comments(batch: Batch) -> dict[str, npt.NDArray]:
    """code_comment_share: of a Python, Java or JavaScript file (`code_language`) the characters in comments and docstrings /
    characters, bigcode-dataset's `nl_ratio` (text_extraction.py) and the comment ratio of Dolma's code_starcoder_taggers_v2;
    0.5, which both limits let pass, for other files, and 0 for an empty text of these.
    """
    from pipeline.text.code_comments import python_comments
    from pipeline.text.slash_comments import JAVA, JAVASCRIPT, comment_characters

    language = files(batch)["code_language"].to_numpy(zero_copy_only=False)
    share = np.full(len(batch), 0.5)
    for names in (["python"], ["java", "javascript"]):
        rows = np.flatnonzero(np.isin(language, names))
        if len(rows):
            texts = batch["text"].take(pa.array(rows))
            utf8 = Batch(pa.table({"text": texts})).utf8
            lexers = np.where(language[rows] == "java", JAVA, JAVASCRIPT).astype(np.int8)
            characters = python_comments(*utf8) if names == ["python"] else comment_characters(*utf8, lexers)
            share[rows] = characters / np.maximum(pc.utf8_length(texts).to_numpy(zero_copy_only=False), 1)
    return {"code_comment_share": share}
