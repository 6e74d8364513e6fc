"""Taggers: pure functions from a batch of documents to named, typed attribute columns.

To add one, write a function in a file of this folder (files are found by themselves; a leading underscore hides one):

    @tagger(columns={"stars": pa.int64()}, reads=("metadata",))
    def stars(batch: Batch) -> dict[str, pa.Array | np.ndarray]: ...

and name its columns in a source's `drop:`. It returns one value per document and column, of exactly the stated type,
never null and never NaN, and depends on nothing but the batch; say in its docstring what an empty text gives. Raise
`version` when the output for the same input changes: that is what makes finished work run again.

A tagger may give tables besides, for what is not one value per document: `tables={"spans": SPANS}`, and it returns
`(values, {"spans": pa.Table})`. Their first column, `row`, is the document's index in the batch, ascending. A tagger that
gives `spans` can edit text: a recipe names it under `prepare:` or `edit:`. One that needs settings or files is a kind (kinds.py).

This module is read whenever a recipe is, so a tagger imports what is heavy inside its function.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.documents import SCHEMA
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.text.words import Chunks, Words

Tokens = tuple[npt.NDArray[np.unsignedinteger], npt.NDArray[np.int64]]
Values = Mapping[str, pa.Array | npt.NDArray]
Result = Values | tuple[Values, Mapping[str, pa.Table]]

DEFAULT = ("length", "repetition")
DOCUMENT_COLUMNS = {
    "id": pa.string(),
    "source": pa.string(),
    "file": pa.string(),
    "bytes": pa.int64(),
    "tokens": pa.int64(),
    "inner_eos": pa.int64(),  # end-of-document tokens inside the document, from a literal in its text
}
# What an edit takes out of texts and puts in instead. Bytes of the document's UTF-8 text; a document's spans ascend and do
# not overlap. `by` names the rule.
SPANS = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("end", pa.int64(), nullable=False),
        pa.field("replacement", pa.string(), nullable=False),
        pa.field("by", pa.string(), nullable=False),
    ]
)


class Batch:
    """Some consecutive documents, their columns as Arrow arrays and, where given, their token ids.

    table: columns of the documents' schema, at least those that the taggers read. tokens: (ids, offsets), ids [t]
    uint16 or uint32 without end-of-document tokens, offsets [n + 1] int64.
    """

    def __init__(self, table: pa.Table | pa.RecordBatch, tokens: Tokens | None = None) -> None:
        self.table = table
        self._tokens = tokens
        self._words: dict[str, Words] = {}
        if tokens is not None and len(tokens[1]) != len(self) + 1:
            raise PipelineError(f"{self.place()}: {len(self)} documents, but token offsets for {len(tokens[1]) - 1}")

    def __len__(self) -> int:
        return self.table.num_rows

    def __getitem__(self, name: str) -> pa.Array:
        column = self.table.column(name)
        return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column

    @cached_property
    def texts(self) -> list[str]:
        return self["text"].to_pylist()

    @cached_property
    def utf8(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """The texts as Arrow holds them, nothing copied: all their UTF-8 bytes, and [n + 1] int64 offsets."""
        text = self["text"]
        if text.null_count:
            raise PipelineError(f"{self.place()}: a document without text")
        text = text.cast(pa.large_string())
        _, offsets, data = text.buffers()
        flat = np.frombuffer(data, dtype=np.uint8) if data is not None and data.size else np.empty(0, dtype=np.uint8)
        if offsets is None or not len(text):
            return flat, np.zeros(1, dtype=np.int64)
        return flat, np.frombuffer(offsets, dtype=np.int64)[text.offset : text.offset + len(text) + 1]

    def words(self, kind: "Literal['whitespace', 'spacy', 'unicode']") -> "Words":
        """The texts cut into words in one of three ways (words.py), once for all taggers."""
        if kind not in self._words:
            self._words[kind] = self._chunks.words(kind)
        return self._words[kind]

    @cached_property
    def _chunks(self) -> "Chunks":
        from pipeline.text.words import Chunks

        return Chunks(*self.utf8)

    @property
    def tokens(self) -> Tokens:
        if self._tokens is None:
            raise PipelineError(f"{self.place()}: token ids were not given; a tagger that needs them states reads=('tokens',)")
        return self._tokens

    def slice(self, start: int, stop: int) -> "Batch":
        """Documents start … stop - 1."""
        tokens = None if self._tokens is None else (self._tokens[0], self._tokens[1][start : stop + 1])
        return Batch(self.table.slice(start, stop - start), tokens)

    def place(self) -> str:
        """Which documents these are, as far as the columns tell: 'wiki, a.jsonl rows 3 to 9'."""
        names = set(self.table.schema.names)
        if not len(self):
            return "an empty batch"
        first, last = ({name: self[name][at].as_py() for name in names & {"source", "file", "row"}} for at in (0, -1))
        source, file, row = (first.get(name, "?") for name in ("source", "file", "row"))
        if first == last:
            return f"{source}, {file} row {row}"
        end = f"{last['file']} row {last.get('row', '?')}" if last.get("file") != first.get("file") else last.get("row", "?")
        return f"{source}, {file} rows {row} to {end}"


@dataclass(frozen=True, slots=True)
class Tagger:
    """A function and what it promises. `reads`: columns of the documents' schema, and "tokens" for the token ids.
    `tables`: the schemas of the tables that it gives besides its columns, by name."""

    name: str
    columns: Mapping[str, pa.DataType]
    reads: tuple[str, ...]
    version: int
    function: Callable[[Batch], Result]
    tables: Mapping[str, pa.Schema] = field(default_factory=dict)


TAGGERS: dict[str, Tagger] = {}


def tagger(
    columns: Mapping[str, pa.DataType], reads: tuple[str, ...], version: int = 1, tables: Mapping[str, pa.Schema] | None = None
) -> Callable[[Callable[[Batch], Result]], Callable[[Batch], Result]]:
    """Register the decorated function under its name. Raises ValueError if a name or column is taken or unknown."""

    def register(function: Callable[[Batch], Result]) -> Callable[[Batch], Result]:
        name = function.__name__
        if name in TAGGERS:
            raise ValueError(f"two taggers are called {name}")
        for column in columns:
            if column in column_types():
                raise ValueError(f"tagger {name}: column {column} is {owner_of(column) or 'every document'}'s already")
            if column != column.lower() or not column.isidentifier():
                raise ValueError(f"tagger {name}: column {column!r} is not lower-case letters, digits and _")
        if unknown := set(reads) - {*SCHEMA.names, "tokens"}:
            raise ValueError(f"tagger {name} reads {sorted(unknown)}, which documents do not have")
        TAGGERS[name] = Tagger(name, dict(columns), tuple(reads), version, function, dict(tables or {}))
        return function

    return register


def owner_of(column: str) -> str | None:
    """The tagger that gives a column; None for the documents' own and for unknown ones."""
    return next((each.name for each in TAGGERS.values() if column in each.columns), None)


