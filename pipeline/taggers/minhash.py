"""MinHash band hashes, by which near-duplicates are found, computed where the text is read anyway."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from pipeline.dedupe.methods import Near
from pipeline.taggers import Batch
from pipeline.taggers.kinds import kind


@kind("minhash", settings=Near, reads=("text",), columns=lambda name, near: {name: pa.binary(8 * near.bands)})
def minhash(batch: Batch, name: str, settings: Near, files: Mapping[str, list[Path]]) -> dict[str, pa.Array]:
    """The hash of every band (dedupe/minhash.py), each 8 bytes, least significant first; all zero for a text without words."""
    from pipeline.dedupe.minhash import band_hashes

    hashes = band_hashes(*batch.utf8, settings).astype("<u8", copy=False)
    stored = pa.binary(8 * settings.bands)
    return {name: pa.FixedSizeBinaryArray.from_buffers(stored, len(batch), [None, pa.py_buffer(hashes)])}
