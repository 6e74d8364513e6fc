"""Personal data: what looks like an e-mail address, a telephone number or an IP address, counted and as spans to mask.

The patterns are Dolma's (pii.py says which); the placeholders are tokens of their own in the tokenizers of Dolma and OLMo.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.taggers import SPANS, Batch, Result, tagger

PLACEHOLDERS = ("|||EMAIL_ADDRESS|||", "|||PHONE_NUMBER|||", "|||IP_ADDRESS|||")
_RULES = ("email", "phone", "ip")
_MOST_QUESTION_MARKS = 10_000  # Dolma's taggers/pii.py looks at no text with more: its patterns take quadratic time


@tagger(
    columns={"pii_emails": pa.int64(), "pii_phones": pa.int64(), "pii_ips": pa.int64()},
    reads=("text",),
    tables={"spans": SPANS},
)
def pii(batch: Batch) -> Result:
    """pii_emails, pii_phones, pii_ips: how many were found, 0 in an empty text. One may lie in another.

    spans: the address or number alone, the placeholder of the tokenizer in its place, spaces and punctuation around it
    left as they are. Where two overlap, the one that begins first.
    """
    from pipeline.text import pii as patterns

    found = patterns.find(*batch.utf8)
    kinds = (patterns.EMAIL, patterns.PHONE, patterns.IP)
    counts = [np.bincount(found[found[:, 1] == kind, 0], minlength=len(batch)) for kind in kinds]
    order = np.lexsort((found[:, 1], found[:, 4], found[:, 0]))
    return dict(zip(("pii_emails", "pii_phones", "pii_ips"), counts, strict=True)), {"spans": _spans(found[order][:, [0, 1, 4, 5]], "")}


@tagger(columns={"pii_dolma_count": pa.int64()}, reads=("text",), tables={"spans": SPANS})
def pii_dolma(batch: Batch) -> Result:
    """pii_dolma_count: `doc_count` of Dolma's `pii_regex_with_counts_fast_v2`, 0 in an empty text.

    That is the number of matches of all three kinds, and 0 if the text has more than 10,000 question marks. spans: the
    matches with the spaces and punctuation that belong to Dolma's, a newline after an address among them, and in their
    place the placeholder between two spaces, as the mixer leaves texts with configs/dolma-v1_6/mixing/cc-head.yaml.
    """
    from pipeline.text import pii as patterns

    found = patterns.find(*batch.utf8)
    suspects = np.unique(found[:, 0])
    questions = pc.count_substring(batch["text"].take(pa.array(suspects)), "?").to_numpy()
    found = found[~np.isin(found[:, 0], suspects[questions > _MOST_QUESTION_MARKS])]
    count = np.bincount(found[:, 0], minlength=len(batch))
    return {"pii_dolma_count": count}, {"spans": _spans(found[:, :4], " ")}


def _spans(found: npt.NDArray[np.int64], around: str) -> pa.Table:
    """SPANS from matches (text, kind, start, end) in order, those left out that begin inside the one before."""
    from pipeline.text.pii import without_overlaps

    rows, kinds, starts, ends = found[without_overlaps(found[:, 0], found[:, 2], found[:, 3])].T
    replacements = pa.array([f"{around}{placeholder}{around}" for placeholder in PLACEHOLDERS]).take(pa.array(kinds))
    return pa.table([rows, starts, ends, replacements, pa.array(_RULES).take(pa.array(kinds))], schema=SPANS)
