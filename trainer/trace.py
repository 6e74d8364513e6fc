"""From a step back to its documents: what a run was trained on when.

In: a run's record, lock-file and metrics; the shards and their document tables. Out: one line per document that any of the
step's instances holds a part of, with the beginning of that part as the model saw it. The instances follow from the lock
alone, so this works without the metrics too, in time that depends on the batch and not on the run: 3 ms per instance. Ranks
are those that the metrics recorded; without a record, all of rank 0. Where the record names other tokens than the lock, that
is an error. Not: runs on token files without document tables.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text
from tokenizers import Tokenizer

from pipeline.config import shown
from pipeline.errors import ConfigError, PipelineError
from pipeline.reader import MixReader
from pipeline.terminal import visible
from trainer.metrics import read, read_step
from trainer.run import Run

TEXT = 60  # characters
TOKENS = 4 * TEXT  # hold as many characters: none takes more than four tokens


class TracedDocument(NamedTuple):
    """The part of a document that an instance holds: its tokens [start, start + length), after `offset` earlier ones."""

    rank: int
    position: int  # of the instance in the step's batch
    instance: int  # of the run: what `make inspect RUN= INSTANCE=` takes
    source: str
    id: str
    file: str
    row: int
    start: int
    length: int
    offset: int
    text: str  # the part's first characters


def trace(store: Path | str, run: str, step: int) -> list[TracedDocument]:
    """The documents of a step (from 1), in the order of its batch.

    Raises ConfigError for an unknown run, a step that it did not take, or a run without document tables; PipelineError where
    the store has changed since.
    """
    opened = Run(store, run)
    train = opened.plan.config.train
    _check_taken(opened, step, planned=opened.plan.config.steps)
    if not opened.lock.exists():
        query = f"SELECT source, shard, shard_start FROM instances WHERE run = '{run}' AND step = {step}"
        raise ConfigError(f'{run} was trained on token files that have no document tables; its instances: make sql Q="{query}"')
    reader = MixReader(opened.lock, opened.mixes.place)
    assert opened.tokenizer is not None  # a run with a lock has one
    tokenizer = Tokenizer.from_file(str(opened.tokenizer))
    recorded = {row["position"]: row for row in read_step(opened.folder, "instances", step).to_pylist()}
    batch = train.batch_tokens // train.sequence_length
    found = []
    for position, index in enumerate(range((step - 1) * batch, step * batch)):
        place, row = reader.locate(index), recorded.get(position)
        if row and (row["shard"], row["start"]) != (place.shard, place.start):
            raise PipelineError(
                f"step {step} of {run} trained on {row['shard']} from token {row['start']}, and {shown(opened.lock)} has "
                f"{place.shard} from token {place.start} at that place; one of them was changed: bring back the run's own files"
            )
        tokens = reader[index].tokens
        for part in reader.documents(index):
            ids = tokens[part.start : part.start + min(part.length, TOKENS)].tolist()
            text = tokenizer.decode(ids, skip_special_tokens=False)[:TEXT]
            found.append(
                TracedDocument(
                    row["rank"] if row else 0, position, index, place.source, part.id, part.file, part.row, part.start, part.length,
                    part.offset, text,
                )
            )  # fmt: skip
    return found


def show(documents: Sequence[TracedDocument], console: Console) -> None:
    """As a table, a line per document; a position's instance is named once."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("rank", "position", "instance", "source", "start", "length", "offset", "document", "text"):
        number = heading in ("rank", "position", "instance", "start", "length", "offset")
        table.add_column(heading, justify="right" if number else "left", overflow="fold", no_wrap=number or heading == "source")
    before = None
    for document in documents:
        instance = (str(document.rank), str(document.position), str(document.instance), document.source)
        numbers = (f"{number:,}" for number in (document.start, document.length, document.offset))
        place = f"{document.file}#{document.row}"
        name = document.id if document.id == place else f"{document.id} ({place})"
        words = (Text(visible(text)) for text in (name, " ".join(document.text.split())))  # Text: an id may hold what is markup in a string
        table.add_row(*(("", "", "", "") if instance == before else instance), *numbers, *words)
        before = instance
    console.print(table)


def _check_taken(run: Run, step: int, planned: int) -> None:
    if len(read_step(run.folder, "steps", step)):
        return
    recorded = read(run.folder, "steps")["step"].to_pylist()
    last = max(recorded, default=planned)  # without a record, the last that it was to take
    if not 1 <= step <= last:
        raise ConfigError(f"STEP={step}: the record of {run.name} has steps 1 to {last} (a running one adds to it every 30 s)")