def column_types() -> dict[str, pa.DataType]:
    """Every column that a predicate may name: the documents' own and those of all taggers."""
    return DOCUMENT_COLUMNS | {name: kind for each in TAGGERS.values() for name, kind in each.columns.items()}


def needed(columns: Set[str]) -> list[Tagger]:
    """The taggers to run for predicates that name these columns: their owners and the default ones; by name."""
    owners = {owner_of(column) for column in columns}
    return [TAGGERS[name] for name in sorted(TAGGERS) if name in DEFAULT or name in owners]


def tag(taggers: Iterable[Tagger], batch: Batch) -> pa.Table:
    """The attribute columns of a batch, row-aligned, in the order of the taggers.

    Raises PipelineError naming tagger, column and documents if a tagger fails or breaks its promise. The documents
    are narrowed down to the one at fault by running the tagger on halves.
    """
    return pa.table({name: column for each in taggers for name, column in zip(each.columns, run(each, batch)[0].columns, strict=True)})


def run(each: Tagger, batch: Batch) -> tuple[pa.Table, dict[str, pa.Table]]:
    """One tagger's columns and tables. Raises as `tag` does."""
    try:
        return _checked(each, each.function(batch), len(batch))
    except Exception as error:
        culprit = _narrow(each, batch)
        kind = "" if isinstance(error, PipelineError) else f"{type(error).__name__}: "
        raise PipelineError(f"tagger {each.name} failed on {culprit.place()}: {kind}{error}") from error


def _checked(each: Tagger, result: Result, count: int) -> tuple[pa.Table, dict[str, pa.Table]]:
    values, tables = result if isinstance(result, tuple) else (result, {})
    if set(values) != set(each.columns) or set(tables) != set(each.tables):
        given, promised = (sorted({*columns, *more}) for columns, more in ((values, tables), (each.columns, each.tables)))
        raise PipelineError(f"it returned the columns {given} and had promised {promised}")
    arrays = {}
    for name, kind in each.columns.items():
        array = values[name]
        array = array if isinstance(array, pa.Array) else pa.array(array)
        if array.type != kind:
            raise PipelineError(f"column {name} is {array.type} and should be {kind}")
        if len(array) != count:
            raise PipelineError(f"column {name} has {len(array)} values for {count} documents")
        if array.null_count or (pa.types.is_floating(kind) and pc.any(pc.is_nan(array)).as_py()):
            raise PipelineError(f"column {name} has a null or NaN; every document needs a value")
        arrays[name] = array
    for name, schema in each.tables.items():
        if tables[name].schema != schema:
            raise PipelineError(f"table {name} has the columns {tables[name].schema.to_string()} and should have {schema.to_string()}")
        rows = tables[name]["row"].to_numpy()
        if len(rows) and (rows[0] < 0 or rows[-1] >= count or (np.diff(rows) < 0).any()):
            raise PipelineError(f"the rows of table {name} do not ascend from 0 to {count - 1}")
    return pa.table(arrays), dict(tables)


def _narrow(each: Tagger, batch: Batch) -> Batch:
    """The smallest part of the batch, by halving, that fails by itself; the batch if neither half does."""
    while len(batch) > 1:
        middle = len(batch) // 2
        for half in (batch.slice(0, middle), batch.slice(middle, len(batch))):
            try:
                _checked(each, each.function(half), len(half))
            except Exception:
                batch = half
                break
        else:
            return batch
    return batch


for _module in pkgutil.iter_modules(__path__):
    if not _module.name.startswith("_"):
        importlib.import_module(f"{__name__}.{_module.name}")
