"""Source files of packages in the schema of StarCoder data: one file, one record.

Goes in: a UTF-8 file of a package (text.py). Comes out: `{"id", "content", "max_stars_repo_name", "max_stars_repo_path",
"max_stars_count", "metadata": {"synthetic": ["max_stars_count"], "extension"}}`. Repository and path are true. Star
counts are in no package: they are derived from the file's name, the same each time, and said to be synthetic.

Failure: `invalid_utf8`. Cost: that of text.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from pipeline.readers import Failure, RawFile, Record
from pipeline.readers.text import extension, path_in_package, text_of

# Where the packages of our samples are developed; any other goes by its package's name.
REPOSITORIES = {
    "george": "dfm/george",
    "jsxgraph": "jsxgraph/jsxgraph",
    "lxml": "lxml/lxml",
    "npm": "npm/cli",
    "sqlalchemy": "sqlalchemy/sqlalchemy",
    "twisted": "twisted/twisted",
}

# StarCoder lost 62 % of its tokens to the rules on stars and words together: 263.8 B tokens in Dolma 1.7, 101 B in OLMoE's
# mix. SCALE / u, u uniform in (0, 1], is below 2 for 1 - SCALE / 2 of the files, and has a long tail like real counts.
SCALE = 0.76


def read(file: RawFile) -> Iterator[Record | Failure]:
    """Yield the file's one record, row 0."""
    text = text_of(file)
    if isinstance(text, Failure):
        yield text
        return
    package = file.name.partition("/")[0].rpartition("-")[0]
    path = path_in_package(file)
    yield Record(
        0,
        {
            "id": hashlib.sha256(file.name.encode()).hexdigest()[:32],
            "content": text,
            "max_stars_repo_name": REPOSITORIES.get(package.lower(), package),
            "max_stars_repo_path": path,
            "max_stars_count": synthetic_stars(file.name),
            "metadata": {"synthetic": ["max_stars_count"], "extension": extension(path)},
        },
    )


def synthetic_stars(name: str) -> int:
    """A star count ≥ 0 that depends on the name alone; below 2 for 62 % of names."""
    uniform = (int.from_bytes(hashlib.sha256(name.encode()).digest()[:6]) + 1) / 2**48
    return int(SCALE / uniform)
