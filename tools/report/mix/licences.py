"""Where the sources come from, and under which licences."""

from collections.abc import Sequence

from tools.report.blocks import Cell, Section, Table
from tools.report.mix.sources import BuiltMix

LISTED = 8  # licences, or origins, of a source


def section(mix: BuiltMix) -> Section:
    rows: list[list[Cell]] = []
    for source in mix.sources:
        entry = source.entry
        texts = [str(entry.get("title", "")), _listed(entry.get("licence", [])), _listed(entry.get("origin", []))]
        revision = str(entry["revision"]) if entry.get("revision") else None
        rows.append([source.name, source.lock.obtained_share, *texts, revision, entry.get("files"), (entry.get("raw_bytes") or 0) / 1e6])
    headings = ["source", "share", "what it is", "licence", "from", "revision", "files", "raw MB"]
    caption = "share: of the training instances. licence: as the sources' declarations and their packages state it."
    return Section("mix-licences", "Licences and origins", [Table("Licences", headings, rows, caption, shares=frozenset({"share"}))])


def _listed(names: Sequence[str]) -> str:
    more = len(names) - LISTED
    return "; ".join(names[:LISTED]) + (f"; and {more:,} more" if more > 0 else "")
