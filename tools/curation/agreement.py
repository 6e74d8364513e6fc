"""What of ours is what of a peer's: columns and values, predicates and reasons.

`COLUMNS`: per golden table, our columns and the peer's values that they must equal, on every document on which the peer
comes to a value. `REASONS`: per filter, its peer, the peer's name for its decision, and for each reason that the peer gives for
dropping a document the predicates of ours that say the same. A peer that gives one name to several rules has several.
"""

from collections.abc import Mapping
from dataclasses import dataclass

GRAMS = range(2, 11)

COLUMNS: dict[str, dict[str, str]] = {
    "dolma": {
        "gopher_dolma_words": "gopher:word_count",
        "gopher_dolma_median_word_length": "gopher:median_word_length",
        "gopher_dolma_symbol_word_share": "gopher:symbol_to_word_ratio",
        "gopher_dolma_alphabetic_word_share": "gopher:fraction_of_words_with_alpha_character",
        "gopher_dolma_required_words": "gopher:required_word_count",
        "gopher_dolma_bullet_line_share": "gopher:fraction_of_lines_starting_with_bullet_point",
        "gopher_dolma_bullet_line_share_v1": "gopher_v1:fraction_of_lines_starting_with_bullet_point",
        "gopher_dolma_ellipsis_line_share": "gopher:fraction_of_lines_ending_with_ellipsis",
        "gopher_dolma_ellipsis_line_share_v1": "gopher_v1:fraction_of_lines_ending_with_ellipsis",
        "gopher_dolma_duplicate_line_share": "gopher:fraction_of_duplicate_lines",
        "gopher_dolma_duplicate_line_share_v1": "gopher_v1:fraction_of_duplicate_lines",
        "gopher_dolma_duplicate_line_character_share": "gopher:fraction_of_characters_in_duplicate_lines",
        **{f"gopher_dolma_top_{n}gram_share": f"gopher:fraction_of_characters_in_most_common_{n}grams" for n in GRAMS[:3]},
        **{f"gopher_dolma_duplicate_{n}gram_share": f"gopher:fraction_of_characters_in_duplicate_{n}grams" for n in GRAMS[3:]},
    },
    "dclm": {
        "gopher_dclm_words": "words",
        "mean_word_length": "mean_word_length",
        "gopher_dclm_symbols_per_word": "symbols",
        "gopher_dclm_unalphabetic_word_share": "non_alphabetic_words",
        "english_stop_words": "stop_words",
        "gopher_dclm_bullet_line_share": "bullet_lines",
        "gopher_dclm_ellipsis_line_share": "ellipsis_lines",
        "gopher_dclm_duplicate_line_share": "duplicate_lines",
        "gopher_dclm_duplicate_paragraph_share": "duplicate_paragraphs",
        "gopher_dclm_duplicate_line_character_share": "duplicate_line_characters",
        "gopher_dclm_duplicate_paragraph_character_share": "duplicate_paragraph_characters",
        **{f"gopher_dclm_top_{n}gram_share": f"top_{n}_gram" for n in GRAMS[:3]},
        **{f"gopher_dclm_repeated_{n}gram_share": f"duplicate_{n}_grams" for n in GRAMS[3:]},
    },
    "datatrove": {
        "gopher_datatrove_words": "gopher_quality:words",
        "gopher_datatrove_mean_word_length": "gopher_quality:mean_word_length",
        "gopher_datatrove_hashes_per_word": "gopher_quality:hashes",
        "gopher_datatrove_ellipses_per_word": "gopher_quality:ellipses",
        "gopher_datatrove_bullet_line_share": "gopher_quality:bullet_lines",
        "gopher_datatrove_ellipsis_line_share": "gopher_quality:ellipsis_lines",
        "gopher_datatrove_alphabetic_word_share": "gopher_quality:alpha_words",
        "gopher_datatrove_stop_words": "gopher_quality:stop_words",
        "gopher_datatrove_duplicate_line_share": "gopher_repetition:dup_line_frac",
        "gopher_datatrove_duplicate_line_character_share": "gopher_repetition:dup_line_char_frac",
        "gopher_datatrove_duplicate_paragraph_share": "gopher_repetition:dup_para_frac",
        "gopher_datatrove_duplicate_paragraph_character_share": "gopher_repetition:dup_para_char_frac",
        **{f"gopher_datatrove_top_{n}gram_share": f"gopher_repetition:top_{n}_gram" for n in GRAMS[:3]},
        **{f"gopher_datatrove_repeated_{n}gram_share": f"gopher_repetition:duplicated_{n}_n_grams" for n in GRAMS[3:]},
        "fineweb_punctuated_line_share": "fineweb:line_punct_ratio",
        "fineweb_short_line_share": "fineweb:short_line_ratio",
        "fineweb_duplicate_character_share": "fineweb:char_dup_ratio",
        "fineweb_newlines_per_word": "fineweb:list_ratio",
        "c4_sentences": "c4:sentences",
    },
}


@dataclass(frozen=True)
class Reasons:
    """columns: of the golden table; where there are several, the first that gives a reason counts."""

    peer: str
    columns: tuple[str, ...]
    predicates: Mapping[str, tuple[str | None, ...]]


