"""What a source turned out to hold, beside what its publisher says: after a build from the hub.

In: per source the published counts, the files that were taken of it, and its funnel. Out: a table, and a line for each source with a
count that is further off than its tolerance. Never an error: cards round, count with other tokenizers, and are at times wrong.

What is compared is what the source's rules left, since cards count after the publisher's, and before duplicates go. A part of a
source is held against the same part of the counts, by its compressed bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

from pipeline.config import human
from pipeline.download import hub
from pipeline.readers import RawFile
from pipeline.recipe import Published, Source
from pipeline.store import Store
from pipeline.terminal import titled
from pipeline.unit import Json

TOLERANCE = 0.05  # of a whole source; cards round to three digits, tokenizers of one kind differ by 2 to 4 %
TOLERANCE_OF_A_PART = 0.20  # of some files of it: they are as large as they are for longer documents or for more of them
UNITS = ("documents", "bytes", "tokens")
BY_RULES = {"read", "prepare", "tokenize", "filter"}  # the funnel's stages that drop what a publisher has dropped too


@dataclass(frozen=True)
class Outcome:
    """share: of the bytes that the hub lists for the source, those that were taken. found: documents, bytes of text and tokens
    that the source's rules left."""

    source: str
    published: Published
    share: float
    found: dict[str, int]

    @property
    def tolerance(self) -> float:
        return TOLERANCE if self.share == 1 else TOLERANCE_OF_A_PART

    def expected(self, unit: str) -> float:
        return self.share * float(getattr(self.published, unit))

    def off(self, unit: str) -> float:
        """How much more was found than expected, as a share of that."""
        return self.found[unit] / max(self.expected(unit), 1) - 1


def outcome(source: Source, files: Sequence[RawFile], funnel: Sequence[Mapping[str, Json]], store: Store) -> Outcome:
    """Of a source that came from the hub: `files` were read, `funnel` says what became of their documents (build.py)."""
    listing = hub.listing(source, store)
    found = {unit: sum(line[unit] for line in funnel if line["stage"] not in BY_RULES) for unit in UNITS}
    return Outcome(source.name, hub.declared(source)[1], sum(file.bytes for file in files) / listing.bytes, found)


def table(outcomes: Sequence[Outcome]) -> Table:
    """Expected beside found."""
    columns = [column for unit in UNITS for column in (unit, "found", "off")]
    shown = titled("Published, for the share that was taken, beside what was found", "source", "taken", *columns)
    for outcome in outcomes:
        cells = [(human(round(outcome.expected(unit))), human(outcome.found[unit]), f"{outcome.off(unit):+.1%}") for unit in UNITS]
        shown.add_row(outcome.source, f"{outcome.share:.1%}", *(cell for three in cells for cell in three))
    return shown


def warnings(outcomes: Sequence[Outcome]) -> list[str]:
    """A line for each source with a count that is further off than its tolerance."""
    lines = []
    for outcome in outcomes:
        far = [f"{unit} {outcome.off(unit):+.0%}" for unit in UNITS if abs(outcome.off(unit)) > outcome.tolerance]
        if far:
            lines.append(
                f"{outcome.source}: {', '.join(far)} beside what is published, more than {outcome.tolerance:.0%}; see make stats, and "
                "what is known of the release"
            )
    return lines
