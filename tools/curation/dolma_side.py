"""Dolma's taggers (dolma.taggers.gopher, .c4) on each document: see side.py.

Values are those of a tagger's spans, before Dolma rounds them to five decimals for its attribute files. What Dolma's
configurations drop (allenai/dolma: configs/dolma-v1_5/mixing/cc-head.yaml; configs/c4-replication/mixer.yaml) is decided
on the rounded values, as its mixer sees them. Of the second version's with one thing mended: the configurations name
`fraction_of_characters_in_most_common_2gram`, which no tagger writes (it is `…_2grams`), so that as published these three
rules never drop.
"""

import hashlib
from typing import Any

from dolma.core.data_types import Document, InputSpec
from dolma.taggers.c4 import FasterC4Tagger
from dolma.taggers.gopher import GopherTagger, GopherTaggerV2

from tools.curation import side

Rules = tuple[tuple[str, str, float], ...]

GRAMS = {2: 0.2, 3: 0.18, 4: 0.16, 5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
GOPHER: Rules = (
    ("word_count", "<", 50),
    ("word_count", ">", 100_000),
    ("median_word_length", "<", 3),
    ("median_word_length", ">", 10),
    ("symbol_to_word_ratio", ">", 0.1),
    ("fraction_of_words_with_alpha_character", "<", 0.8),
    ("required_word_count", "<", 2),
    ("fraction_of_lines_starting_with_bullet_point", ">", 0.9),
    ("fraction_of_lines_ending_with_ellipsis", ">", 0.3),
    ("fraction_of_duplicate_lines", ">", 0.3),
    ("fraction_of_characters_in_duplicate_lines", ">", 0.3),
    *((f"fraction_of_characters_in_{'most_common' if n < 5 else 'duplicate'}_{n}grams", ">", limit) for n, limit in GRAMS.items()),
)
PUBLISHED: Rules = tuple(rule for rule in GOPHER if "most_common" not in rule[0])
C4: Rules = tuple((f"has_{what}", ">", 0.5) for what in ("curly_brace", "lorem_ipsum", "javascript", "naughty_word"))
REMOVED = ("lines_with_no_ending_punctuation", "lines_with_too_few_words")

v1, v2, c4 = GopherTagger(), GopherTaggerV2(), FasterC4Tagger()


def values(text: str) -> dict[str, Any]:
    document = Document(source="", id="", text=text)
    found: dict[str, Any] = {f"gopher:{span.type}": span.score for span in v2.predict(document).spans}
    # The first version tells otherwise of lines only.
    found |= {f"gopher_v1:{span.type}": span.score for span in v1.predict(document).spans if "line" in span.type}
    found |= {"gopher_v1:reason": reason(v1, PUBLISHED, text), "gopher:reason": reason(v2, GOPHER, text)}
    spans = c4.predict(document).spans
    found |= {f"c4:{name}": float(any(span.type == name for span in spans)) for name, _, _ in C4}
    found |= {f"c4:{name}": float(sum(span.type == name for span in spans)) for name in REMOVED}
    lines = {(span.start, span.end) for span in spans if span.type in REMOVED}
    found["c4:reason"] = reason(c4, C4, text)
    # The spans are those of the lower-cased text, and cut elsewhere where that is longer ("İ" becomes two).
    if len(text.lower()) == len(text):
        for start, end in sorted(lines, reverse=True):
            text = text[:start] + text[end:]
        found["c4:text"] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return found


def reason(tagger: GopherTagger | FasterC4Tagger, rules: Rules, text: str) -> str | None:
    """The first rule that drops. A name without a span drops nothing."""
    rounded = {name: spans[0][2] for name, spans in tagger.tag(InputSpec(id="", text=text)).items()}
    found = ((name, sign, rounded[name], limit) for name, sign, limit in rules if name in rounded)
    return next((f"{name} {sign} {limit}" for name, sign, value, limit in found if (value < limit if sign == "<" else value > limit)), None)


FILTERS = {
    "gopher-dolma": side.FilterSet(lambda text: reason(v2, GOPHER, text)),
    "gopher-dolma-v1": side.FilterSet(lambda text: reason(v1, PUBLISHED, text)),
    "c4-dolma": side.FilterSet(lambda text: reason(c4, C4, text)),
}

if __name__ == "__main__":
    side.main(values, FILTERS)
