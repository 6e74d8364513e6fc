"""Gopher's rules as DCLM counts: every value against plain Python, and against what DCLM's own functions compared."""

import re
from collections import Counter
from collections.abc import Sequence

from hypothesis import example, given, settings
from hypothesis import strategies as st
from uniseg.wordbreak import words as uniseg_words

from pipeline.taggers import TAGGERS, tag
from pipeline.text.page_counts import page_counts
from tests.pipeline.pages import DEGENERATE, MIXED, PROSE, SPACES, WEB, batch_of, reasons

PIECES = ["a", "the", "The", "#", "…", "...", ".", ". . .", "-", "*", "●", "•", "é", "e\u0301", "漢字", "😀", "1", "²", "3.14", "can't",
          "_", "\x00", "\u200d", "אב", "word", "(x", "\u0300"]  # fmt: skip
texts_of = st.lists(
    st.lists(st.sampled_from([*PIECES, " ", " ", "\n", "\n\n", "\r\n", *SPACES]), max_size=40).map("".join)
    | st.lists(st.sampled_from(["a b c d", "to be", "x", "# …", "\n", "\n\n"]), max_size=25).map(" ".join),
    max_size=5,
)


def rows(texts: Sequence[str]) -> list[dict[str, float]]:
    return tag([TAGGERS["gopher_dclm_quality"], TAGGERS["gopher_dclm_repetition"]], batch_of(texts)).to_pylist()


def characters(strings: Sequence[str]) -> int:
    return len("".join(strings))


def pieces_of(text: str, separator: str) -> list[str]:
    return [stripped for piece in text.split(separator) if (stripped := piece.strip())]


def duplicates_of(pieces: list[str]) -> tuple[float, float]:
    copies = [piece for piece in pieces if pieces.count(piece) > 1]
    return len(copies) / max(len(pieces), 1), characters(copies) / max(characters(pieces), 1)


def brute_force(text: str) -> dict[str, float]:
    words, lines = text.split(), pieces_of(text, "\n")
    symbols = sum(text.count(symbol) for symbol in ("#", "...", ". . .", "…"))
    row: dict[str, float] = {
        "words": sum(word[0].isalnum() for word in re.split("[ \n\r\t\v\f\0]+", text) if word),
        "symbols_per_word": symbols / len(words) if words else 0,
        "unalphabetic_word_share": sum(not any(map(str.isalpha, word)) for word in words) / max(len(words), 1),
        "bullet_line_share": sum(line[0] in "●•*-" for line in lines) / max(len(lines), 1),
        "ellipsis_line_share": sum(bool(re.search(r"(\.\.\.|\. \. \.|…)\Z", line)) for line in lines) / max(len(lines), 1),
    }
    for name, separator in (("line", "\n"), ("paragraph", "\n\n")):
        row[f"duplicate_{name}_share"], row[f"duplicate_{name}_character_share"] = duplicates_of(pieces_of(text, separator))
    words = [word for word in uniseg_words(text) if word[0].isalnum()]
    total = max(characters(words), 1)
    for n in range(2, 11):
        grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        times = Counter(grams)
        most = max(times.values(), default=1)
        if n < 5:
            row[f"top_{n}gram_share"] = most * max(map(characters, (g for g in grams if times[g] == most))) / total if most > 1 else 0
        else:
            covered = {i + k for i, gram in enumerate(grams) for k in range(n) if times[gram] > 1}
            row[f"repeated_{n}gram_share"] = sum(len(words[i]) for i in covered) / total
    return {f"gopher_dclm_{name}": value for name, value in row.items()}


@settings(deadline=None, max_examples=60)  # the first call compiles
@given(texts_of)
@example([WEB, MIXED, *DEGENERATE])
def test_every_value_is_that_of_plain_python(texts: list[str]) -> None:
    assert rows(texts) == [brute_force(text) for text in texts]


# What DCLM's functions compare with their limits (DCLM at 361714b, uniseg 0.10.1, fasttext 0.9.3); 0 where they stop before.
NAMES = """words symbols_per_word bullet_line_share ellipsis_line_share unalphabetic_word_share duplicate_line_share
    duplicate_paragraph_share duplicate_line_character_share top_2gram_share top_3gram_share top_4gram_share
    repeated_5gram_share repeated_6gram_share repeated_7gram_share""".split()
