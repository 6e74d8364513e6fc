"""Held-out loss: against plain sums over the text itself, the same on any number of ranks, in bits per byte of real text."""

import json
import math
import unicodedata
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from tokenizers import Tokenizer
from torch.nn import functional as F

from pipeline.errors import PipelineError
from pipeline.store import Store
from tests.trainer.test_corpus import SMALL, changed, write_files
from trainer.config import Config
from trainer.corpus import Corpus, open_corpus
from trainer.evaluate import held_out, token_bytes
from trainer.metrics import EvalRow
from trainer.model import Transformer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def opened(built: Store) -> Corpus:
    return open_corpus(built.root, "small", SMALL)


def model_of(config: Config) -> Transformer:
    torch.manual_seed(0)
    model = Transformer(config.model)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def bytes_of(corpus: Corpus) -> np.ndarray:
    assert corpus.tokenizer is not None
    return token_bytes(corpus.tokenizer, 500)


def evaluate(corpus: Corpus, config: Config = SMALL, most: int = 100, rank: int = 0, world: int = 1) -> list[EvalRow]:
    return held_out(model_of(config), corpus, config, 7, bytes_of(corpus), rank, world, CPU, most)


def test_losses_are_the_plain_sums_over_the_held_out_text(built: Store, opened: Corpus) -> None:
    model, tokenizer = model_of(SMALL), Tokenizer.from_file(str(opened.tokenizer))
    rows = {row.source: row for row in evaluate(opened)}
    assert opened.lock is not None and len(rows) >= 2
    for entry in opened.lock.sources:
        files = [np.fromfile(built.path(shard.path), "<u2") for shard in entry.validation]
        instances = [tokens[i : i + 32] for tokens in files for i in range(0, len(tokens) - 31, 32)]
        nats = size = 0.0
        for tokens in torch.from_numpy(np.array(instances, dtype=np.int64).reshape(-1, 32)):
            logits = model.head(model(tokens[None]).hidden_BSD)[0].detach().double()
            nats += float(F.cross_entropy(logits[:-1], tokens[1:], reduction="sum"))
            # Byte-level entries decode by themselves where they are whole characters; others by the table that bytes have.
            size += sum(len(_as_bytes(tokenizer.id_to_token(token))) for token in tokens[1:].tolist() if token != opened.eos)
        if not instances:
            assert entry.name not in rows
            continue
        row = rows[entry.name]
        assert (row.step, row.instances, row.tokens, row.bytes) == (7, len(instances), 31 * len(instances), size)
        assert row.loss == pytest.approx(nats / row.tokens, rel=1e-5)
        assert row.bits_per_byte == pytest.approx(nats / math.log(2) / size, rel=1e-5)


def _as_bytes(entry: str) -> bytes:
    """GPT-2's table: printable Latin-1 characters stand for themselves, the others for 256, 257, …"""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(byte): byte for byte in plain}
    table |= {chr(256 + place): byte for place, byte in enumerate(byte for byte in range(256) if byte not in plain)}
    return bytes(table[character] for character in entry)


def test_at_most_so_many_instances_are_taken_and_always_the_first(opened: Corpus) -> None:
    few, all_rows = evaluate(opened, most=3), evaluate(opened)
    assert [row.instances for row in few] == [min(row.instances, 3) for row in all_rows]
    assert few != all_rows
    assert evaluate(opened, most=3) == few
    assert evaluate(opened, changed(loss__micro_batch=1), most=3) == [
        row._replace(loss=pytest.approx(row.loss, rel=1e-6), bits_per_byte=pytest.approx(row.bits_per_byte, rel=1e-6)) for row in few
    ]


def test_the_model_is_left_without_gradients_and_as_it_was(opened: Corpus) -> None:
    model = model_of(SMALL)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    held_out(model, opened, SMALL, 1, None, 0, 1, CPU, 5)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.is_grad_enabled()


