"""What a document's metadata says about where it comes from."""

import orjson
import pyarrow as pa

from pipeline.taggers import Batch, tagger


@tagger(columns={"stars": pa.int64()}, reads=("metadata",))
def stars(batch: Batch) -> dict[str, pa.Array]:
    """stars: the repository's GitHub stars, from `max_stars_count` of the metadata.

    StarCoder data has it as a number, a nullable float, or (in Dolma's form) a string such as "24" or "None".
    Unknown, that is missing, null, "", "None", "null" or "nan", is 0, as the `convert_none_stars` of StarCoder's
    authors has it. Raises ValueError for anything else that is not a whole number of 0 or more.
    """
    return {"stars": pa.array([_stars(metadata) for metadata in batch["metadata"].to_pylist()], pa.int64())}


def _stars(metadata: str | None) -> int:
    # Most metadata has no stars at all and need not be parsed.
    if metadata is None or "max_stars_count" not in metadata:
        return 0
    value = orjson.loads(metadata).get("max_stars_count")
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", "none", "null", "nan")):
        return 0
    number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else -1.0
    if number < 0 or number != int(number):
        raise ValueError(f"max_stars_count is {value!r}, not a whole number of stars")
    return int(number)
