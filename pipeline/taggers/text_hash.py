"""The hash by which exact dedupe finds equal texts, computed where the text is read anyway."""

import pyarrow as pa

from pipeline.taggers import Batch, tagger


@tagger(columns={"text_hash": pa.binary(16)}, reads=("text",))
def text_hash(batch: Batch) -> dict[str, pa.Array]:
    """xxh3-128 of the normalised text (dedupe/exact.py says how); that of the empty string for an empty text."""
    from pipeline.dedupe.exact import hash_texts

    return {"text_hash": hash_texts(batch.texts)}
