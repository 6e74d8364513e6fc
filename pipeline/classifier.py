"""A quality classifier from two folders of texts: those one wants more of, and those one has.

In:   a folder of good texts and one of bad ones (better: of what the pool is like), in any format that the readers read.
Out:  a fastText model (labels `hq` and `cc`, as DCLM's) for the kind `fasttext`, and a report of how well it tells texts
      apart that it was not trained on, both beside each other as <name>.bin and <name>.json.
Cost: two passes over the texts, which go once through a temporary folder beside the model; then about 1 µs of CPU per word
      and epoch in one thread. Memory: 64th parts of the text, and (buckets + distinct words) × dimension × 4 bytes: 0.8 GB.
Not:  balanced. A class with more texts weighs more, so give both about as many; DCLM had 200,000 of each.

The defaults are those of DCLM's published classifier (arXiv:2406.11794, appendix F; baselines/train_fasttext_classifier.py). The same
texts give the same bytes on the same kind of machine: fastText is deterministic in one thread from one seed.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash

from pipeline.errors import ConfigError, PipelineError
from pipeline.files import fsync, sha256_of, write_atomically
from pipeline.readers import Failure, RawFile, reader_for
from pipeline.taggers.fasttext import one_line, probabilities
from pipeline.text.fasttext_file import LABEL
from pipeline.unit import canonical

GOOD, BAD = "hq", "cc"
THRESHOLDS = (0.018112, 0.1, 0.25, 0.5, 0.75, 0.9)  # the first is DCLM-Baseline's (fasttext_filter.yaml)
_PARTS = 64
_BATCH = 1_000  # texts scored at a time


@dataclass(frozen=True)
class Training:
    """held_out: share of the texts that only the report sees. buckets: rows for runs of up to `word_ngrams` words."""

    dimension: int = 100
    epochs: int = 5
    learning_rate: float = 0.1
    word_ngrams: int = 2
    buckets: int = 2_000_000
    held_out: float = 0.1
    seed: int = 1


@dataclass(frozen=True)
class Point:
    """What a threshold does to the held-out texts, at their balance of good and bad: what is kept scores at least that much.

    precision: good ones among those kept, 1.0 if none is. recall: kept ones among the good. kept_of_bad: kept ones among the bad.
    """

    threshold: float
    precision: float
    recall: float
    kept_of_bad: float


@dataclass(frozen=True)
class Report:
    """good, bad: texts trained on. top_tenth: the threshold that keeps a tenth of the bad held-out texts, as DCLM chose its own
    on its pool. sha256: of the model."""

    good: int
    bad: int
    held_out_good: int
    held_out_bad: int
    points: tuple[Point, ...]
    top_tenth: float
    training: Training
    sha256: str


def train(good: Path, bad: Path, out: Path, training: Training = Training()) -> Report:
    """Train on the texts below two folders, measure, write `out` (a .bin) and its report beside it.

    Which texts are held out, and the order of the others, follow from a hash of each text and the seed, so equal texts are
    all on one side. Raises PipelineError for a file that cannot be read and for a class without a text on either side.
    """
    import fasttext

    out = out.with_suffix(".bin")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-classifier-", dir=out.parent) as folder:
        trained, held_out = _split(good, bad, Path(folder), training)
        for label, place in ((GOOD, good), (BAD, bad)):
            if not trained[label] or not held_out[label]:
                raise PipelineError(
                    f"{place}: {trained[label]} texts to train on and {held_out[label]} held out; both need some: add texts"
                )
        model = fasttext.train_supervised(
            str(Path(folder) / "train.txt"), dim=training.dimension, epoch=training.epochs, lr=training.learning_rate,
            wordNgrams=training.word_ngrams, bucket=training.buckets, minCount=1, thread=1, seed=training.seed, verbose=0,
        )  # fmt: skip
        model.save_model(str(Path(folder) / "model.bin"))
        scores = _scores(Path(folder) / "model.bin", Path(folder) / "held-out.txt")
        fsync(Path(folder) / "model.bin")
        os.replace(Path(folder) / "model.bin", out)
    report = Report(
        good=trained[GOOD], bad=trained[BAD], held_out_good=held_out[GOOD], held_out_bad=held_out[BAD],
        points=tuple(_point(threshold, scores) for threshold in THRESHOLDS),
        top_tenth=float(np.quantile(scores[BAD], 0.9)), training=training, sha256=sha256_of(out),
    )  # fmt: skip
    write_atomically(out.with_suffix(".json"), canonical(asdict(report), indent=1))
    return report


def _split(good: Path, bad: Path, folder: Path, training: Training) -> tuple[dict[str, int], dict[str, int]]:
    """train.txt, shuffled, and held-out.txt in fastText's form, and how many texts of each label are in them."""
    counts: tuple[dict[str, int], dict[str, int]] = ({GOOD: 0, BAD: 0}, {GOOD: 0, BAD: 0})
    with ExitStack() as files:
        parts = [files.enter_context(open(folder / f"part-{number}", "wb")) for number in range(_PARTS)]
        held_out = files.enter_context(open(folder / "held-out.txt", "wb"))
        for label, line in chain(((GOOD, line) for line in _lines(good)), ((BAD, line) for line in _lines(bad))):
            key = xxhash.xxh64_intdigest(line, training.seed)
            aside = key < training.held_out * 2**64
            counts[aside][label] += 1
            row = f"{LABEL}{label} ".encode() + line + b"\n"
            if aside:
                held_out.write(row)
            else:
                place = xxhash.xxh64_intdigest(line, training.seed + 1)  # independent of the one that held others out
                parts[place % _PARTS].write(b"%016x" % place + row)
    with open(folder / "train.txt", "wb") as shuffled:
        for number in range(_PARTS):
            part = folder / f"part-{number}"
            shuffled.writelines(row[16:] for row in sorted(part.read_bytes().splitlines(keepends=True)))
            part.unlink()
    return counts


