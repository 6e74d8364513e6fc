"""fastText models: our reading of them gives the numbers of fastText's own library, and the kinds ask as the peers ask."""

import itertools
import random
import string
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import fasttext as library
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.errors import PipelineError
from pipeline.taggers import Batch
from pipeline.taggers.fasttext import Classifier, Language, fasttext, language
from pipeline.text import fasttext_file, fasttext_model

ENGLISH = ["the", "house", "stands", "green", "and", "with", "Water", "over", "night's"]
FRENCH = ["le", "maison", "été", "vert", "avec", "œuvre", "Eau", "nuit", "où"]
GREEK = ["και", "σπίτι", "νερό", "ΝΎΧΤΑ", "το"]
WORDS = {"en": ENGLISH, "fr": FRENCH, "el": GREEK, "de": ["das", "Haus", "grün", "naß", "über"], "zz": ["the", "le", "42", "x_y"]}

SHAPES = {
    "lid": {"loss": "hs", "minn": 2, "maxn": 4, "dim": 16, "bucket": 3000},
    "words": {"loss": "softmax", "dim": 3},
    "bigrams": {"loss": "softmax", "wordNgrams": 2, "dim": 20, "bucket": 1000},
    "everything": {"loss": "ova", "wordNgrams": 3, "minn": 1, "maxn": 3, "dim": 5, "bucket": 7},
    "sampled": {"loss": "ns", "minn": 3, "maxn": 6, "dim": 33, "bucket": 500},
}

ODD = ["thehouse", "</s>", "__label__en", "__label__", "x" * 70, "a\u00a0b", "\u2028", "\x85", "漢字", "😀"]
words = st.sampled_from([*itertools.chain(*WORDS.values()), *ODD])
separators = st.sampled_from([" ", "  ", "\n", "\r\n", "\t", "\x00", "\x0b", "\x0c", "\x1c", ", "])
texts = st.lists(st.tuples(words, separators).map("".join), max_size=12).map("".join)


def sentences(label: str, count: int, seed: int) -> list[str]:
    pick = random.Random(f"{label}{seed}")
    return [" ".join(pick.choices(WORDS[label], k=pick.randint(1, 9))) for _ in range(count)]


