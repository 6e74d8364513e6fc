"""The report's part about a mix: what it is made of, what became of all that was read, and what that took.

In: a mix that was built in the store: its lock-file, its build manifest, and the tables of the units that this lists. Out: a Part.
Cost: reads some columns of every document's row, up to 2 million documents per source (mix_sources.py): seconds per million; and of sources
that nobody asked for their languages a few row groups of text. Not: no document is shown (documents.py).
"""

import duckdb

from pipeline.store import Store
from tools.report import (
    mix_attributes,
    mix_duplicates,
    mix_funnel,
    mix_languages,
    mix_lengths,
    mix_licences,
    mix_shares,
    mix_times,
    mix_validation,
)
from tools.report.blocks import Part
from tools.report.mix_sources import BuiltMix


def part(store: Store, connection: duckdb.DuckDBPyConnection, mix: str) -> Part:
    """Raises ConfigError when the mix has not been built in the store, PipelineError when what it rests on is damaged."""
    built = BuiltMix.of(store, connection, mix)
    sections = [
        mix_shares.facts(built),
        mix_shares.section(built),
        mix_funnel.section(built),
        mix_lengths.section(built),
        mix_attributes.section(built),
        mix_duplicates.section(built),
        mix_languages.section(built),
        mix_validation.section(built),
        mix_licences.section(built),
        mix_times.section(built),
    ]
    return Part("mix", "The mix", sections)
