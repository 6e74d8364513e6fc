"""Training a quality classifier: the same texts give the same model, and the report is about texts it has not seen."""

import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline import classifier
from pipeline.classifier import Training, train
from pipeline.errors import PipelineError
from pipeline.taggers import Batch
from pipeline.taggers.fasttext import Classifier, fasttext
from pipeline.text.fasttext_file import LABEL
from pipeline.text.fasttext_model import load

SMALL = Training(dimension=8, buckets=500, epochs=10, learning_rate=0.5, held_out=0.25)
GOOD = "because therefore explain answer question reason example follows proof step".split()
BAD = "buy now cheap click login cart shipping sale cookie subscribe".split()


def sentence(words: list[str], seed: int) -> str:
    pick = random.Random(f"{words[0]}{seed}")
    return " ".join(pick.choices([*words, "the", "of"], k=12)) + f"\nline {seed}"


def write_texts(folder: Path, words: list[str], count: int) -> Path:
    folder.mkdir(parents=True)
    for number in range(count // 2):
        (folder / f"{number}.txt").write_text(sentence(words, number), encoding="utf-8")
    rows = [json.dumps({"id": str(number), "text": sentence(words, number)}) for number in range(count // 2, count)]
    (folder / "rest.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("texts")
    return write_texts(folder / "good", GOOD, 120), write_texts(folder / "bad", BAD, 100)


def test_texts_are_told_apart_and_the_report_says_how_well(texts: tuple[Path, Path], tmp_path: Path) -> None:
    report = train(*texts, tmp_path / "models" / "quality.bin", SMALL)
    assert (report.good + report.held_out_good, report.bad + report.held_out_bad) == (120, 100)
    assert 15 <= report.held_out_good <= 45
    half = next(point for point in report.points if point.threshold == 0.5)
    assert half.precision > 0.9 and half.recall > 0.9 and half.kept_of_bad < 0.1
    assert json.loads((tmp_path / "models" / "quality.json").read_text())["held_out_bad"] == report.held_out_bad
    batch = Batch(pa.table({"text": pa.array(["therefore explain the proof", "click cart now"], pa.large_string())}))
    good, bad = fasttext(batch, "quality", Classifier(model="quality.bin"), {"model": [tmp_path / "models" / "quality.bin"]})["quality"]
    assert good > 0.5 > bad
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["quality.bin", "quality.json"]


def test_the_same_texts_give_the_same_bytes_however_they_lie_in_files(texts: tuple[Path, Path], tmp_path: Path) -> None:
    for place, words, count in (("good", GOOD, 120), ("bad", BAD, 100)):
        rows = [json.dumps({"content": sentence(words, number)}) for number in reversed(range(count))]
        (tmp_path / place / "deep").mkdir(parents=True)
        (tmp_path / place / "deep" / "all.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    first = train(*texts, tmp_path / "first.bin", SMALL)
    second = train(tmp_path / "good", tmp_path / "bad", tmp_path / "second.bin", SMALL)
    assert first == second and (tmp_path / "first.bin").read_bytes() == (tmp_path / "second.bin").read_bytes()


def test_another_seed_holds_out_other_texts(texts: tuple[Path, Path], tmp_path: Path) -> None:
    other = Training(**{**vars(SMALL), "seed": 2})
    assert train(*texts, tmp_path / "a.bin", SMALL).sha256 != train(*texts, tmp_path / "b.bin", other).sha256


def test_precision_and_recall_are_counted_on_the_held_out_texts(tmp_path: Path) -> None:
    scores = {"hq": np.array([0.9, 0.5, 0.2]), "cc": np.array([0.6, 0.1])}
    assert classifier._point(0.5, scores) == classifier.Point(0.5, 2 / 3, 2 / 3, 1 / 2)
    assert classifier._point(0.95, scores) == classifier.Point(0.95, 1.0, 0.0, 0.0)


def test_words_that_mean_something_to_fasttext_are_no_part_of_a_text(texts: tuple[Path, Path], tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    odd.mkdir()
    for number in range(30):
        (odd / f"{number}.txt").write_text(f"{LABEL}hq buy {number} </s> {LABEL}third cheap\x00now", encoding="utf-8")
    (odd / "empty.txt").write_text(" \n", encoding="utf-8")
    report = train(texts[0], odd, tmp_path / "m.bin", SMALL)
    assert report.bad + report.held_out_bad == 30
    assert set(load(tmp_path / "m.bin").labels) == {"hq", "cc"}


def test_a_class_without_texts_is_named(texts: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(PipelineError, match=r"none: 0 texts to train on and 0 held out; both need some: add texts"):
        train(texts[0], tmp_path / "none", tmp_path / "m.bin", SMALL)
    with pytest.raises(PipelineError, match=r"absent: no such folder"):
        train(tmp_path / "absent", texts[1], tmp_path / "m.bin", SMALL)


def test_a_file_that_cannot_be_read_stops_the_training(texts: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.jsonl").write_text('{"text": "x"}\n{"text": 3}\n')
    with pytest.raises(PipelineError, match=r"a\.jsonl row 1: no text under `text` or `content`"):
        train(texts[0], tmp_path / "bad", tmp_path / "m.bin", SMALL)
    (tmp_path / "bad" / "a.jsonl").write_text('{"text": \n')
    with pytest.raises(PipelineError, match=r"a\.jsonl row 0: "):
        train(texts[0], tmp_path / "bad", tmp_path / "m.bin", SMALL)
    assert not list(tmp_path.glob("m*")) and not list(tmp_path.glob(".tmp*"))


def test_training_is_silent(texts: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train(*texts, tmp_path / "m.bin", SMALL)
    assert capfd.readouterr() == ("", "")
