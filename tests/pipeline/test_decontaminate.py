"""Overlap with evaluation items against sets of n-grams in plain Python; evaluation files of every format; the ready filters."""

import gzip
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from uniseg.wordbreak import words as uniseg_words

from pipeline import edits
from pipeline.errors import PipelineError
from pipeline.evaluations import EvaluationSet, Item, items
from pipeline.rules import load_filter
from pipeline.taggers import Batch, run
from pipeline.taggers.decontaminate import Decontaminate
from pipeline.taggers.kinds import KINDS, Attribute
from pipeline.text.overlap import NgramIndex, Overlap, ParagraphIndex

Pairs = dict[tuple[int, int], tuple[int, int]]  # (text, item) → n-grams in common, n-grams of the item

QUESTION = "Janet has sixteen ducks and sells all but three of the eggs they lay: how many does she sell daily?"
texts_of = st.lists(st.text(st.sampled_from("aab  ,.B"), max_size=25), max_size=4)


def pairs(index: NgramIndex | ParagraphIndex, overlap: Overlap) -> Pairs:
    found = zip(overlap.texts.tolist(), overlap.items.tolist(), overlap.matched.tolist(), strict=True)
    return {(text, item): (matched, int(index.totals[item])) for text, item, matched in found}


def overlaps(index: NgramIndex | ParagraphIndex, texts: Sequence[str]) -> Pairs:
    return pairs(index, index.overlap(*edits.flat(pa.array(texts, pa.large_string()))))


def runs(text: str, length: int) -> set[tuple[str, ...]]:
    words = re.findall("[a-z0-9]+", text.lower())
    return {tuple(words[i : i + length]) for i in range(len(words) - length + 1)}


def common_ngrams(texts: Sequence[str], found: Sequence[str], n: int, minimum: int) -> Pairs:
    result = {}
    for item, of_item in enumerate(found):
        length = min(n, len(re.findall("[a-z0-9]+", of_item.lower())))
        grams = runs(of_item, length) if length >= minimum else set()
        for text, document in enumerate(texts):
            if matched := len(grams & runs(document, length)):
                result[text, item] = matched, len(grams)
    return result


def common_paragraphs(texts: Sequence[str], found: Sequence[str]) -> Pairs:
    result = {}
    for item, of_item in enumerate(found):
        long = {p for p in of_item.split("\n") if sum(not w.isspace() for w in uniseg_words(p)) >= 13 and re.search(r"\w", p)}
        for text, document in enumerate(texts):
            if matched := len(long & set(document.split("\n"))):
                result[text, item] = matched, len(long)
    return result


@settings(deadline=None)  # the first call compiles
@given(texts_of, texts_of, st.sampled_from([(1, 1), (2, 1), (3, 2), (4, 4)]))
def test_common_ngrams_are_those_of_sets(texts: list[str], found: list[str], lengths: tuple[int, int]) -> None:
    n, minimum = lengths
    assert overlaps(NgramIndex(found, n, minimum), texts) == common_ngrams(texts, found, n, minimum)


@settings(deadline=None)
@given(
    *[
        st.lists(
            st.lists(st.sampled_from(["a b " * 7, "one, " * 7, "c" + " d" * 12, "e" * 40, "", "! " * 20]), max_size=4).map("\n".join),
            max_size=4,
        )
    ]
    * 2
)
def test_common_paragraphs_are_those_of_sets(texts: list[str], found: list[str]) -> None:
    assert overlaps(ParagraphIndex(found), texts) == common_paragraphs(texts, found)