def test_documents_are_masked_as_the_config_says(opened: Corpus) -> None:
    masked = changed(model__document_masking="true")
    assert [row.loss for row in evaluate(opened, masked)] != [row.loss for row in evaluate(opened)]


def test_without_a_tokenizer_there_are_no_bytes_and_without_held_out_text_no_rows(tmp_path: Path, opened: Corpus) -> None:
    rows = held_out(model_of(SMALL), opened, SMALL, 1, None, 0, 1, CPU, 5)
    assert rows and all(row.bytes is None and row.bits_per_byte is None and math.isfinite(row.loss) for row in rows)
    write_files(tmp_path)
    files = open_corpus(tmp_path, f"{tmp_path}/", SMALL)
    assert held_out(model_of(SMALL), files, SMALL, 1, None, 0, 1, CPU, 5) == []


def _evaluate_on_a_rank(rank: int, folder: str, store: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2, timeout=timedelta(seconds=60))
    rows = evaluate(open_corpus(store, "small", SMALL), rank=rank, world=2)
    Path(f"{folder}/{rank}.json").write_text(json.dumps(rows))
    dist.destroy_process_group()


def test_two_ranks_measure_the_same_to_the_last_bit(tmp_path: Path, built: Store, opened: Corpus) -> None:
    other = processes.get_context("spawn").Process(target=_evaluate_on_a_rank, args=(1, str(tmp_path), built.root))
    other.start()
    _evaluate_on_a_rank(0, str(tmp_path), built.root)
    other.join()
    alone = json.loads(json.dumps(evaluate(opened)))
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)] == [alone, alone]


def test_token_bytes_add_up_to_the_text(built: Store, opened: Corpus) -> None:
    lengths, tokenizer = bytes_of(opened), Tokenizer.from_file(str(opened.tokenizer))
    texts = [text for part in built.root.glob("documents/*/*/part-*.parquet") for text in pq.read_table(part)["text"].to_pylist()]
    texts = [text for text in texts if "<|endoftext|>" not in text] + ["日本語 e\u0301 🙂 \u2028\t\n  naïve\r\n\x00", ""]
    assert len(texts) > 300
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert lengths[ids].sum() == len(unicodedata.normalize("NFC", text).encode())


def test_special_tokens_stand_for_no_byte_and_added_ones_for_their_text(tmp_path: Path, opened: Corpus) -> None:
    assert opened.tokenizer is not None
    tokenizer = json.loads(opened.tokenizer.read_bytes())
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
    tokenizer["added_tokens"] += [{"id": 500, "content": "|||É|||", **plain}, {"id": 501, "content": "     ", **plain}]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(tokenizer))
    lengths = token_bytes(path, 510)
    assert lengths.dtype == np.int32 and len(lengths) == 510
    assert lengths[opened.eos] == 0
    assert lengths[500:].tolist() == [8, 5, *[0] * 8]
    ids = Tokenizer.from_file(str(path)).encode("a|||É|||b     c").ids
    assert lengths[ids].sum() == len("a|||É|||b     c".encode())


def test_a_tokenizer_whose_bytes_are_not_known_is_refused(tmp_path: Path, opened: Corpus) -> None:
    assert opened.tokenizer is not None
    with pytest.raises(PipelineError, match="has the id 499; set model.vocab_size to more than that, it is 499"):
        token_bytes(opened.tokenizer, 499)
    path = tmp_path / "tokenizer.json"
    other = json.loads(opened.tokenizer.read_bytes()) | {"decoder": {"type": "Metaspace"}}
    for content, problem in ((json.dumps(other), "is not byte-level BPE"), ("{", "cannot be read"), ("{}", "cannot be read")):
        path.write_text(content)
        with pytest.raises(PipelineError, match=rf"tokenizer\.json: {problem}"):
            token_bytes(path, 500)
    with pytest.raises(PipelineError, match="cannot be read"):
        token_bytes(tmp_path / "none.json", 500)
