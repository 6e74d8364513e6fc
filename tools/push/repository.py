"""A data set on the Hugging Face hub that somebody may write to.

In: its name, and the user's own settings (HF_TOKEN or a login, HF_ENDPOINT, proxies). Out: what it holds at its newest commit, by the
hub's own hashes, and new commits. Refusals become PipelineError with what to do, in a line; what may pass becomes Passing.

Files go the way of Git LFS, by plain requests that one can test here and repeat; not by Xet's chunks, whose client shows nothing of what
it sends, and for which no hub on loopback exists. The client's own log is kept quiet: it quotes addresses that carry signatures.
"""

import hashlib
import logging
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from pipeline.download.hub import bound_waiting, stated
from pipeline.download.transfer import GIT
from pipeline.errors import PipelineError
from pipeline.unit import Artifact

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi

MAIN = "main"
SILENCE_S = 300.0  # a commit of many files takes the hub some time
THREADS = 4  # files that are sent at a time
SHOWN = 300  # characters of what a hub answers
CONFLICT = (409, 412)


class Passing(Exception):
    """What may be otherwise in a moment."""


@dataclass(frozen=True)
class State:
    """commit: the newest. files: what the hub says of each file's contents, as sha256 in hex, or `git:` and a blob's id."""

    commit: str
    files: dict[str, str]
    sizes: dict[str, int]

    def has(self, file: Artifact, content: Callable[[Artifact], bytes]) -> bool:
        """Whether the file is there with its bytes. content: gives them, where the hub states a blob's id."""
        found = self.files.get(file.path)
        if found is None or self.sizes[file.path] != file.bytes:
            return False
        return found == (blob_id(content(file)) if found.startswith(GIT) else file.sha256)


def blob_id(content: bytes) -> str:
    return GIT + hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Repository:
    """The data set `<owner>/<name>`."""

    def __init__(self, name: str) -> None:
        self.name = name

    @cached_property
    def _api(self) -> "HfApi":
        from huggingface_hub import HfApi, constants
        from huggingface_hub.utils import disable_progress_bars

        constants.HF_HUB_DISABLE_XET = True
        disable_progress_bars()
        logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
        return HfApi()

    @property
    def url(self) -> str:
        return f"{self._api.endpoint}/datasets/{self.name}"

    def create(self) -> bool:
        """Make it, private, where it is not there; whether it is private."""
        from huggingface_hub.errors import RepositoryNotFoundError

        with self._explained():
            try:
                return bool(self._api.dataset_info(self.name, expand=["private"]).private)
            except RepositoryNotFoundError:
                self._api.create_repo(self.name, repo_type="dataset", private=True, exist_ok=True)
                return True

    def state(self) -> State:
        from huggingface_hub.hf_api import RepoFile

        with self._explained():
            commit = str(self._api.dataset_info(self.name, revision=MAIN, expand=["sha"]).sha)
            entries = self._api.list_repo_tree(self.name, repo_type="dataset", revision=commit, recursive=True)
            files = [entry for entry in entries if isinstance(entry, RepoFile)]
        return State(commit, {file.path: stated(file) for file in files}, {file.path: file.size for file in files})

    def send(self, additions: "Sequence[CommitOperationAdd]") -> None:
        """Upload the large ones of some files; they are in no commit yet. What the hub's storage has already is not sent."""
        with self._explained():
            self._api.preupload_lfs_files(self.name, additions, repo_type="dataset", revision=MAIN, num_threads=THREADS)

    def commit(self, message: str, additions: "Sequence[CommitOperationAdd]", deletions: Sequence[str], parent: str) -> str:
        """A commit on `parent`, which must be the newest; its own id. Large files were sent before."""
        from huggingface_hub import CommitOperationDelete

        operations: list[CommitOperationAdd | CommitOperationDelete] = list(additions)
        operations += [CommitOperationDelete(path, is_folder=False) for path in deletions]
        with self._explained():
            made = self._api.create_commit(
                self.name, operations, commit_message=message, repo_type="dataset", revision=MAIN, parent_commit=parent
            )
        return str(made.oid)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What the client raises, as what a person can do about it."""
        import httpx2
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        bound_waiting(SILENCE_S)
        try:
            yield
        except OfflineModeIsEnabled:
            raise PipelineError(f"{self.name}: HF_HUB_OFFLINE is set; unset it to push") from None
        except HfHubHTTPError as error:
            raise self._refusal(error) from None
        except httpx2.TransportError as error:
            raise Passing(_line(f"{type(error).__name__} {error}")) from None
        except (RuntimeError, ValueError) as error:
            cause = error.__cause__  # threads that send files wrap what they meet
            if isinstance(cause, HfHubHTTPError):
                raise self._refusal(cause) from None
            if isinstance(cause, httpx2.TransportError | RuntimeError):  # RuntimeError: another thread gave the connection up
                raise Passing(_line(f"{type(cause).__name__} {cause}")) from None
            raise PipelineError(f"{self.name}: the hub does not take it: {_line(str(error))}") from error

    def _refusal(self, error: "Exception") -> PipelineError | Passing:
        from huggingface_hub.errors import HfHubHTTPError

        assert isinstance(error, HfHubHTTPError)
        code = error.response.status_code
        told = _line(error.server_message or error.response.reason_phrase)
        if code >= 500 or code in (408, 429):
            return Passing(f"the hub answered {code} {told}")
        if code in CONFLICT:
            return PipelineError(f"{self.name}: somebody else wrote to it meanwhile ({told}); run the same command again")
        owner = self.name.split("/")[0]
        remedy = {
            401: "set HF_TOKEN to a token that may write there",
            403: f"your token must be one that may write to {owner}, whose storage must have room: set another HF_TOKEN, free some, or "
            "give another TO",
            404: "set HF_TOKEN to a token that may write there, or correct TO",
        }
        return PipelineError(f"{self.name}: the hub answered {code}: {told}; {remedy.get(code, 'run the same command again')}")


def _line(text: str) -> str:
    """What another machine says: one line, of bounded length, nothing that a terminal would obey."""
    plain = "".join(" " if unicodedata.category(letter)[0] in "CZ" else letter for letter in text[: 4 * SHOWN])
    return " ".join(plain.split())[:SHOWN]