def trained(folder: Path, labels: list[str], numbers: int = 0, **shape: object) -> Path:
    rows = [f"__label__{label} {text}" for at, label in enumerate(labels) for text in sentences(label, 30 + 10 * at, 1)]
    rows += [f"__label__{number} Nº {number}" for number in range(numbers)]
    random.Random(1).shuffle(rows)
    (folder / "rows.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    model = library.train_supervised(str(folder / "rows.txt"), epoch=8, lr=0.5, thread=1, seed=1, verbose=0, **shape)
    model.save_model(str(folder / "model.bin"))
    return folder / "model.bin"


@pytest.fixture(scope="module", params=[*SHAPES, "quantized", "pruned"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param in SHAPES:
        return trained(folder, list(WORDS), **SHAPES[request.param])
    # As lid.176.ftz was made from lid.176.bin; the output is quantized too where there are enough labels.
    pruned = request.param == "pruned"
    shrunk = library.load_model(str(trained(folder, list(WORDS), 300 if pruned else 0, **SHAPES["lid"])))
    more = {"cutoff": 300, "qout": True, "qnorm": True} if pruned else {}
    shrunk.quantize(input=str(folder / "rows.txt"), dsub=3, verbose=0, **more)
    shrunk.save_model(str(folder / "model.ftz"))
    return folder / "model.ftz"


def batch_of(*texts: str) -> Batch:
    return Batch(pa.table({"text": pa.array(texts, pa.large_string())}))


def asked(model: Path, line: str) -> dict[str, float]:
    """What fastText's library says of a line: label → probability, the likeliest first."""
    labels, scores = libraries(model).predict(line, k=-1)
    return {label.removeprefix("__label__"): float(score) for label, score in zip(labels, scores, strict=True)}


@cache
def libraries(path: Path) -> Any:
    return library.load_model(str(path))


def test_probabilities_are_the_librarys_to_the_last_bit(model: Path) -> None:
    loaded = fasttext_model.load(model)

    @settings(deadline=None, max_examples=60)  # the first call compiles
    @given(st.lists(texts, max_size=4))
    @example(["", " ", "\x00", "</s>", "the </s> le le le", "__label__en maison", "x" * 3000 + " house", "thé\u00a0maison"])
    def check(texts: list[str]) -> None:
        found = loaded.probabilities(*batch_of(*texts).utf8)
        for text, row in zip(texts, found, strict=True):
            expected = asked(model, text.replace("\n", " "))
            assert row.tolist() == [expected.get(label, 0.0) for label in loaded.labels]

    check()


def test_probabilities_do_not_depend_on_what_was_asked_before(model: Path) -> None:
    texts = [" ".join(sentences(label, 3, seed)) for seed in range(40) for label in WORDS]
    loaded = fasttext_model.load(model)
    together = loaded.probabilities(*batch_of(*texts).utf8)
    alone = np.concatenate([loaded.probabilities(*batch_of(text).utf8) for text in reversed(texts)])[::-1]
    assert (together == alone).all()


def test_a_line_of_megabytes_without_a_space_is_read(model: Path) -> None:
    text = "maison" * 200_000
    loaded = fasttext_model.load(model)
    expected = asked(model, text)
    assert loaded.probabilities(*batch_of(text).utf8)[0].tolist() == [expected.get(label, 0.0) for label in loaded.labels]


def test_a_file_that_is_cut_anywhere_is_refused(model: Path, tmp_path: Path) -> None:
    whole = model.read_bytes()
    for size in [0, 3, 60, 90, 200, len(whole) // 2, len(whole) - 1]:
        (tmp_path / "cut.bin").write_bytes(whole[:size])
        with pytest.raises(PipelineError, match=r"cut\.bin is no supervised fastText model, or damaged: "):
            fasttext_model.fasttext_file.read(tmp_path / "cut.bin")


# Where a number of the header lies, what is put there, and what is said of it.
LIES = {
    "n-grams beyond the rows": (40, "<i", 1000, "rows for"),
    "more n-grams than memory": (40, "<i", 2**31 - 1, "buckets"),
    "no buckets": (40, "<i", 0, "rows for"),
    "n-grams of a million words": (28, "<i", 10**6, "n-grams of"),
    "n-grams of a million characters": (48, "<i", 10**6, "n-grams of"),
    "another loss": (32, "<i", 9, "loss 9"),
    "more entries than bytes": (64, "<i", 2**31 - 1, "entries"),
    "fewer entries than none": (64, "<i", -1, "entries"),
    "more words than entries": (68, "<i", 10**6, "entries"),
    "words that are labels": (68, "<i", 0, "labels"),
    "labels that are words": (68, "<i", 33, "rows for"),
    "pruned to more than there is": (84, "<q", 10**6, "should end"),
    "pruned to more than there can be": (84, "<q", 2**62, "should end"),
}


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("lies"), list(WORDS), **SHAPES["everything"])


@pytest.mark.parametrize("lie", LIES)
def test_numbers_that_lead_out_of_a_model_are_refused(everything: Path, tmp_path: Path, lie: str) -> None:
    """The kernels go by them without looking."""
    at, kind, value, said = LIES[lie]
    content = bytearray(everything.read_bytes())
    struct.pack_into(kind, content, at, value)
    (tmp_path / "model.bin").write_bytes(content)
    with pytest.raises(PipelineError, match=said):
        fasttext_file.read(tmp_path / "model.bin")


@pytest.mark.slow
def test_a_model_with_any_other_number_changed_still_answers_or_is_refused(everything: Path, tmp_path: Path) -> None:
    content, rng, refused = everything.read_bytes(), random.Random(1), 0
    data = np.frombuffer("the house été 42 x_y".encode(), np.uint8)
    for number in range(120):
        changed = bytearray(content)
        at = rng.choice([rng.randrange(8, 92), rng.randrange(92, len(content))])
        changed[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, changed[at] ^ 1 << rng.randrange(8)])
        path = tmp_path / f"{number}.bin"
        path.write_bytes(changed)
        try:
            asked = fasttext_model.FastText(fasttext_file.read(path))
        except PipelineError:
            refused += 1
        else:
            assert asked.probabilities(data, np.array([0, 9, len(data)])).shape == (2, len(asked.labels))
        path.unlink()
    assert 10 < refused < 110


def test_word_vectors_and_other_files_are_no_classifier(tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("the house stands and the house stands with water\n" * 9)
    vectors = library.train_unsupervised(str(tmp_path / "rows.txt"), dim=4, bucket=50, thread=1, verbose=0, minCount=1)
    vectors.save_model(str(tmp_path / "vectors.bin"))
    with pytest.raises(PipelineError, match="it has word vectors and no labels"):
        fasttext_model.load(tmp_path / "vectors.bin")
    with pytest.raises(PipelineError, match="it begins with 0x"):
        fasttext_model.load(tmp_path / "rows.txt")


@pytest.fixture(scope="module")
def lid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("lid"), ["en", "fr", "de"], **SHAPES["lid"])


# How each peer makes a line of a text and which of the model's answers it takes (its own lines, without its documents).
def datatrove_asks(model: Path, text: str) -> dict[str, float]:
    return asked(model, text.replace("\n", " "))


def dclm_asks(model: Path, text: str) -> dict[str, float]:
    return {} if all(c in string.punctuation + " " for c in text) else asked(model, text.replace("\n", ""))


def dolma_asks(model: Path, text: str) -> dict[str, float]:
    return asked(model, text.lower().replace("\n", " ").strip())


@pytest.mark.parametrize("meaning, ask", [("datatrove", datatrove_asks), ("dclm", dclm_asks), ("dolma", dolma_asks)])
def test_a_language_is_what_the_peer_finds(lid: Path, meaning: str, ask: Callable[[Path, str], dict[str, float]]) -> None:
    @settings(deadline=None, max_examples=40)
    @given(st.lists(texts, max_size=4))
    @example(["", "...", " !?", "\n", ".\n.", "The\nHOUSE\nstands", "\u3000LE \u00a0", "le\nmaison"])
    def check(texts: list[str]) -> None:
        got = language(batch_of(*texts), "lid", Language(meaning=meaning), {"model": [lid]})  # type: ignore[arg-type]
        for at, text in enumerate(texts):
            expected = ask(lid, text)
            first = next(iter(expected), "")
            row = (got["lid"][at].as_py(), got["lid_score"][at], got["lid_en"][at])  # type: ignore[union-attr]
            assert row[1:] == (expected.get(first, 0.0), expected.get("en", 0.0))
            assert row[0] == first or expected[row[0]] == expected[first]  # of two as likely, either

    check()


def test_meanings_differ_where_they_should(lid: Path) -> None:
    text = "the\nhouse ... LE MAISON"
    scores = {m: language(batch_of(text), "x", Language(meaning=m), {"model": [lid]})["x_en"][0] for m in ("datatrove", "dclm", "dolma")}  # type: ignore[arg-type]
    assert len(set(scores.values())) == 3


@pytest.fixture(scope="module")
def quality(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quality")
    rows = [f"__label__{label} {text}" for label, words in (("hq", "en"), ("cc", "fr")) for text in sentences(words, 40, 2)]
    random.Random(2).shuffle(rows)
    (folder / "rows.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    model = library.train_supervised(str(folder / "rows.txt"), dim=8, bucket=100, wordNgrams=2, thread=1, verbose=0)
    model.save_model(str(folder / "q.bin"))
    return folder / "q.bin"


def test_a_classifiers_probability_is_the_one_that_the_peer_thresholds(quality: Path) -> None:
    @settings(deadline=None, max_examples=40)
    @given(st.lists(texts, max_size=4))
    @example(["", "the house\nLe maison", "\u2028the\x1chouse\x85le", "\u00a0the house\u3000"])
    def check(texts: list[str]) -> None:
        files = {"model": [quality]}
        dclm = fasttext(batch_of(*texts), "q", Classifier(model="q.bin"), files)["q"]
        datatrove = fasttext(batch_of(*texts), "q", Classifier(model="q.bin", meaning="datatrove"), files)["q"]
        for at, text in enumerate(texts):
            (label, score), *_ = asked(quality, " ".join(text.strip().splitlines())).items() or [("hq", 0.0)]
            assert dclm[at] == (score if label == "hq" else 1 - score)
            assert datatrove[at] == asked(quality, text.strip().replace("\n", "")).get("hq", 0.0)

    check()


def test_a_label_that_the_model_lacks_is_named(quality: Path) -> None:
    with pytest.raises(PipelineError, match=r"q\.bin has the labels .*hq.*, not `good`: set `label` to one of them"):
        fasttext(batch_of("x"), "q", Classifier(model="q.bin", label="good"), {"model": [quality]})


def test_a_model_is_one_file(quality: Path) -> None:
    with pytest.raises(PipelineError, match="a fastText model is one file, and `model` names 2: q.bin, q.bin"):
        fasttext(batch_of("x"), "q", Classifier(model="*.bin"), {"model": [quality, quality]})


def test_an_empty_batch_has_no_values(quality: Path, lid: Path) -> None:
    assert len(fasttext(batch_of(), "q", Classifier(model="q"), {"model": [quality]})["q"]) == 0
    assert {len(values) for values in language(batch_of(), "x", Language(), {"model": [lid]}).values()} == {0}