@pytest.mark.parametrize(
    "spelling",
    [
        QUESTION.upper(),
        QUESTION.replace(" ", "\r\n\u3000"),
        QUESTION.replace("ducks", "«ducks»"),
        json.dumps({"question": QUESTION}),
        QUESTION.replace("e", "e\u0301"),
    ],
)
def test_case_punctuation_whitespace_and_accents_hide_nothing(spelling: str) -> None:
    assert overlaps(NgramIndex([QUESTION], 13, 8), [spelling, QUESTION[: len(QUESTION) // 2]]) == {(0, 0): (8, 8)}


def test_a_short_item_is_found_whole_or_not_at_all() -> None:
    eight, seven = "which of these technologies was developed most recently", "which technology was developed the most recently"
    index = NgramIndex([eight, seven], 13, 8)
    assert index.totals.tolist() == [1, 0]
    assert overlaps(index, [f"Say {eight}?", f"{seven}!", eight.replace("most", "very")]) == {(0, 0): (1, 1)}


@pytest.mark.parametrize("text", ["", "\n", "...", "\x00\x1c\x85\u2028", "😀" * 30, "a", "שלום " * 20])
def test_degenerate_documents_and_items_overlap_with_themselves_at_most(text: str) -> None:
    for index in (NgramIndex([QUESTION, text], 13, 8), ParagraphIndex([QUESTION, text])):
        assert all(item == 1 for _, item in overlaps(index, [text, text * 2]))
    assert overlaps(NgramIndex([], 13, 8), [text]) == overlaps(ParagraphIndex([]), [text]) == {}


def test_a_line_of_twenty_megabytes_is_searched_to_its_end() -> None:
    assert overlaps(NgramIndex([QUESTION], 13, 8), [f"{'filling words of a long line ' * 700_000}{QUESTION}"]) == {(0, 0): (8, 8)}


def write(folder: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    elif name.endswith(".arrow"):
        table = pa.Table.from_pylist(list(rows))
        with pa.ipc.new_stream(path, table.schema) as stream:
            stream.write_table(table)
    else:
        lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(lines) if name.endswith(".gz") else lines)
    return path


def test_items_are_read_from_every_format(tmp_path: Path) -> None:
    rows = [{"doc": {"id": 7, "question": "Question: Why?\nAnswer:", "choices": ["so", "not"]}}]
    paths = [write(tmp_path, f"{kind}/set.{kind}", rows) for kind in ("jsonl", "jsonl.gz", "parquet", "arrow")]
    (tmp_path / "notes.txt").write_text("all of it\n")
    sets = {
        "lines": EvaluationSet(files="jsonl/*", fields=("doc.question", "doc.choices"), id="doc.id", remove="^Question: |\nAnswer:"),
        "packed": EvaluationSet(files="*.gz", fields=("doc.choices",)),
        "columns": EvaluationSet(files="*.parquet", fields=("doc.question",), id="doc.id"),
        "arrow": EvaluationSet(files="arrow/*.arrow", fields=("doc.choices", "doc.question")),
        "text": EvaluationSet(files="*.txt"),
    }
    assert list(items([*paths, tmp_path / "notes.txt"], sets)) == [
        Item("lines", "7", "Why?\nso\nnot"),
        Item("packed", "set.jsonl.gz:0", "so\nnot"),
        Item("columns", "7", "Question: Why?\nAnswer:"),
        Item("arrow", "set.arrow:0", "so\nnot\nQuestion: Why?\nAnswer:"),
        Item("text", "notes.txt:0", "all of it\n"),
    ]


def test_an_item_of_several_requests_counts_once_and_files_of_one_name_do_not_mix(tmp_path: Path) -> None:
    asked = [{"text": "a", "id": "1"}, {"text": "a", "id": "1"}, {"text": "b", "id": "1"}]
    paths = [write(tmp_path, f"{subject}/test.jsonl", asked) for subject in ("law", "art")]
    assert [item[1:] for item in items(paths, {"mmlu": EvaluationSet(id="id")})] == [("1", "a"), ("1", "b")]
    places = [item.id for item in items(paths, {"mmlu": EvaluationSet()})]
    assert places == [f"{subject}/test.jsonl:{row}" for subject in ("art", "law") for row in range(3)]


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({"one": EvaluationSet(files="*.gz")}, r"a\.jsonl: `files` puts it in no set \(\*\.gz\)"),
        ({"one": EvaluationSet(), "two": EvaluationSet()}, "puts it in the sets one and two"),
        ({"one": EvaluationSet(), "two": EvaluationSet(files="b/*")}, r"evaluation set two: no file matches `files: b/\*`"),
        ({"one": EvaluationSet(fields=("doc.body",))}, r"a\.jsonl:0: no field `doc\.body`; where `body` should be there is title"),
        ({"one": EvaluationSet(fields=("doc",))}, r"a\.jsonl:0: `doc` is .*; text, a number or a list of these is needed"),
    ],
)
def test_wrong_sets_are_named(tmp_path: Path, sets: dict[str, EvaluationSet], message: str) -> None:
    path = write(tmp_path, "a.jsonl", [{"doc": {"title": "t"}, "text": "x"}])
    with pytest.raises(PipelineError, match=message):
        list(items([path], sets))


def test_a_damaged_evaluation_file_stops_the_work(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n{"text": \n')
    with pytest.raises(PipelineError, match=r"a\.jsonl row 1: broken_json"):
        list(items([tmp_path / "a.jsonl"], {"one": EvaluationSet()}))


@pytest.mark.parametrize(
    "changes",
    [{"n": 3, "minimum": 4}, {"threshold": 0}, {"threshold": 1.5}, {"sets": {}}, {"sets": {"a": {"remove": "("}}}, {"method": "sentence"}],
)
def test_settings_that_mean_nothing_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Decontaminate.model_validate({"against": "*.jsonl", "sets": {"a": {}}, **changes})


def tagged(path: Path, texts: Sequence[str], **declared: Any) -> tuple[dict[str, list], list[dict[str, Any]]]:
    chosen = Decontaminate.model_validate({"against": "*", "sets": {"quiz": {"id": "id"}}, **declared})
    tagger = Attribute("quiz", KINDS["decontaminate"], chosen, path.parent).tagger({"against": [path]})
    columns, tables = run(tagger, Batch(pa.table({"text": pa.array(texts, pa.large_string())})))
    return columns.to_pydict(), tables["matches"].to_pylist()


def test_documents_say_which_items_they_met(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "quiz.jsonl",
        [{"text": QUESTION, "id": "ducks"}, {"text": "too short", "id": "none"}, {"text": QUESTION + " Say so.", "id": "more"}],
    )
    half = " ".join(QUESTION.split()[:16])  # 4 of 8 n-grams
    texts = ["", QUESTION, "nothing of it", half, "too short"]
    columns, matches = tagged(path, texts)
    assert columns == {"quiz_overlap": [0.0, 1.0, 0.0, 0.5, 0.0], "quiz_items": [0, 2, 0, 1, 0]}
    assert matches == [
        {"row": 1, "evaluation": "quiz", "item": "ducks", "matched": 8, "total": 8, "share": 1.0},
        {"row": 1, "evaluation": "quiz", "item": "more", "matched": 8, "total": 10, "share": 0.8},
        {"row": 3, "evaluation": "quiz", "item": "ducks", "matched": 4, "total": 8, "share": 0.5},
    ]
    assert tagged(path, texts, threshold="1")[0] == {"quiz_overlap": [0.0, 1.0, 0.0, 0.5, 0.0], "quiz_items": [0, 1, 0, 0, 0]}
    assert tagged(path, texts, n=2, minimum=2)[0]["quiz_items"] == [0, 2, 0, 2, 1]


def test_one_paragraph_of_an_item_is_enough(tmp_path: Path) -> None:
    other = "Another paragraph of the same item, which has more than thirteen words as well, as it must."
    path = write(tmp_path, "quiz.jsonl", [{"text": f"{QUESTION}\n{other}\nshort", "id": "long"}])
    columns, matches = tagged(path, [f"before\n{other}\nafter", "short", other.lower()], method="paragraph")
    assert columns == {"quiz_overlap": [0.5, 0.0, 0.0], "quiz_items": [1, 0, 0]}
    assert matches == [{"row": 0, "evaluation": "quiz", "item": "long", "matched": 1, "total": 2, "share": 0.5}]


@pytest.mark.parametrize("name", ["decontaminate-in-loop", "decontaminate-test-sets"])
def test_ready_filters_load_and_have_a_set_for_every_folder_they_fetch(name: str) -> None:
    rules = load_filter(name)
    [attribute] = rules.attributes.values()
    assert rules.drop == {f"{name}/contaminated": f"{attribute.name}_items > 0"}
    [[package]] = attribute.places.values()
    assert not isinstance(package, str)
    folders = {each.files.partition("/")[0] for each in attribute.settings.sets.values()}  # type: ignore[attr-defined]
    assert folders == {member.split("/")[2] for member in package.members}  # such as */hf_datasets/piqa/*.arrow
