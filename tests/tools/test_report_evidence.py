"""What decided about a document, marked in its text: rules as distances, evidence, excerpts."""

import random
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pytest

from pipeline.store import Store
from pipeline.taggers import SPANS, column_types, tag
from pipeline.taggers import TAGGERS as ALL_TAGGERS
from pipeline.taggers.predicates import SETTINGS
from tools.report.documents.evidence import listed, marks
from tools.report.documents.evidence import text as text_module
from tools.report.documents.evidence.text import SHOWN, Mark, Text
from tools.report.documents.evidence.tokens import longest_repeat
from tools.report.documents.evidence.twins import common
from tools.report.documents.excerpt import excerpt, visible
from tools.report.documents.margins import comparisons, distances, first_match, patterns
from tools.report.documents.sources import Place
from tools.report.documents.texts import Document

if TYPE_CHECKING:
    pass

Json = Any
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&amp;\x1b[31m\x00\x07\u202eevil\u2066\u200b\u2028"


def document(text: str, metadata: str | None = None, file: str = "a.jsonl") -> Document:
    return Document(Place("web", 0, 0), "id", text.encode(), text.encode(), None, metadata, file, 0, SPANS.empty_table())


def shown(text: str, column: str, limit: float | None = None, **fields: str) -> list[str]:
    """What is marked in a text."""
    content = document(text, **fields)
    return [content.text[mark.start : mark.end].decode() for mark in marks(Text(content), column, limit)]


def plain(segments: Sequence[Json]) -> str:
    """What is read in segments, `~` for what is left out."""
    return "".join(each if isinstance(each, str) else "~" if isinstance(each, int) else each[1] for each in segments)


def marked(segments: Sequence[Json]) -> list[str]:
    return [each[1] for each in segments if isinstance(each, list)]


# Rules as distances.


# Rule, what a document has, what it lacks to be dropped, what it has too much to pass.
FAR: list[tuple[str, dict[str, int], float, float]] = [
    ("words < 50", {"words": 60}, 0.2, 0),
    ("words < 50", {"words": 40}, 0, 0.2),
    ("50 > words", {"words": 60}, 0.2, 0),
    ("stars > 0", {"stars": 3}, 0, 3),
    ("words < 50 OR words > 100", {"words": 90}, 0.1, 0),
    ("words < 50 OR stars > 4", {"words": 25, "stars": 8}, 0, 0.5 + 1),
    ("stars <> 7 AND words < 50", {"words": 55, "stars": 3}, 0.1, 0),
    ("stars <> 7 AND words < 50", {"words": 55, "stars": 7}, np.inf, 0),
    ("NOT (words >= 50)", {"words": 60}, 0.2, 0),
    ("words NOT BETWEEN 50 AND 100", {"words": 90}, 0.1, 0),
    ("words > 0.5 * bytes", {"words": 40, "bytes": 100}, 0.2, 0),
    ("words % stars > 3", {"words": 1, "stars": 0}, np.inf, 0),
    ("url = 'a'", {"words": 1}, np.inf, 0),
    ("url < 'b'", {"words": 1}, np.inf, 0),
]


def test_a_rule_is_as_far_as_its_numbers_say() -> None:
    with duckdb.connect(":memory:", config=SETTINGS) as connection:
        connection.execute("CREATE TABLE t (words BIGINT, stars BIGINT, bytes BIGINT, url VARCHAR)")
        for sql, row, lacks, exceeds in FAR:
            connection.execute(f"DELETE FROM t; INSERT INTO t ({', '.join(row)}) VALUES ({', '.join(map(str, row.values()))})")
            found = distances(sql, lambda each: connection.execute(f"DESCRIBE SELECT {each} FROM t").fetchall()[0][1])
            [[*values]] = connection.execute(f"SELECT {found[0]}, {found[1]} FROM t").fetchall()
            assert values == pytest.approx([lacks, exceeds]), (sql, row)


def test_comparisons_and_patterns_are_read_out_of_a_rule() -> None:
    sql = "0.3 < share OR (words BETWEEN 2 AND 9 AND url = 'x') OR regexp_matches(url, 'ab+' || 'c|d') OR contains(id, '/')"
    assert comparisons(sql) == [("share", ">", "0.3"), ("words", "≥", "2"), ("words", "≤", "9")]
    assert [first_match(pattern, "x/abbcd") for pattern in patterns(sql)] == ["abbc", "/"]


# Evidence.


def random_text(rng: random.Random) -> str:
    """Words, lines and paragraphs that come again and again, with all kinds of signs."""
    words = ["the", "of", "a", "Äpfel", "don't", "2024", "#tag", "well…", "so...", "—", "and", "x1", "漢字"]
    lines = [" ".join(rng.choice(words) for _ in range(rng.randrange(1, 9))) for _ in range(6)] + ["- item", "• dot ...", "end…", "   "]
    chosen = [rng.choice(lines) + rng.choice(["", ".", " ", "!"]) for _ in range(rng.randrange(1, 40))]
    return "".join(line + "\n" * rng.choice([1, 1, 1, 2, 3]) for line in chosen).strip(" ")


def characters(places: Sequence[Mark], data: bytes, blanks: bool = True) -> int:
    texts = [data[mark.start : mark.end].decode() for mark in places]
    return sum(len(text if blanks else re.sub(r"\s", "", text)) for text in texts)


def shares(text: str, values: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Column → its value by what is marked, and as the tagger has it; no two columns are counted alike."""
    data, found = text.encode(), {column: list(marks(Text(document(text)), column, None)) for column in values}
    words, lines = text.split(), [line for line in re.split("\n+", text) if line]
    stripped = [line.strip() for line in lines if line.strip()]
    counted = {
        "top_word_share": len(found["top_word_share"]) / max(len(words), 1),
        "gopher_dolma_required_words": len(found["gopher_dolma_required_words"]),
        "gopher_dolma_alphabetic_word_share": 1 - len(found["gopher_dolma_alphabetic_word_share"]) / max(len(words), 1),
        "gopher_dclm_unalphabetic_word_share": len(found["gopher_dclm_unalphabetic_word_share"]) / max(len(words), 1),
        "gopher_dolma_symbol_word_share": len(found["gopher_dolma_symbol_word_share"]) / max(len(words), 1),
        "gopher_dclm_bullet_line_share": len(found["gopher_dclm_bullet_line_share"]) / max(len(stripped), 1),
        "gopher_dclm_ellipsis_line_share": len(found["gopher_dclm_ellipsis_line_share"]) / max(len(stripped), 1),
        "gopher_dclm_duplicate_line_share": len(found["gopher_dclm_duplicate_line_share"]) / max(len(stripped), 1),
        "fineweb_short_line_share": len(found["fineweb_short_line_share"]) / max(len(stripped), 1),
        "fineweb_duplicate_character_share": characters(found["fineweb_duplicate_character_share"], data)
        / max(len(text.replace("\n", "")), 1),
        "gopher_datatrove_duplicate_line_character_share": characters(found["gopher_datatrove_duplicate_line_character_share"], data)
        / max(len(text), 1),
        "gopher_datatrove_duplicate_paragraph_character_share": characters(
            found["gopher_datatrove_duplicate_paragraph_character_share"], data
        )
        / max(len(text), 1),
        "gopher_datatrove_repeated_5gram_share": characters(found["gopher_datatrove_repeated_5gram_share"], data, blanks=False)
        / max(len(text), 1),
    }
    for n in (2, 3):
        places = found[f"gopher_dolma_top_{n}gram_share"]
        counted[f"gopher_dolma_top_{n}gram_share"] = characters(places, data, blanks=False) / max(len("".join(words)), 1)
    ngrams = ["".join(words[at : at + 5]) for at in range(len(words) - 4)]
    places = found["gopher_dolma_duplicate_5gram_share"]
    counted["gopher_dolma_duplicate_5gram_share"] = characters(places, data, blanks=False) / max(sum(map(len, ngrams)), 1)
    return {column: (value, values[column]) for column, value in counted.items()}


@pytest.mark.slow  # it loads every kernel that cuts words
def test_what_is_marked_makes_up_the_value() -> None:
    """The taggers' own counts, in other code, are the oracle."""
    rng = random.Random(5)
    names = ["words", "gopher_dolma", "gopher_dclm_quality", "gopher_dclm_repetition", "gopher_datatrove_repetition", "fineweb"]
    taggers = [ALL_TAGGERS[name] for name in names]
    some = Counter[str]()
    for _ in range(40):
        text = random_text(rng)
        row = tag(taggers, Text(document(text)).batch).to_pylist()[0]
        for column, (ours, theirs) in shares(text, row).items():
            assert ours == pytest.approx(theirs, abs=1e-5), (column, text)
            some[column] += theirs > 0
    assert min(some.values()) > 2 and len(some) == 16


def test_evidence_of_columns_is_what_one_would_point_at() -> None:
    assert shown("a b a c a", "top_word_share") == ["a", "a", "a"]
    assert shown("x y x y z", "gopher_dolma_top_2gram_share") == ["x y", "x y"]
    assert shown("one\ntwo\none\n", "fineweb_duplicate_character_share") == ["one"]
    assert shown("one\ntwo\none\n", "gopher_dolma_duplicate_line_share") == ["one", "one"]
    assert shown("{ a } lorem IPSUM", "c4_lorem_ipsum_lines") == ["lorem IPSUM"]
    assert shown("short\n" + "long" * 300 + "\r\nshort", "code_longest_line") == ["long" * 300]
    assert shown("Ünïcode wörd extraordinarily", "mean_word_length", 10.0) == ["extraordinarily"]
    assert shown("été à Rome", "math_accented_share") == ["é", "é", "à"]
    assert shown("import os\nimport numpy as np", "code_mathematical", file="a.py") == ["import numpy"]
    assert shown("write to me@example.org now \n", "pii_emails") == ["me@example.org"]
    assert shown("anything", "lid_en") == []


def test_listed_words_and_phrases_are_marked_in_any_case(curated: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "list.txt").write_text("bad\nvery bad\n\n")
    monkeypatch.setattr(listed, "files", lambda *arguments: [tmp_path / "list.txt"])
    content = document("BAD bad. not-bad Unvery BADly bad")
    found = listed.listed_words(curated, {}, Text(content))
    assert sorted(content.text[mark.start : mark.end].decode() for mark in found) == ["BAD", "bad", "very BAD"]


def test_every_column_with_evidence_is_one_that_a_tagger_gives() -> None:
    assert all(any(pattern.fullmatch(column) for column in column_types()) for pattern, _ in SHOWN)


def test_the_longest_repeat_is_where_the_rule_counts_it() -> None:
    from pipeline.repetition import max_repeats

    rng = np.random.default_rng(1)
    for _ in range(200):
        period = int(rng.integers(1, 14))
        ids = np.concatenate(
            [rng.integers(0, 5, 30), np.tile(rng.integers(0, 50, period), int(rng.integers(1, 9))), rng.integers(0, 5, 30)]
        )
        ids = ids.astype(np.uint16)
        start, end, found = longest_repeat(ids)
        (times,) = max_repeats(ids, np.array([0, len(ids)]))
        assert (end - start) // found == times or (times == 1 and start == end)
        assert (ids[start + found : end] == ids[start : end - found]).all()


def test_twins_have_their_common_runs_marked_and_nothing_else() -> None:
    one, other = "The quick, brown fox JUMPED over it. Then it slept.", "the quick brown fôx jumped over it! But we did not sleep."
    mine, theirs, alike = common(one.encode(), other.encode(), "both")
    assert [one.encode()[mark.start : mark.end].decode() for mark in mine] == ["The quick, brown fox JUMPED over it"]
    assert [other.encode()[mark.start : mark.end].decode() for mark in theirs] == ["the quick brown fôx jumped over it"]
    assert alike == pytest.approx(3 / (3 + 3 + 5))
    assert common("漢字漢字漢".encode(), "漢字漢字漢".encode(), "both")[2] == 1


# Excerpts.


def test_an_excerpt_is_bounded_whole_characters_around_marks() -> None:
    rng = random.Random(2)
    for _ in range(60):
        text = "".join(rng.choice(["a", "é", "漢", "😀", " ", "\n"]) for _ in range(rng.randrange(1, 3000)))
        begins = [len(text[:at].encode()) for at in range(len(text) + 1)]
        spans = [sorted(rng.sample(begins, 2)) for _ in range(rng.randrange(0, 12)) if len(text) > 1]
        found = excerpt(text.encode(), [Mark(start, end, rng.choice("xyz")) for start, end in spans], 300)
        # Every piece is of the text, in order, and pieces and what is left out between them are all of it.
        place = 0
        for each in found.segments:
            if isinstance(each, int):
                place += each
            else:
                piece = each if isinstance(each, str) else str(each[1])
                assert text[place : place + len(piece)] == piece
                place += len(piece)
        assert place == len(text)
        assert len(plain(found.segments).encode()) < 2_200
        assert (
            not spans
            or len(text.encode()) > 340
            or "".join(marked(found.segments))
            == "".join(text[at] for at in range(len(text)) if any(start <= begins[at] < end for start, end in spans))
        )


def test_an_excerpt_shows_every_kind_of_mark_and_first_what_it_is_about() -> None:
    text = b"." * 5_000 + b"A" * 10 + b"." * 5_000 + b"B" * 10 + b"." * 5_000
    many = [Mark(at, at + 5, "often") for at in range(0, 4_000, 20)]
    rare = [Mark(5_000, 5_010, "A"), Mark(10_010, 10_020, "B")]
    assert {"A" * 10, "B" * 10} <= set(marked(excerpt(text, many + rare, 1_000).segments))
    assert marked(excerpt(text, many + rare, 150, about="B").segments)[-1] == "B" * 10
    assert excerpt(text, many + rare, 150, about="B").legend == [["often", 200], ["A", 1], ["B", 1]]


def test_of_a_long_mark_both_ends_are_shown() -> None:
    text = b"before " + b"x" * 100_000 + b" after"
    found = plain(excerpt(text, [Mark(7, 100_007, "long")], 900).segments)
    assert found.startswith("before xxx") and found.endswith("xxx after") and found.count("~") == 1 and len(found) < 1_300


def test_nothing_hides_in_an_excerpt() -> None:
    assert visible("a\tb\n\r\x00\x1b[1m\x7f\x85\u202e\u200b\ufeff") == "a\tb\n⟨CR⟩⟨NUL⟩⟨ESC⟩[1m⟨DEL⟩⟨U+0085⟩⟨U+202E⟩⟨U+200B⟩⟨U+FEFF⟩"
    assert visible("שלום, नमस्ते, 👩\u200d👩") == "שלום, नमस्ते, 👩\u200d👩"


@pytest.mark.slow
@pytest.mark.parametrize("piece", ["x", "a b ", "\\section[", " main(", "import ", "$a", "((1"])
def test_evidence_of_any_text_is_found_in_linear_time(piece: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same over and over: each column takes a second, however it looks for what it shows, and no more than so much is looked at."""
    monkeypatch.setattr(text_module, "LOOKED", 300_000)
    content = Text(document(piece * (5_000_000 // len(piece)), file="a.hs" if piece == "import " else "a.m"))
    assert len(content.data) <= 300_000
    for pattern, _ in SHOWN:
        column = next(column for column in column_types() if pattern.fullmatch(column))
        begun = time.process_time()
        excerpt(content.document.text, marks(content, column, 10.0), 500)
        assert time.process_time() - begun < 5, column