GOPHER_DOLMA = {
    "word_count < 50": "few_words",
    "word_count > 100000": "many_words",
    "median_word_length < 3": "short_words",
    "median_word_length > 10": "long_words",
    "symbol_to_word_ratio > 0.1": "symbols",
    "fraction_of_words_with_alpha_character < 0.8": "few_alphabetic_words",
    "required_word_count < 2": "few_required_words",
    "fraction_of_lines_starting_with_bullet_point > 0.9": "bullets",
    "fraction_of_lines_ending_with_ellipsis > 0.3": "ellipses",
    "fraction_of_duplicate_lines > 0.3": "duplicate_lines",
    "fraction_of_characters_in_duplicate_lines > 0.3": "duplicate_line_characters",
    **{f"fraction_of_characters_in_most_common_{n}grams > {limit}": f"top_{n}gram" for n, limit in {2: 0.2, 3: 0.18, 4: 0.16}.items()},
    **{f"fraction_of_characters_in_duplicate_{n}grams > {(20 - n) / 100}": f"duplicate_{n}grams" for n in GRAMS[3:]},
}
GOPHER_DCLM = {
    "page_length_filter": ("page_length",),
    "word_length_filter": ("word_length",),
    "symbol_ratio_filter": ("symbols",),
    "bullet_count_filter": ("bullets",),
    "ellipsis_count_filter": ("ellipses",),
    "alphabetic_word_ratio_filter": ("unalphabetic_words",),
    "stop_word_filter": ("few_stop_words",),
    "massive_web_repetition_filters": (
        *(f"duplicate_{what}" for what in ("lines", "paragraphs", "line_characters", "paragraph_characters")),
        *(f"top_{n}gram" for n in GRAMS[:3]), *(f"repeated_{n}grams" for n in GRAMS[3:]),
    ),
}  # fmt: skip
# datatrove names what it meets first going down the lines.
C4 = {
    "lorem_ipsum": ("lorem_ipsum", "curly_bracket"),
    "curly_bracket": ("lorem_ipsum", "curly_bracket"),
    "too_few_sentences": ("too_few_sentences",),
}
# The list of words is not in this repository: where it is not fetched, a word of it drops nothing.
C4_DOLMA: dict[str, tuple[str | None, ...]] = {f"has_{word} > 0.5": (word,) for word in ("curly_brace", "lorem_ipsum", "javascript")} | {
    "has_naughty_word > 0.5": ("naughty_word", None)
}
# A modifier that leaves nothing of the page drops it.
REFINEDWEB = {
    **GOPHER_DCLM,
    "url_removal_modifier": ("page_length",),
    "uppercase_ratio_line_modifier": ("removed_words",),
    "word_removal_ratio_filter": ("removed_words",),
}
# Our predicates have datatrove's names for these.
GOPHER_DATATROVE = (
    *("empty dup_para_frac dup_para_char_frac dup_line_frac dup_line_char_frac gopher_short_doc gopher_long_doc gopher_below_avg_threshold "
    "gopher_above_avg_threshold gopher_too_many_hashes gopher_too_many_ellipsis gopher_too_many_bullets gopher_too_many_end_ellipsis "
    "gopher_below_alpha_threshold gopher_enough_stop_words").split(),
    *(f"top_{n}_gram" for n in GRAMS[:3]), *(f"duplicated_{n}_n_grams" for n in GRAMS[3:]),
)  # fmt: skip
FINEWEB = ("empty", "line_punct_ratio", "short_line_ratio", "char_dup_ratio", "list_ratio")


def _single(reasons: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    return {reason: (predicate,) for reason, predicate in reasons.items()}


REASONS = {
    "gopher-dolma": Reasons("dolma", ("gopher:reason",), _single(GOPHER_DOLMA)),
    "gopher-dolma-v1": Reasons("dolma", ("gopher_v1:reason",), _single(GOPHER_DOLMA)),
    "gopher-dclm": Reasons("dclm", ("rules:reason",), GOPHER_DCLM),
    "gopher-datatrove": Reasons(
        "datatrove", ("gopher_repetition:reason", "gopher_quality:reason"), {reason: (reason,) for reason in GOPHER_DATATROVE}
    ),
    "c4": Reasons("datatrove", ("c4:reason",), C4),
    # The list of words is not in this repository, so a word of it drops nothing here.
    "c4-dolma": Reasons("dolma", ("c4:reason",), C4_DOLMA),
    "refinedweb": Reasons("dclm", ("refinedweb:reason",), REFINEDWEB),
    "fineweb": Reasons("datatrove", ("fineweb:reason",), {reason: (reason,) for reason in FINEWEB}),
}

# The golden column with the hash of the text that is left, and of the one that the rules see, per filter.
EDITED = {"c4": ("datatrove", "c4:text"), "c4-dolma": ("dolma", "c4:text"), "refinedweb": ("dclm", "refinedweb:edited")}
PREPARED = {"refinedweb": ("dclm", "refinedweb:prepared")}
