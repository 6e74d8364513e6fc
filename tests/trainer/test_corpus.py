"""What a run trains on: a mix or token files behind one face, recognised again, and refused when it cannot be trained on."""

import hashlib
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import ConfigError, PipelineError
from pipeline.lock import Lock
from pipeline.reader import MixReader
from pipeline.store import Store
from trainer.config import Config, apply
from trainer.corpus import Corpus, open_corpus
from trainer.data import loader
from trainer.flat_shards import FlatShards
from trainer.losses import IGNORED

SMALL = Config.model_validate({
    "name": "tiny",
    "model": {"d_model": 32, "layers": 1, "heads": 2, "vocab_size": 500, "padded_vocab": 512, "experts": 4, "top_k": 2, "expert_width": 16},
    "optim": {"schedule": {"warmup_tokens": 0}},
    "train": {"sequence_length": 32, "batch_tokens": 256, "tokens": 10_000, "precision": "float32"},
})  # fmt: skip


def changed(**values: object) -> Config:
    return apply(SMALL, {key.replace("__", "."): str(value) for key, value in values.items()})


@pytest.fixture(scope="module")
def opened(built: Store) -> Corpus:
    return open_corpus(built.root, "small", SMALL)


def test_a_mix_is_read_at_the_length_of_the_model(built: Store, opened: Corpus) -> None:
    lock = Lock.read(built.path("mixes/small.lock.json"))
    assert (lock.sequence_length, opened.name, opened.sources) == (64, "small", ["web", "code", "wiki"])
    assert opened.lock == lock.with_sequence_length(32)
    assert len(opened.instances) == 2 * lock.instances
    first, *_ = loader(opened.batches(SMALL), 8)
    assert first.input_ids.shape == (4, 32)
    assert [opened.sources[number] for number in first.sources] == [source for source, _, _ in opened.places(0, 4)]
    reader = MixReader(built.path("mixes/small.lock.json"), sequence_length=32)
    assert np.array_equal(first.input_ids, reader.batch(range(4)))


def test_batches_follow_the_config(built: Store) -> None:
    config = changed(loss__micro_batch=2, model__document_masking="true", train__instance_filter="false")
    batch = open_corpus(built.root, "small", config).batches(config)[3]
    assert batch.first == 6 and batch.input_ids.shape == (2, 32)
    assert batch.document_ids is not None


def test_the_identity_says_what_a_resumed_run_must_agree_with(built: Store, opened: Corpus, recipes: Path) -> None:
    sha256 = hashlib.sha256((recipes / "tiny.json").read_bytes()).hexdigest()
    assert opened.lock is not None and opened.tokenizer is not None
    assert opened.identity == {
        "mix": "small", "fingerprint": opened.lock.fingerprint, "tokenizer": "tiny", "tokenizer_sha256": sha256,
        "vocab_size": 500, "dtype": "uint16", "sequence_length": 32, "eos": opened.eos,
    }  # fmt: skip
    assert hashlib.sha256(opened.tokenizer.read_bytes()).hexdigest() == sha256
    longer = open_corpus(built.root, "small", changed(train__sequence_length=64))
    assert {key for key in opened.identity if opened.identity[key] != longer.identity[key]} == {"fingerprint", "sequence_length"}