def _lines(folder: Path) -> Iterator[bytes]:
    """Each text below the folder that has a word, as the line that the model will be asked about, by the files' names."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; name one with texts below it")
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")):
        name = path.relative_to(folder).as_posix()
        file = RawFile(name, str(path), path.stat().st_size, "", reader="text" if path.suffix == ".txt" else None)
        for record in reader_for(file)(file):
            if isinstance(record, Failure):
                raise PipelineError(f"{path} row {record.row}: {record.reason}: {record.detail}; mend or remove it")
            text = record.fields.get("text", record.fields.get("content"))
            if not isinstance(text, str):
                raise PipelineError(f"{path} row {record.row}: no text under `text` or `content`")
            if line := _unmarked(one_line(text)).encode():
                yield line


def _unmarked(line: str) -> str:
    """Without words that mean something to fastText: labels, and the end of a line."""
    if LABEL not in line and "</s>" not in line:
        return line
    return " ".join(word for word in line.split() if not word.startswith(LABEL) and word != "</s>")


def _scores(model: Path, held_out: Path) -> dict[str, np.ndarray]:
    """The probability of GOOD for each held-out text, by its label."""
    found: dict[str, list[np.ndarray]] = {GOOD: [], BAD: []}
    with open(held_out, encoding="utf-8", newline="\n") as rows:
        while some := list(islice(rows, _BATCH)):
            labels, _, lines = zip(*(row.rstrip("\n").partition(" ") for row in some), strict=True)
            names, scores = probabilities([model], pa.array(lines, pa.large_string()))
            good = scores[:, names.index(GOOD)].astype(np.float64)
            for label, values in found.items():
                values.append(good[np.array(labels) == LABEL + label])
    return {label: np.concatenate(values) for label, values in found.items()}


def _point(threshold: float, scores: dict[str, np.ndarray]) -> Point:
    good, bad = (int((scores[label] >= threshold).sum()) for label in (GOOD, BAD))
    precision = good / (good + bad) if good + bad else 1.0
    return Point(threshold, precision, good / len(scores[GOOD]), bad / len(scores[BAD]))
