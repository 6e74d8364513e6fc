"""`make verify`: reread everything that a mix rests on and name each thing that does not hold; REMOVE=1 removes what is damaged.

Checked: size and sha256 of every output of every unit, of the tokenizer, and of every raw file that is still there; that each record is
its unit's and as it was written; each shard's header against its bytes, its document table (documents lie back to back from 0 to the
shard's end), ids within the vocabulary, the end-of-document token at every document's end; each ledger against its shards; the books of
every source; and that the mix's lock-file names exactly these shards. One read of every byte, forwards, wherever the store is; memory
per worker: 16 MiB of tokens and the tables of one unit of shards.

A damaged file is removed with its unit, and with the units that read it, for they may have read it as it is now. Made again these have
either the bytes that they had, and all that rests on them is right, or others, and then all that rests on them has another key and
is made again by itself: one step is enough.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from pipeline import catalog, checks
from pipeline.checks import REMOVE, Damaged, Problem
from pipeline.errors import ConfigError, PipelineError
from pipeline.progress import Progress
from pipeline.stages import download
from pipeline.store import RECORD, Store
from pipeline.unfinished import claimed
from pipeline.unit import Artifact, Json

Check = tuple[int, Callable[[], Iterable[Problem]]]  # bytes to read, and what names the things that do not hold


def verify(store: Store, mix: str, workers: int, progress: Progress) -> list[Problem]:
    """What does not hold; empty when all is well. Raises ConfigError if no build of the mix was ever begun."""
    try:
        unfinished = claimed(store, mix)
        manifest = _manifest(store, mix, begun=bool(unfinished))
    except ConfigError:
        raise
    except PipelineError as error:
        return [Problem(str(error))]
    todo: list[Check] = []
    named = {folder for source in manifest["sources"].values() for folders in source["units"].values() for folder in folders}
    done = {file.removesuffix(f"/{RECORD}") for stage in unfinished for file in store.files(stage) if file.endswith(f"/{RECORD}")}
    for stage, folders in unfinished.items():
        for folder in sorted((set(folders) & done) - named):
            todo += _of_unit(store, stage, folder)
    for name, source in manifest["sources"].items():
        for path, digest, size in source["raw"]:
            todo.append((size, partial(checks.raw_file, store, Artifact(_relative(store, path), digest, size))))
        for stage, folders in source["units"].items():
            for folder in folders if stage != download.STAGE.output else ():  # checked above; they may be gone
                todo += _of_unit(store, stage, folder)
        todo.append((0, partial(checks.books, store, name, source)))
    if manifest["sources"]:
        todo.append((0, partial(checks.mix_lock, store, mix, manifest)))
    problems: list[Problem] = []
    with progress.stage("verify", len(todo), sum(size for size, _ in todo)) as bar, ThreadPoolExecutor(workers) as pool:
        futures = [(size, pool.submit(_made, check)) for size, check in todo]
        for size, future in futures:
            problems += future.result()
            bar.advance(size)
    return list(dict.fromkeys(problems))  # sources that are deduplicated together share units


def remove_damaged(store: Store, problems: Sequence[Problem], progress: Progress) -> list[str]:
    """Remove what is damaged and the units that read it; returns their places. Reads all records of the store. Waits for a run
    that holds the store."""
    damaged = [problem.damaged for problem in problems if problem.damaged]
    if not damaged:
        return []
    digests = {file.sha256 for file in damaged if file.sha256}
    own = {_place(file.path) for file in damaged}
    with store.lock(progress.say):
        readers = {
            folder for folder in _units(store) for file in _inputs(store, folder) if file.sha256 in digests or _place(file.path) in own
        }
        # Readers first: once what is damaged is gone, nothing tells any more that they read it.
        removed = [*sorted(readers - own), *sorted(own)]
        for place in removed:
            store.remove(place)
    return removed


def _manifest(store: Store, mix: str, begun: bool) -> dict[str, Json]:
    """That of a mix of which a build was begun, and none has ended yet, names no sources."""
    try:
        return catalog.read_manifest(store, mix)
    except ConfigError:
        if begun:
            return {"sources": {}}
        raise


def _of_unit(store: Store, stage: str, folder: str) -> list[Check]:
    damaged = Artifact(f"{folder}/{RECORD}", "", 0)
    try:
        record = store.record(folder)
    except PipelineError as error:
        return [(0, partial(list, [Problem(str(error), damaged)]))]
    if record.unit.folder != folder:
        return [(0, partial(list, [Problem(f"{folder}/{RECORD} is not that of this unit; {REMOVE}", damaged)]))]
    if stage != "shards":
        return [(file.bytes, partial(checks.output, store, file)) for file in record.outputs]
    files = {file.path: file for file in record.outputs}
    found: list[Check] = [
        (file.bytes, partial(checks.shard, store, file, files) if path.endswith(".bin") else partial(checks.output, store, file))
        for path, file in files.items()
    ]
    return [*found, (0, partial(checks.ledger, store, folder, files))]


def _made(check: Callable[[], Iterable[Problem]]) -> list[Problem]:
    """A check that cannot be made is a thing that does not hold."""
    try:
        return list(check())
    except Damaged:
        return []
    except PipelineError as error:
        return [Problem(str(error))]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        return [Problem(f"{type(error).__name__}: {error}")]


def _relative(store: Store, path: str) -> str:
    """Where a raw file lies: within the store, or an absolute path or a URL."""
    return path.removeprefix(f"{store.root}/")


def _place(file: str) -> str:
    """What goes with a file: its unit, or itself where it is no unit's."""
    return file if file.startswith("downloads/") else "/".join(file.split("/")[:3])


def _units(store: Store) -> list[str]:
    stages = dict.fromkeys(stage.output for stage in catalog.STAGES)
    return [file.removesuffix(f"/{RECORD}") for stage in stages for file in store.files(stage) if file.endswith(f"/{RECORD}")]


def _inputs(store: Store, folder: str) -> tuple[Artifact, ...]:
    try:
        return store.record(folder).unit.inputs
    except PipelineError:
        return ()  # the next build does not take it for done