GOLDEN = {
    WEB: (32, 5 / 36, 3 / 8, 3 / 8, 5 / 36, 0.5, 0, 34 / 139, 16 / 95, 18 / 95, 22 / 95, 34 / 95, 34 / 95, 0),
    MIXED: (18, 3 / 32, 1 / 3, 0, 11 / 32, 0, 0, 0, 8 / 68, 9 / 68, 12 / 68, 8 / 68, 8 / 68, 0),
    "# the be…\n" * 3: (6, 6 / 9, 0, 1, 3 / 9, 1, 0, 1, 1, 16 / 15, 20 / 15, 0, 0, 0),
    "!? " * 60: (0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0),
    "a b": (2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
    "": (0,) * 14,
}


def test_values_are_those_that_dclm_compared() -> None:
    for row, expected in zip(rows(list(GOLDEN)), GOLDEN.values(), strict=True):
        assert [row[f"gopher_dclm_{name}"] for name in NAMES] == list(expected)


def test_a_batch_cut_in_two_has_the_same_values() -> None:
    texts = [WEB, "", MIXED, "\n", WEB * 3]
    batch = batch_of(texts)
    each = [TAGGERS["gopher_dclm_quality"], TAGGERS["gopher_dclm_repetition"]]
    assert rows(texts) == [row for a, b in ((0, 2), (2, 5)) for row in tag(each, batch.slice(a, b)).to_pylist()]


def test_a_line_of_20_megabytes() -> None:
    (row,) = rows(["w" * 15_000_000 + " word" * 1_000_000])
    assert row["gopher_dclm_words"] == 1_000_001
    assert row["gopher_dclm_top_2gram_share"] == 999_999 * 8 / 19_000_000
    assert row["gopher_dclm_repeated_10gram_share"] == 4_000_000 / 19_000_000


def test_fasttext_words_end_at_ascii_whitespace_and_nul() -> None:
    texts = ["a\x00b\x0bc\x0cd", "a\u00a0b\u2028c\x1cd\x85e", "(a) 'b' _c -1 1", "é 漢 ² \u0301e", "</s> s"]
    assert page_counts(*batch_of(texts).utf8)[:, 3].tolist() == [4, 1, 1, 3, 1]


def test_the_filter_keeps_prose_and_names_what_is_wrong_with_other_texts() -> None:
    prose = "\n".join(PROSE)
    bullets = "\n".join(f"• {line}" for line in PROSE)
    kept, spaced, short, hashes, bulleted, trailing, numbers = reasons(
        "gopher-dclm", prose, "\n\n".join(PROSE), prose[:200], prose + " #" * 40, bullets, "...\n".join(PROSE), prose + " 12" * 50
    )
    assert kept == spaced == [] and short == ["page_length"] and bulleted == ["bullets"]
    assert hashes == ["symbols", "unalphabetic_words"] and trailing == ["ellipses"]
    assert numbers[0] == "unalphabetic_words"


def test_the_filter_names_what_repeats() -> None:
    lines, paragraphs, once, name = reasons(
        "gopher-dclm",
        "\n".join(PROSE + PROSE[:2]),
        "\n\n".join(["\n".join(PROSE[:4])] * 2 + ["\n".join(PROSE[4:])]),
        "\n".join(PROSE) * 1,
        "\n".join(PROSE) + " Hippopotamus Rhinoceros, a" * 14,
    )
    assert once == []
    assert {"duplicate_line_characters"} <= set(lines) and "duplicate_paragraphs" not in lines
    assert {"duplicate_lines", "duplicate_paragraphs", "duplicate_paragraph_characters", "repeated_10grams"} <= set(paragraphs)
    assert "top_2gram" in name and "duplicate_lines" not in name


def test_a_page_without_words_is_dropped_by_the_rules_that_divide_by_their_number() -> None:
    wordless = ["page_length", "word_length", "symbols", "unalphabetic_words", "few_stop_words"]
    duplicate = ["duplicate_lines", "duplicate_paragraphs", "duplicate_line_characters", "duplicate_paragraph_characters"]
    assert reasons("gopher-dclm", "", " \n\u3000") == [wordless + duplicate] * 2


def test_a_share_at_its_limit_stays() -> None:
    page = "\n".join(line + " ..." if k < 3 else line for k, line in enumerate(PROSE))
    assert rows([page])[0]["gopher_dclm_ellipsis_line_share"] == 0.3 and reasons("gopher-dclm", page) == [[]]
