"""The report's part about a mix: what it is made of, what became of all that was read, and what that took.

In: a mix that was built in the store: its lock-file, its build manifest, and the tables of the units that this lists. Out: a Part.
Cost: reads some columns of every document's row, up to 2 million documents per source (sources.py): seconds per million; and of sources
that nobody asked for their languages a few row groups of text. Not: no document is shown (documents.py).
"""

import duckdb

from pipeline.store import Store
from tools.report.blocks import Part
from tools.report.mix import attributes, duplicates, funnel, languages, lengths, licences, shares, times, validation
from tools.report.mix.sources import BuiltMix


def part(store: Store, connection: duckdb.DuckDBPyConnection, mix: str) -> Part:
    """Raises ConfigError when the mix has not been built in the store, PipelineError when what it rests on is damaged."""
    built = BuiltMix.of(store, connection, mix)
    sections = [
        shares.facts(built),
        shares.section(built),
        funnel.section(built),
        lengths.section(built),
        attributes.section(built),
        duplicates.section(built),
        languages.section(built),
        validation.section(built),
        licences.section(built),
        times.section(built),
    ]
    return Part("mix", "The mix", sections)
