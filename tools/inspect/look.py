"""What to look at: a mix, or a run's own order of one, opened for `make inspect`; and what is drawn of it, piece by piece.

In: the names that a person gave. Out: for each instance or document a function that draws it, so that nothing is read before a pager
asks for it. Cost: a lock-file and a manifest; then as books.py and parts.py say. Every error about names is raised before the first piece.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from rich.console import Console
from tokenizers import Tokenizer

from pipeline.errors import ConfigError, PipelineError
from pipeline.reader import MixReader
from pipeline.store import Store
from pipeline.tokenizer import kept, load
from tools.inspect import show
from tools.inspect.books import Books, Entry, Failure
from tools.inspect.parts import Parts
from tools.inspect.show import LISTED, Drawing, Line

Piece = Callable[[Drawing], None]


@dataclass(frozen=True)
class Subject:
    """of: what instances are numbered in, a mix or a run. batch: instances in a step of the run; None for a mix."""

    store: Store
    of: str
    reader: MixReader
    books: Books
    batch: int | None
    again: str

    def tokenizer(self) -> Tokenizer:
        """Raises PipelineError when the store lacks it."""
        known = self.reader.lock.tokenizer
        try:
            path = self.store.local(kept(known.sha256))
            return Tokenizer.from_str(load(str(path), known.sha256).decode())
        except FileNotFoundError:
            place, mix = self.store.url(kept(known.sha256)), self.books.mix
            raise PipelineError(f"{place}: the tokenizer of {mix} is not there; run: make mix MIX={mix}") from None

    def drawing(self, screen: Console, tokenizer: Tokenizer) -> Drawing:
        dtype = np.dtype(self.reader.lock.tokenizer.dtype).newbyteorder("<")
        return Drawing(screen, tokenizer, dtype, Parts(self.store), self.again)


def open_subject(mix: str, run: str, place: str) -> Subject:
    """A mix of the store at `place`, or a run's. Raises ConfigError."""
    elsewhere = "" if place == "data" else f" STORE={place}"
    if run:
        from trainer.run import Run

        opened = Run(place, run)
        train = opened.plan.config.train
        if not opened.lock.exists():
            raise ConfigError(f"RUN={run}: it was trained on token files, which name no documents")
        if mix not in ("", opened.plan.mix):
            raise ConfigError(f"RUN={run}: it was trained on {opened.plan.mix}; leave MIX out")
        store, batch = opened.mixes, train.batch_tokens // train.sequence_length
        return Subject(store, run, MixReader(opened.lock, store.place), Books(store, opened.plan.mix), batch, f"RUN={run}{elsewhere}")
    store, mix = Store(place), mix or "olmoe-mix"
    books = Books(store, mix)
    return Subject(store, mix, MixReader(store.local(f"mixes/{mix}.lock.json"), place), books, None, f"MIX={mix}{elsewhere}")


def instance(subject: Subject, number: str) -> Iterator[Piece]:
    """Instance `number` of the mix or run."""
    digits = number.replace(",", "").replace("_", "")
    if not (digits.isascii() and digits.isdigit() and int(digits) < len(subject.reader)):
        raise ConfigError(f"INSTANCE={number}: {subject.of} has instances 0 to {len(subject.reader) - 1}")
    index = int(digits)
    place, tokens, spans = subject.reader.locate(index), subject.reader[index].tokens, subject.reader.documents(index)
    entries = subject.books.of_instance(place.source, place.shard, spans)
    yield partial(show.instance, place=place, of=subject.of, tokens=tokens, spans=spans, entries=entries)


def documents(subject: Subject, name: str, source: str) -> Iterator[Piece]:
    """The documents of that id or place."""
    for entry in subject.books.named(name, source):
        yield partial(show.document, entry=entry, places=list(_places(subject, entry)), whole=True)


def listed(subject: Subject, source: str, reason: str) -> Iterator[Piece]:
    """All documents of a source; those that `reason` dropped, if it is given."""
    books = subject.books
    if reason:
        full = books.reason(reason, source)
        yield partial(show.heading, count=books.reasons(source)[full], reason=full, of=source or books.mix)
        found_all: Iterator[Entry | Failure] = books.dropped(full, source)
    else:
        found_all = books.documents(source)
    for found in found_all:
        yield partial(show.failure, found=found) if isinstance(found, Failure) else partial(show.document, entry=found, whole=False)


def _places(subject: Subject, entry: Entry) -> Iterator[Line]:
    """Where the run reads a document."""
    if entry.split != "train" or entry.shard is None:
        return
    try:
        found = sorted(_instances(subject.reader, entry))
    except KeyError:
        yield "read in", f"no instance of {subject.of}: its shards are others; {subject.books.mix} was built again since"
        return
    shown = ", ".join(map(str, found[:LISTED])) + (f" and {len(found) - LISTED:,} more" if len(found) > LISTED else "")
    yield "read in", f"instances {shown} of {subject.of}" if found else f"no instance of {subject.of}: it ends before that"
    if subject.batch and found:
        steps = sorted({index // subject.batch + 1 for index in found})
        yield "", f"in steps {', '.join(map(str, steps[:LISTED]))}" + (f" and {len(steps) - LISTED:,} more" if len(steps) > LISTED else "")


def _instances(reader: MixReader, entry: Entry) -> set[int]:
    """The instances that hold tokens of a document, in as many shards as it reaches over."""
    assert entry.shard is not None and entry.start is not None
    sizes = {shard.path: shard.tokens for source in reader.lock.sources for shard in source.shards}
    split, number = entry.shard.removesuffix(".bin").rsplit("-", 1)
    found: set[int] = set()
    place, start, left = int(number), entry.start, entry.tokens
    while left > 0:
        path = f"{entry.unit}/{split}-{place:05d}.bin"
        here = min(left, sizes[path] - start)
        found.update(reader.occurrences(entry.source, path, start, here))
        place, start, left = place + 1, 0, left - here
    return found