def test_held_out_text_is_counted_as_it_is_given(opened: Corpus) -> None:
    assert opened.lock is not None
    for entry in opened.lock.sources:
        labelled = sum(int((batch.labels != IGNORED).all(dim=1).sum()) for batch in opened.held_out(entry.name, 4))
        assert labelled == opened.held_out_instances(entry.name) == sum(shard.tokens // 32 for shard in entry.validation)
    assert sum(map(opened.held_out_instances, opened.sources)) > 0


@pytest.mark.parametrize(
    ("changes", "mix", "expected"),
    [
        ({}, "smal", r"smal: no mix of this name is built in .*did you mean `small`\?.*make mix MIX=smal`"),
        ({"model__vocab_size": 499}, "small", r"tokenizer tiny has 500 ids, the model tiny has model.vocab_size 499; set"),
        (
            {"train__sequence_length": 128, "loss__micro_batch": 2},
            "small",
            r"sequence_length 128: small was resolved to instances of 64 tokens",
        ),
        ({"train__tokens": 10**9}, "small", r"small: holds \d+ instances of 32 tokens .* asks for 31250000 \(1B\); ask for fewer"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(built: Store, changes: dict[str, object], mix: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        open_corpus(built.root, mix, changed(**changes))


def test_the_last_whole_step_of_a_mix_can_be_asked_for(built: Store, opened: Corpus) -> None:
    steps = len(opened.instances) // 8
    assert len(opened.instances) % 8, "the test needs instances that fill no step"
    open_corpus(built.root, "small", changed(train__tokens=steps * 256 + 255))
    with pytest.raises(ConfigError, match="holds"):
        open_corpus(built.root, "small", changed(train__tokens=(steps + 1) * 256))
    open_corpus(built.root, "small", changed(train__tokens=10**9), last_step=steps)
    with pytest.raises(ConfigError, match="holds"):
        open_corpus(built.root, "small", changed(train__tokens=10**9), last_step=steps + 1)


def test_a_tokenizer_that_is_missing_or_another_is_refused(tmp_path: Path, built: Store) -> None:
    shutil.copytree(built.path("mixes"), tmp_path / "mixes")
    with pytest.raises(ConfigError, match=r"does not hold the tokenizer of small; `make mix MIX=small` adds it"):
        open_corpus(tmp_path, "small", SMALL)
    (name,) = (path.name for path in built.path("tokenizers").iterdir())
    (tmp_path / "tokenizers").mkdir()
    (tmp_path / "tokenizers" / name).write_bytes(b"{}")
    with pytest.raises(PipelineError, match=rf"{name}: sha256 is"):
        open_corpus(tmp_path, "small", SMALL)


def write_files(folder: Path, dtype: str = "<u2", top: int = 500) -> list[Path]:
    """Token files as Dolma lays them out, of two sources: 20, 9 and 12 instances of 32 and tails; the last id ends documents."""
    paths = [folder / name for name in ("code/part-0-00000.npy", "web/v1/part-0-00000.npy", "web/v1/part-1-00000.npy")]
    for number, (path, tokens) in enumerate(zip(paths, (20 * 32 + 7, 9 * 32, 12 * 32 + 31), strict=True)):
        path.parent.mkdir(parents=True, exist_ok=True)
        ids = np.random.default_rng(number).integers(0, top - 1, tokens)
        ids[16::17] = top - 1
        ids.astype(dtype).tofile(path)
        path.with_suffix(".csv.gz").write_bytes(b"")  # Dolma's own list of documents
    return paths


@pytest.mark.parametrize("end", ["", "/**/part-*.npy", "/*/**/*.npy"])
def test_token_files_train_like_a_mix_for_as_many_epochs_as_asked(tmp_path: Path, end: str) -> None:
    paths = write_files(tmp_path)
    found = open_corpus(tmp_path / "no store", f"{tmp_path}{end}", SMALL)
    straight = FlatShards(paths, "uint16", 32, SMALL.train.seed, 499, 8, 8, ["code", "web", "web"], 500)
    assert (found.sources, found.eos, found.tokenizer, found.lock) == (["code", "web"], 499, None, None)
    assert len(found.instances) == 8 * 40 >= 10_000 / 32 > 7 * 40  # 41 instances fill 5 steps an epoch
    batches = list(loader(found.batches(SMALL), 8))
    whole = torch.cat([batch.input_ids for batch in batches])
    assert np.array_equal(whole, [straight[index].tokens for index in range(320)])
    for index, (source, path, start) in enumerate(found.places(0, 320)):
        assert source == ("code" if path == str(paths[0]) else "web")
        assert np.array_equal(np.fromfile(path, "<u2")[start : start + 32], whole[index])
    assert found.held_out_instances("web") == 0 and list(found.held_out("web", 4)) == []
    assert np.array_equal(pickle.loads(pickle.dumps(found.instances))[319].tokens, whole[319])


def test_large_vocabularies_are_read_as_four_bytes(tmp_path: Path) -> None:
    write_files(tmp_path, "<u4", 100_000)
    found = open_corpus(tmp_path, f"{tmp_path}/", changed(model__vocab_size=100_000, model__padded_vocab=100_096))
    assert (found.identity["dtype"], found.eos) == ("uint32", 99_999)
    _, path, start = found.places(0, 1)[0]
    assert np.array_equal(found.instances[0].tokens, np.fromfile(path, "<u4")[start : start + 32])


def test_token_files_are_recognised_where_they_were_moved_and_not_when_they_changed(tmp_path: Path) -> None:
    write_files(tmp_path / "a/tokens")
    shutil.copytree(tmp_path / "a", tmp_path / "b")

    def identity(folder: str, **changes: object) -> dict[str, str | int]:
        return open_corpus(tmp_path, f"{tmp_path}/{folder}/tokens", changed(**changes)).identity

    first = identity("a")
    assert identity("b") == first == identity("a", train__tokens=20_000, optim__lr=1)
    other = [identity("a", train__seed=1), identity("a", train__batch_tokens=128), identity("a", train__sequence_length=16)]
    (tmp_path / "b/tokens/code/part-0-00000.npy").rename(tmp_path / "b/tokens/code/part-9-00000.npy")
    other.append(identity("b"))
    fingerprints = {values["fingerprint"] for values in (first, *other)}
    assert len(fingerprints) == 5


def test_token_files_that_cannot_be_trained_on_are_refused(tmp_path: Path) -> None:
    write_files(tmp_path / "tokens")
    (tmp_path / "empty").mkdir()
    for pattern in ("empty/", "none/*.npy", "tokens/*.bin"):
        with pytest.raises(ConfigError, match="no token files there; give a folder that holds .npy files"):
            open_corpus(tmp_path, f"{tmp_path}/{pattern}", SMALL)
    with pytest.raises(ConfigError, match="3 files hold 41 instances of 32 tokens, a step needs 64; give more files"):
        open_corpus(tmp_path, f"{tmp_path}/tokens", changed(train__batch_tokens=2048))
    with pytest.raises(PipelineError, match=r"document_masking is on, and none of the first \d+ tokens is 505"):
        open_corpus(tmp_path, f"{tmp_path}/tokens", changed(model__document_masking="true", model__vocab_size=506))
    open_corpus(tmp_path, f"{tmp_path}/tokens", changed(model__document_masking="true"))
