"""Ids equal those of Hugging Face `tokenizers`, exactly, with the real tokenizer of OLMoE."""

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from pipeline import tokenizer
from pipeline.download import packages
from pipeline.errors import PipelineError
from pipeline.recipe import load_tokenizer

SPEC = load_tokenizer("gpt-neox-olmo-dolma-v1_5")
EOS = 50279


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    (file,) = packages.fetch(SPEC.sample, tmp_path_factory.mktemp("tokenizer"), lambda size: None)
    return tokenizer.load(file.path, SPEC.sha256)


@pytest.fixture(scope="module")
def reference(content: bytes) -> Tokenizer:
    return Tokenizer.from_str(content.decode())


@pytest.fixture(scope="module")
def fast(content: bytes) -> tokenizer.Encoder:
    return tokenizer.encoder(content)


def split(encoder: tokenizer.Encoder, texts: list[str]) -> list[list[int]]:
    ids, offsets = encoder.encode(texts)
    return [ids[offsets[i] : offsets[i + 1]].tolist() for i in range(len(texts))]


def test_the_declared_numbers_are_those_of_the_file(reference: Tokenizer) -> None:
    assert reference.get_vocab_size() == SPEC.vocab_size == 50280
    assert reference.token_to_id("<|endoftext|>") == SPEC.eos == EOS
    assert reference.token_to_id("|||IP_ADDRESS|||") == 0, "eos_token_id: 0 of the released configs would be this token"
    assert reference.token_to_id("<|padding|>") == SPEC.pad == 1
    assert tokenizer.dtype_for(SPEC.vocab_size) == np.dtype("<u2") and tokenizer.dtype_for(100_278) == np.dtype("<u4")


HARD = [
    "", " ", "\n", "a", "word " * 3, " " * 30, "\t\t'manual", "\n'replace'", "it's we'll\n\f", "x" * 5000, "<|endoftext|>",
    "a<|endoftext|>b<|padding|>", "|||EMAIL_ADDRESS||| and |||IP_ADDRESS", "e\u0301 \u00e9 \ufb01 \u2126", "\u2028\u2029\u0085",
    "مرحبا بالعالم", "नमस्ते दुनिया", "漢字かな交じり文", "👩‍👩‍👧‍👦🏳️‍🌈",
    "\u0000\u0001\u007f", "def f(x):\n        return  x", "1234567890" * 20,
]  # fmt: skip


def test_hard_strings(content: bytes, reference: Tokenizer) -> None:
    expected = [encoding.ids for encoding in reference.encode_batch(HARD, add_special_tokens=False)]
    assert split(tokenizer.encoder(content), HARD) == expected
    assert split(tokenizer.HuggingFace(content), HARD) == expected


pieces = st.one_of(
    st.text(max_size=20),
    st.sampled_from(HARD),
    st.integers(0, 40).map(lambda n: " " * n),
    st.sampled_from(["'s", "'re", "\n\n", "\r\n", "<|endo", "ftext|>", "|||", "PHONE_NUMBER|||"]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(pieces, max_size=8).map("".join), max_size=6))
def test_any_strings(fast: tokenizer.Encoder, reference: Tokenizer, texts: list[str]) -> None:
    expected = [reference.encode(text, add_special_tokens=False).ids for text in texts]
    assert split(fast, texts) == expected


@pytest.mark.parametrize("letter", ["\u088f", "\u0cdc", "\ua7d4", "\U00010940", "\U0001e6ff", "\U000323b0", "\U00033479"])
@pytest.mark.parametrize("around", ["{}'s", "long enough a text, with ümläuts and 漢字, {}'s", "🙂 a{}a 1{}1 {} x", "{}"])
def test_letters_that_are_new_in_unicode_17(fast: tokenizer.Encoder, reference: Tokenizer, letter: str, around: str) -> None:
    text = around.replace("{}", letter)
    assert split(fast, [text]) == [reference.encode(text, add_special_tokens=False).ids]


@pytest.mark.slow
def test_every_code_point(fast: tokenizer.Encoder, content: bytes) -> None:
    points = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    exact = tokenizer.HuggingFace(content)
    for start in range(0, len(points), 20_000):
        texts = [f"{point}'s 1{point}" for point in points[start : start + 20_000]]
        assert split(fast, texts) == split(exact, texts)


def test_the_python_standard_library(content: bytes, reference: Tokenizer) -> None:
    files = sorted(Path(random.__file__).parent.glob("*.py"))[:40]
    texts = [file.read_text(encoding="utf-8") for file in files]
    assert split(tokenizer.encoder(content), texts) == [reference.encode(text).ids for text in texts]


def test_a_wrong_id_stops_the_run_and_names_the_document(content: bytes, reference: Tokenizer) -> None:
    ids = np.array(reference.encode("one two three").ids, dtype=np.uint32)
    assert tokenizer.spot_check(content, ["one two three"], [ids], ["a.jsonl row 3"]) == 1
    ids[2] += 1
    with pytest.raises(PipelineError, match=r"a\.jsonl row 3: .*disagree from token 2 on"):
        tokenizer.spot_check(content, ["one two three"], [ids], ["a.jsonl row 3"])


def test_another_tokenizer_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content + b" ")
    with pytest.raises(PipelineError, match=r"tokenizer\.json: sha256 is .*expected 9ad33b4b"):
        tokenizer.load(str(tmp_path / "tokenizer.json"), SPEC.sha256)


def test_where_the_fast_engine_is_missing_the_reference_does_the_work(content: bytes, reference: Tokenizer, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gigatoken", None)
    tokenizer.engine_name.cache_clear()
    tokenizer.encoder.cache_clear()
    try:
        assert isinstance(tokenizer.encoder(content), tokenizer.HuggingFace)
    finally:
        monkeypatch.undo()
        tokenizer.engine_name.cache_clear()
        tokenizer.encoder.cache_clear()


def test_a_new_encoder_when_the_last_one_has_seen_enough_changes_nothing(content: bytes, reference: Tokenizer, monkeypatch) -> None:
    monkeypatch.setattr(tokenizer, "ENCODER_BYTES", 10)
    expected = [reference.encode(text, add_special_tokens=False).ids for text in HARD]
    encoder = tokenizer.Gigatoken(content)
    assert [split(encoder, [text])[0] for text in HARD] == expected
