"""The share of a source file that is comments and docstrings, as bigcode-dataset measures it (preprocessing/utils/text_extraction.py).

In:   the texts of files and their language. Out: a share per file.
Cost: one pass in compiled code, some hundred MB per second, and the interpreter's parser for each new shape of a Python
      statement (python_source.py); whole Python files go through `ast` and `tokenize` where the pass is not sure of them,
      which takes a second per MB. The shapes met are kept: some 100 bytes each, at most SHAPES.
Not:  other languages than Python, Java and JavaScript.
"""

import ast
import functools
import io
import tokenize
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipeline.text import python_source
from pipeline.text.interning import Table, new_table, strings_of, with_room
from pipeline.text.python_source import (
    COMMENTS,
    DOCSTRING_COUNT,
    DOCSTRING_LEADING,
    DOCSTRING_TRAILING,
    DOCSTRINGS,
    FIRST,
    LEADING,
    ODD,
    STOP,
    TRAILING,
    UNSURE,
)
from pipeline.text.utf8 import Bytes, Offsets

SHAPES = 1 << 20
VALID, INVALID, UNKNOWN = 0, 1, 2  # a shape's verdicts
_BLOCKS = ("body", "handlers", "orelse", "finalbody", "cases")  # in the order of their nodes' fields
JOINED = 16  # shapes that are parsed in one call; more cost time in the garbage collector


def python_comments(data: Bytes, offsets: Offsets) -> npt.NDArray[np.int64]:
    """[n] int64: characters that get_text_python finds in each text; 0 for an empty one.

    Those are the docstrings of modules, classes and functions that are not `async`, cleaned and in lines, and behind them all
    comments, run together, without any "#"; white space at both ends is not counted. A file that the interpreter's parser
    rejects has no docstrings, one that its tokenizer rejects no comments: which those are depends on Python's version.
    """
    counts = np.zeros((len(offsets) - 1, python_source.COLUMNS), np.int64)
    lines = np.zeros(int(np.bincount(data, minlength=256)[np.frombuffer(b"\n([{", np.uint8)].sum()) + len(counts), np.int32)
    verdicts = _scanned(data, offsets, lines, counts)
    worst = np.array([verdicts[lines[row[FIRST] : row[STOP]]].max(initial=VALID) for row in counts], np.int64)
    invalid = np.array([(verdicts[lines[row[FIRST] : row[STOP]]] == INVALID).any() for row in counts], bool)
    counts[invalid, DOCSTRINGS : DOCSTRING_TRAILING + 1] = 0
    spoken = counts[:, COMMENTS] > counts[:, TRAILING]
    unsure = (counts[:, UNSURE] > 0) | (worst == UNKNOWN) | ~spoken & (counts[:, DOCSTRING_COUNT] > 1) & (counts[:, DOCSTRING_TRAILING] > 0)
    said = counts[:, DOCSTRINGS] + counts[:, DOCSTRING_COUNT] - counts[:, DOCSTRING_LEADING]
    found = np.where(
        spoken,
        counts[:, COMMENTS] - counts[:, TRAILING] + np.where(counts[:, DOCSTRING_COUNT] > 0, said, -counts[:, LEADING]),
        np.where(counts[:, DOCSTRING_COUNT] > 0, said - 1 - counts[:, DOCSTRING_TRAILING], 0),
    )
    for text in np.flatnonzero((unsure & ~invalid) | (counts[:, ODD] > 0)):
        source = data[offsets[text] : offsets[text + 1]].tobytes().decode()
        # In place of the comments, as many characters with as much white space at the ends.
        characters, leading, trailing = counts[text, [COMMENTS, LEADING, TRAILING]].tolist()
        inner = "x" * (characters - leading - trailing)
        comments = _comments(source) if counts[text, ODD] else " " * leading + inner + " " * trailing
        found[text] = len(f"{_docstrings(source)}\n{comments}".strip())
    return found


@dataclass
class _Shapes:
    table: Table = field(default_factory=new_table)
    verdicts: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))


@functools.cache
def _known() -> _Shapes:
    """The shapes of statements that this process has met, and what the parser says of each."""
    return _Shapes()


def _scanned(data: Bytes, offsets: Offsets, lines: npt.NDArray[np.int32], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Fill `lines` and `counts`; returns the verdicts on all shapes."""
    known = _known()
    if known.table.count[0] > SHAPES:
        known.table, known.verdicts = new_table(), np.zeros(0, np.uint8)
    text = 0
    while (text := python_source.scan(data, offsets, text, known.table, lines, counts)) < len(counts):
        size = int(offsets[text + 1] - offsets[text])
        known.table = with_room(known.table, size + 1, 2 * size + 64)
    new = strings_of(known.table, len(known.verdicts), int(known.table.count[0]))
    known.verdicts = np.concatenate([known.verdicts, np.array(_verdicts(new), np.uint8)])
    return known.verdicts


def _verdicts(shapes: Sequence[str]) -> list[int]:
    found: list[int] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for start in range(0, len(shapes), JOINED):
            programs = [_program(shape) for shape in shapes[start : start + JOINED]]
            try:
                ast.parse("\n".join(programs))
                found += [VALID] * len(programs)
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                found += map(_verdict, programs)
    return found


def _program(shape: str) -> str:
    """The shortest program around a statement's first line."""
    if shape[-1] in "cs":  # what a call or an index has in brackets
        return f"n{shape[:-1]}"
    if shape[-1] == "d":
        return shape[:-1]
    word = shape.partition(" ")[0]
    line = f"{shape} pass" if shape.endswith(":") else shape
    if word in ("elif", "else"):
        return f"if n: pass\n{line}"
    if word in ("except", "finally"):
        return f"try: pass\n{line}"
    if word == "try":
        return f"{line}\nfinally: pass"
    if word.startswith("@"):
        return f"{line}\ndef n(): pass"
    return line


def _verdict(program: str) -> int:
    try:
        ast.parse(program)
        return VALID
    except SyntaxError:
        return UNKNOWN if program.startswith(("match ", "case ", "type ", "_ ")) else INVALID
    except (ValueError, RecursionError, MemoryError):
        return UNKNOWN


def _docstrings(source: str) -> str:
    """Those of classes by name, those of functions by name, the module's; nothing of what is not valid Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    found: dict[type, list[tuple[str, str]]] = {ast.ClassDef: [], ast.FunctionDef: [], ast.Module: []}
    level: list[ast.AST] = [module]  # equal names in ast.walk's order, breadth first; definitions are in blocks alone
    while level:
        for node in level:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.Module):
                text = ast.get_docstring(node)
                if text:
                    found[type(node)].append((getattr(node, "name", ""), text))
        level = [child for node in level for block in _BLOCKS for child in getattr(node, block, ())]
    return "\n".join(text for named in found.values() for _, text in sorted(named, key=lambda each: each[0]))


def _comments(source: str) -> str:
    """All comments without "#"; nothing of what Python's tokenizer rejects."""
    try:
        tokens = [token.string for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type == tokenize.COMMENT]
    except Exception:  # TokenError, SyntaxError, and what else Python's versions have thought of, down to SystemError
        return ""
    return "".join(tokens).replace("#", "")
