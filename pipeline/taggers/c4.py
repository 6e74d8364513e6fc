"""C4's rules (Raffel et al., arXiv:1910.10683, section 2.2) as datatrove and as Dolma apply them."""

import numpy as np
import pyarrow as pa

from pipeline.taggers import SPANS, Batch, Result, tagger


@tagger(
    columns={
        "c4_lines": pa.int64(),
        "c4_kept_lines": pa.int64(),
        "c4_sentences": pa.int64(),
        "c4_lorem_ipsum_lines": pa.int64(),
        "c4_curly_bracket_lines": pa.int64(),
    },
    reads=("text",),
    tables={"spans": SPANS},
)
def c4(batch: Batch) -> Result:
    """What datatrove 0.10.1's C4QualityFilter counts, and as `spans` what it removes. An empty text has 0 in every column.

    Lines are those of `str.splitlines()`, stripped. One goes if, in this order: a word of `str.split()` has more than 1,000
    characters; it does not end with one of . ? ! " ' once citations ([12], [], [edit], [citation needed]) are out, or ends
    with "..."; it has fewer than 3 words; in any case, "javascript" is in it; or one of six phrases about policies and
    cookies. The others are kept, without citations, and joined with "\\n". sentences: of the lines kept, as spaCy's English
    tokenizer and sentencizer see them. lorem_ipsum_lines, curly_bracket_lines: lines that get as far as the rule about
    javascript (about policies) with "lorem ipsum" (a "{") in them, for which datatrove drops the document.
    """
    from pipeline.text import c4_lines, lines

    data, offsets = batch.utf8
    found = lines.splitlines(data, offsets)
    judged = c4_lines.judge(data, found)
    spans = lines.merged(lines.joined(data, found, judged.kept), c4_lines.citations(data, found, judged))
    columns = {
        "c4_lines": np.diff(found.offsets),
        "c4_kept_lines": lines.sums(judged.kept.rules == lines.STAYS, found.offsets),
        "c4_sentences": c4_lines.sentences(data, found, judged),
        "c4_lorem_ipsum_lines": lines.sums(judged.condemns & c4_lines.LOREM_IPSUM > 0, found.offsets),
        "c4_curly_bracket_lines": lines.sums(judged.condemns & c4_lines.CURLY_BRACKET > 0, found.offsets),
    }
    return columns, {"spans": lines.span_table(offsets, spans, c4_lines.RULES, ("", "\n"))}


@tagger(
    columns={
        "c4_dolma_curly_brace": pa.bool_(),
        "c4_dolma_lorem_ipsum": pa.bool_(),
        "c4_dolma_javascript": pa.bool_(),
        "c4_dolma_lines": pa.int64(),
        "c4_dolma_unpunctuated_lines": pa.int64(),
        "c4_dolma_short_lines": pa.int64(),
    },
    reads=("text",),
    tables={"spans": SPANS},
)
def c4_dolma(batch: Batch) -> Result:
    """What Dolma 1.2.1's tagger c4_v2 finds, but its list of words (kind `listed_words`), and as `spans` the lines that go.

    curly_brace, lorem_ipsum, javascript: "{", "lorem ipsum", "javascript" anywhere in the text, in any case; even within a
    word, whereas c4_v1 wants the word. lines: between "\\n", one more than these. unpunctuated_lines: those that, stripped, do
    not end with one of . ? ! "; short_lines: those of fewer than 3 words of `str.split()`; blank lines are both. Both kinds go,
    each with the "\\n" that ends it. An empty text is one line of both kinds.
    Dolma's spans are characters of the text in lower case, so they are off by one behind every "İ"; these are not.
    """
    from pipeline.text import c4_dolma_lines, lines

    data, offsets = batch.utf8
    flags = c4_dolma_lines.condemning(data, offsets)
    found = lines.split(data, offsets)
    rules = c4_dolma_lines.judge(data, found)
    gone = (rules > 0) & (found.stops > found.starts)
    by = np.where(rules[gone] & c4_dolma_lines.NO_ENDING_PUNCTUATION, 1, 2).astype(np.uint8)
    spans = lines.Found(found.starts[gone], found.stops[gone], by, np.zeros(len(by), np.int32))
    columns = {
        "c4_dolma_curly_brace": flags & c4_dolma_lines.CURLY_BRACE > 0,
        "c4_dolma_lorem_ipsum": flags & c4_dolma_lines.LOREM_IPSUM > 0,
        "c4_dolma_javascript": flags & c4_dolma_lines.JAVASCRIPT > 0,
        "c4_dolma_lines": np.diff(found.offsets),
        "c4_dolma_unpunctuated_lines": lines.sums(rules & c4_dolma_lines.NO_ENDING_PUNCTUATION > 0, found.offsets),
        "c4_dolma_short_lines": lines.sums(rules & c4_dolma_lines.FEW_WORDS > 0, found.offsets),
    }
    return columns, {"spans": lines.span_table(offsets, spans, c4_dolma_lines.RULES)}
