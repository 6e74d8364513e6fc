"""Contents → the data set that holds them, and nothing of older releases.

In: a store, Contents, a Repository. Out: a commit whose files are all ours by the hub's own hashes. First the files whose names are made
of what is in them, which disturb no release that is there: in commits of up to COMMIT_FILES. When the hub lists all of them with our
hashes, one more commit brings lock, books, list and papers, and takes away what only an older release needed. Whoever reads the data
set at any moment finds the old release, or none, or the new one.

What the hub lists with the right hash is not sent, nor what its storage holds already: a push that was killed goes on, and pushing twice
sends nothing. Each file that is sent is hashed before (it must be what its record says), and compared after.

Cost: three listings (a request per 1000 files), a request per 64 files and one per large file; a read of what is sent for its hash and one
to send it. Waits and tries again when the hub is busy or gone, up to ATTEMPTS times without progress.
"""

import random
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from pipeline.errors import ConfigError, PipelineError
from pipeline.progress import Progress
from pipeline.release import FILE, MANIFEST, PAPERS
from pipeline.store import Store
from pipeline.unit import Artifact
from tools.push.contents import Contents
from tools.push.repository import THREADS, Passing, Repository, State

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd

COMMIT_FILES, COMMIT_BYTES = 200, 20 << 30
SEND_FILES, SEND_BYTES = 64, 2 << 30
IN_MEMORY = 1 << 20
ATTEMPTS = 6
FIRST_PAUSE_S, LONGEST_PAUSE_S = 2.0, 60.0
REMEDY = "make verify names what else has, make verify REMOVE=1 and make mix make it again"
ATTRIBUTES = ".gitattributes"  # which the hub itself makes


@dataclass(frozen=True)
class Outcome:
    """commit: the release. files, bytes: all of it. sent, sent_bytes: what was not there before."""

    commit: str
    files: int
    bytes: int
    sent: int
    sent_bytes: int


def upload(store: Store, contents: Contents, repository: Repository, progress: Progress) -> Outcome:
    """Raises ConfigError where the data set holds something else, PipelineError where the hub refuses or has other bytes than ours."""
    return _Upload(store, contents, repository, progress).run()


