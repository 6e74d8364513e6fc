"""A small corpus with everything planted that the pipeline has to find, and the recipes that go with it."""

import gzip
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

EOS = "<|endoftext|>"
WORDS = (
    "the of and a to in is was it for on with as are be this that by an at from or which one had not but what all were when "
    "we there can more if no out so up into them then she many some these would other time two could only new first water"
).split()


def text(rng: random.Random, words: int) -> str:
    """Sentences of random words, with some numbers and accents; no two calls give the same."""
    chosen = [rng.choice(WORDS) if rng.random() < 0.8 else f"{rng.choice('aeioué')}{rng.randrange(10**6)}" for _ in range(words)]
    return " ".join(chosen).capitalize() + "."


def train_tokenizer(path: Path) -> Path:
    """A byte-level BPE tokenizer of 500 ids with the same parts as OLMoE's: NFC, ByteLevel, a special end-of-text token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    rng = random.Random(0)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=[EOS], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator((text(rng, 200) for _ in range(50)), trainer)
    tokenizer.save(str(path))
    return path


def write_recipes(folder: Path, drop: dict[str, str] | None = None, budget: str = "0") -> Path:
    """Recipes of three sources, `web`, `code` and `wiki`, and a mix `small` over them."""
    (folder / "sources").mkdir(parents=True, exist_ok=True)
    (folder / "tokenizers").mkdir(exist_ok=True)
    if not (folder / "tiny.json").exists():
        train_tokenizer(folder / "tiny.json")
    rules = {"repetition": "token_repeats >= 32", **(drop or {})}
    for name, extra in {"web": {}, "code": {"few_stars": "stars < 2"}, "wiki": {"too_short": "unicode_words < 25"}}.items():
        lines = "\n".join(f"  {key}: {sql}" for key, sql in {**extra, **rules}.items())
        (folder / "sources" / f"{name}.yaml").write_text(
            f"name: {name}\ntitle: test {name}\nlicence: CC0\nfailure_budget: {budget}\n"
            "fields: {id: [id, metadata.record], text: [text, content], created: [created], added: [added]}\n"
            f"drop:\n{lines}\n"
        )
    (folder / "small.yaml").write_text(
        "name: small\ndescription: for tests\ntokenizer: {file: tiny.json, eos_token: '<|endoftext|>'}\n"
        "sequence_length: 64\nseed: 7\nepochs: 2\ndedupe_across: true\n"
        "sources: {web: {weight: 80}, code: {weight: 15}, wiki: {weight: 5}}\n"
    )
    return folder


def documents() -> dict[str, list[dict]]:
    """The records of each source, with planted duplicates, repetitions, empty texts and few stars."""
    rng = random.Random(1)
    web = [{"text": text(rng, rng.randrange(30, 300)), "url": f"https://example.org/{i}"} for i in range(240)]
    web[10]["text"] = web[3]["text"]
    web[11]["text"] = "  " + web[3]["text"].upper() + "\n\n"
    web[20]["text"] = text(rng, 40) + " abc" * 64
    web[21]["text"] = "   \n\t "
    web[22]["text"] = f"before {EOS} after, " + text(rng, 40)
    web[23]["text"] = text(rng, 40) + EOS
    web[24]["text"] = text(rng, 20) + "\u2028\u0085 a line separator inside, e\u0301 decomposed"
    code = [{"id": f"repo-{i}", "content": text(rng, 120), "max_stars_count": [None, 0, 1, 2, 24][i % 5]} for i in range(60)]
    code[14]["content"] = web[30]["text"]  # 24 stars: only a duplicate across sources
    wiki = [
        {"id": str(i), "text": text(rng, 60 if i % 6 else 5), "source": "wikipedia", "added": "2024-01-01T00:00:00.000Z",
         "created": "2023-01-01T00:00:00.000Z", "metadata": {"revid": i}} for i in range(60)
    ]  # fmt: skip
    return {"web": web, "code": code, "wiki": wiki}


def write_corpus(folder: Path) -> Path:
    """`web` as two multi-frame .jsonl.zst, `code` as Parquet, `wiki` as multi-member .json.gz."""
    records = documents()
    for name in records:
        (folder / name).mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(record).encode() + b"\n" for record in records["web"]]
    for number, part in enumerate((lines[:150], lines[150:])):
        frames = [zstandard.ZstdCompressor().compress(b"".join(part[i : i + 40])) for i in range(0, len(part), 40)]
        (folder / "web" / f"shard_{number}.jsonl.zst").write_bytes(b"".join(frames))
    pq.write_table(pa.Table.from_pylist(records["code"]), folder / "code" / "train-00000.parquet")
    lines = [json.dumps(record).encode() + b"\n" for record in records["wiki"]]
    members = [gzip.compress(b"".join(lines[i : i + 25])) for i in range(0, len(lines), 25)]
    (folder / "wiki" / "wiki-0000.json.gz").write_bytes(b"".join(members))
    return folder
