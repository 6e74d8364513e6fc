"""A source's files at a URL that fsspec reads: `<url>/<source>/**`.

In: a URL. Out: what lies there as Remotes, and one of them as a file on this machine. Nothing is known of the contents before they
are here, so a file counts as the same while its size and tag (ETag, or a time) are. Hidden files are left out.
Cost: one request per 1000 files, and three per file that is copied; one that breaks off is begun again.
"""

from pathlib import Path

from pipeline.download import Remote
from pipeline.errors import PipelineError
from pipeline.unit import Artifact

KEY = "key:"


def files(url: str, source: str) -> list[Remote]:
    """Sorted by name; [] when nothing is there. Raises ConfigError for a URL that cannot be opened."""
    from pipeline.objects import Objects  # imports fsspec, which takes 0.1 s

    found = Objects(url).listing(source)
    names = {path: path.removeprefix(f"{source}/") for path in sorted(found)}
    return [
        Remote(name, found[path].bytes, f"{KEY}{found[path].bytes}:{found[path].tag}", f"{url.rstrip('/')}/{path}")
        for path, name in names.items()
        if not any(part.startswith(".") for part in name.split("/"))
    ]


def copy(place: str, wanted: Artifact, path: Path) -> None:
    """Make `path` the file at `place`. Raises PipelineError if it is not the one that was listed."""
    from pipeline.objects import Objects

    folder, name = place.rsplit("/", 1)
    objects = Objects(folder)
    try:
        before = objects.entry(name)
        objects.download(name, path)
        same = objects.entry(name) == before and before.bytes == path.stat().st_size == wanted.bytes
    except FileNotFoundError:
        same = False
    if not same:
        raise PipelineError(f"{place} was changed or removed while it was copied; run the same command again")
