"""datatrove's filters (datatrove.pipeline.filters) on each document: see side.py.

Its filters say one reason only, the first; all values come from the same filters with witness.py's thresholds. A rule
that the filter does not come to, since it divides by zero before, has no value.
"""

import hashlib
import warnings
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.filters import C4QualityFilter, FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.filters.base_filter import BaseFilter, get_filter_result

from tools.curation import side
from tools.curation.witness import Witnesses

TOP, DUPLICATE = range(2, 5), range(5, 11)

stock = {
    "gopher_repetition": GopherRepetitionFilter(),
    "gopher_quality": GopherQualityFilter(),
    "c4": C4QualityFilter(),
    "fineweb": FineWebQualityFilter(),
}
witness = Witnesses()
listening = {
    "gopher_repetition": GopherRepetitionFilter(
        dup_line_frac=witness("dup_line_frac"),
        dup_para_frac=witness("dup_para_frac"),
        dup_line_char_frac=witness("dup_line_char_frac"),
        dup_para_char_frac=witness("dup_para_char_frac"),
        top_n_grams=tuple((n, witness(f"top_{n}_gram")) for n in TOP),
        dup_n_grams=tuple((n, witness(f"duplicated_{n}_n_grams")) for n in DUPLICATE),
    ),
    "gopher_quality": GopherQualityFilter(
        min_doc_words=witness("words"),
        max_doc_words=None,
        min_avg_word_length=witness("mean_word_length"),
        max_avg_word_length=None,
        max_symbol_word_ratio=witness("hashes", "ellipses"),
        max_bullet_lines_ratio=witness("bullet_lines"),
        max_ellipsis_lines_ratio=witness("ellipsis_lines"),
        max_non_alpha_words_ratio=witness("alpha_words"),
        min_stop_words=witness("stop_words"),
    ),
    "fineweb": FineWebQualityFilter(
        line_punct_thr=witness("line_punct_ratio"),
        short_line_thr=witness("short_line_ratio"),
        char_duplicates_ratio=witness("char_dup_ratio"),
        new_line_ratio=witness("list_ratio"),
    ),
    "c4": C4QualityFilter(filter_lorem_ipsum=False, filter_curly_bracket=False, min_num_sentences=witness("sentences")),
}
c4_switches = {
    "lorem_ipsum": C4QualityFilter(filter_curly_bracket=False, min_num_sentences=-1),
    "curly_bracket": C4QualityFilter(filter_lorem_ipsum=False, min_num_sentences=-1),
}


def decide(filter: BaseFilter, document: Document) -> str | None:
    """The reason for dropping, "error" where the filter itself fails, or None."""
    try:
        kept, reason = get_filter_result(filter.filter(document))
    except (ArithmeticError, AssertionError, IndexError, ValueError):
        return "error"
    return None if kept else reason


def values(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, filter in stock.items():
        document = Document(text=text, id="")
        found[f"{name}:reason"] = decide(filter, document)
        if name == "c4" and found["c4:reason"] is None:
            found["c4:text"] = hashlib.sha256(document.text.encode()).hexdigest()[:16]
    for name, filter in listening.items():
        heard = witness.listen(lambda filter=filter: filter.filter(Document(text=text, id="")))  # type: ignore[misc]
        found |= {f"{name}:{rule}": value for rule, value in heard.items()}
    for name, filter in c4_switches.items():
        found[f"c4:{name}"] = float(decide(filter, Document(text=text, id="")) == name)
    return found


def chain(*names: str) -> side.FilterSet:
    """decide: what a filter drops, the next does not see, as in a pipeline; but the next sees the document unedited."""

    def first_reason(text: str) -> str | None:
        return next((reason for name in names if (reason := decide(stock[name], Document(text=text, id="")))), None)

    def every_rule(text: str) -> None:
        for name in names:
            witness.listen(lambda name=name: listening[name].filter(Document(text=text, id="")))  # type: ignore[misc]

    return side.FilterSet(first_reason, every_rule)


FILTERS = {
    "gopher-datatrove": chain("gopher_repetition", "gopher_quality"),
    "c4": chain("c4"),
    "fineweb": chain("fineweb"),
    "gopher-datatrove+c4+fineweb": chain("gopher_repetition", "gopher_quality", "c4", "fineweb"),
}

if __name__ == "__main__":
    warnings.simplefilter("ignore")  # means of no words
    side.main(values, FILTERS)
