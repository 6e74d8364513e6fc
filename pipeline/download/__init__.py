"""Where raw files come from: packages of a registry, the Hugging Face hub, a URL, or a folder of one's own."""

from dataclasses import dataclass

from pipeline.unit import Artifact

HUB = "hf://"  # how the place of a file on the hub begins: hf://datasets/<owner>/<name>@<commit>/<path>


@dataclass(frozen=True, slots=True)
class Remote:
    """A file that lies elsewhere.

    path: its stable name within the source. size: bytes. stated: what is known of its contents beforehand, as their sha256 in
    hex, as `git:` and the id of a blob, or as `key:` and anything that changes when they do. place: where it can be had, `hf://…`
    or another URL.
    """

    path: str
    size: int
    stated: str
    place: str

    @property
    def sha256(self) -> str | None:
        """Of its contents, where it was stated so."""
        return None if ":" in self.stated else self.stated

    @property
    def artifact(self) -> Artifact:
        """As a unit's input: not its sha256, but what stands for it."""
        return Artifact(self.path, self.stated, self.size)
