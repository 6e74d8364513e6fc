"""How often a document repeats itself, in the model's own tokens."""

import numpy.typing as npt
import pyarrow as pa

from pipeline.taggers import Batch, tagger


@tagger(columns={"token_repeats": pa.int32()}, reads=("tokens",))
def repetition(batch: Batch) -> dict[str, npt.NDArray]:
    """token_repeats: the most contiguous repeats of one n-gram of 1 to 13 tokens; 1 where nothing repeats, 0 if empty.

    OLMoE-mix drops at `token_repeats >= 32` (dataset card, "Preprocessing"; OLMoE paper, section 2).
    """
    from pipeline.repetition import max_repeats

    return {"token_repeats": max_repeats(*batch.tokens)}