class _Upload:
    def __init__(self, store: Store, contents: Contents, repository: Repository, progress: Progress) -> None:
        self.store, self.contents, self.repository, self.progress = store, contents, repository, progress
        self.sent: dict[str, Artifact] = {}
        self.failures = 0  # since anything went well

    def run(self) -> Outcome:
        files = self.contents.files
        named_by_content = [file for file in files if file.path.startswith(("shards/", "tokenizers/"))]
        others = [file for file in files if file not in set(named_by_content)]
        self._bring(named_by_content, final=False)
        state = self._bring(others, final=True)
        if wrong := self._missing(files, state):
            raise self._unlike(wrong[0], state)
        sizes = [sum(file.bytes for file in some) for some in (files, self.sent.values())]
        return Outcome(state.commit, len(files), sizes[0], len(self.sent), sizes[1])

    def _bring(self, files: Sequence[Artifact], final: bool) -> State:
        """Send what is missing of these files, until the hub lists all of them; that state. final: and remove what is stale."""
        while True:
            try:
                state = self.repository.state()
                self._check_free(state)
                missing, stale = self._missing(files, state), self._stale(state) if final else []
                if not missing and not stale:
                    return state
                if again := [file for file in missing if file.path in self.sent]:
                    raise self._unlike(again[0], state)
                self._send(missing, stale, state.commit, final)
            except Passing as error:
                self._pause(error)

    def _send(self, files: Sequence[Artifact], stale: Sequence[str], parent: str, final: bool) -> None:
        from huggingface_hub import CommitOperationAdd

        commits = [files] if final else list(_groups(files, COMMIT_FILES, COMMIT_BYTES))
        with self.progress.stage("push", len(files), sum(file.bytes for file in files)) as bar:
            for number, group in enumerate(commits, 1):
                store = Store(self.store.place)  # of its own: copies of an object store stay for as long as what handed them out
                additions: list[CommitOperationAdd] = []
                for some in _groups(group, SEND_FILES, SEND_BYTES):
                    with ThreadPoolExecutor(THREADS) as pool:
                        opened = list(pool.map(partial(self._addition, store), some))
                    self.repository.send(opened)
                    additions += opened
                    bar.advance(sum(file.bytes for file in some), len(some))
                    self.failures = 0
                what = "release" if final else f"shards and tables, {number} of {len(commits)}"
                parent = self.repository.commit(f"{self.contents.release.mix}: {what}", additions, stale, parent)
                self.sent |= {file.path: file for file in group}

    def _addition(self, store: Store, file: Artifact) -> "CommitOperationAdd":
        """A file to send, of which the hash was compared."""
        from huggingface_hub import CommitOperationAdd

        try:
            in_memory = file.path in self.contents.small or file.bytes <= IN_MEMORY
            content = self.contents.content(store, file) if in_memory else str(store.local(file).resolve(strict=True))
        except FileNotFoundError:
            raise PipelineError(f"{file.path}: missing; {REMEDY}") from None
        addition = CommitOperationAdd(file.path, content)
        if addition.upload_info.sha256.hex() != file.sha256:
            raise PipelineError(f"{file.path}: its bytes have changed since it was written; {REMEDY}")
        return addition

    def _missing(self, files: Iterable[Artifact], state: State) -> list[Artifact]:
        return [file for file in files if not state.has(file, lambda file: self.contents.content(self.store, file))]

    def _stale(self, state: State) -> list[str]:
        """What an older release has and this one has not."""
        wanted = {file.path for file in self.contents.files}
        return sorted(path for path in state.files if path not in (*wanted, ATTRIBUTES))

    def _check_free(self, state: State) -> None:
        """A data set is for one mix and nothing else: its other files would be taken for the release's, or overwritten."""
        mix, own = self.contents.release.mix, f"mixes/{self.contents.release.mix}."
        if others := [path for path in state.files if path.startswith("mixes/") and not path.startswith(own)]:
            raise ConfigError(f"{self.repository.name} holds {others[0]}, of another mix than {mix}; give another TO")
        known = (re.escape(ATTRIBUTES), re.escape(MANIFEST), PAPERS.pattern, FILE.pattern)
        if others := [path for path in state.files if not re.fullmatch("|".join(known), path)]:
            raise ConfigError(
                f"{self.repository.name} holds {others[0]}, which is no part of a release; remove it there, or give another TO"
            )

    def _unlike(self, file: Artifact, state: State) -> PipelineError:
        found = state.files.get(file.path)
        what = f"has {found} for {file.path}, ours is {file.sha256}" if found else f"does not list {file.path}"
        return PipelineError(f"{self.repository.name}: the hub {what}; run the same command again, which sends it anew")

    def _pause(self, error: Passing) -> None:
        self.failures += 1
        if self.failures == ATTEMPTS:
            raise PipelineError(
                f"{self.repository.name} could not be written to: {error}, after {ATTEMPTS} attempts; check the network and the proxy "
                "(HTTPS_PROXY); what arrived is kept, the same command goes on from there"
            )
        seconds = min(FIRST_PAUSE_S * 2 ** (self.failures - 1), LONGEST_PAUSE_S) * random.uniform(0.5, 1.5)
        self.progress.say(f"{error}; goes on in {seconds:.0f} s")
        time.sleep(seconds)


def _groups(files: Sequence[Artifact], most: int, size: int) -> Iterator[list[Artifact]]:
    """Neighbouring files together, up to so many and so many bytes; one file may be larger."""
    group: list[Artifact] = []
    for file in files:
        if group and (len(group) == most or sum(one.bytes for one in group) + file.bytes > size):
            yield group
            group = []
        group.append(file)
    if group:
        yield group
