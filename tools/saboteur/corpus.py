"""A corpus small enough to be built many times in a few minutes, with work for every stage of the pipeline.

Two sources, 160 documents of random words in 7 files; some of them are duplicates of each kind, too short, contaminated, or hold what is
edited out. Out: `<folder>/data/<source>/`, `<folder>/recipes/`. Always the same bytes.
"""

import json
import random
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

MIX = "chaos"
EOS = "<|endoftext|>"
WORDS = "the of and a to in is was it for on with as are be this that by an at from or which one had not but what all were".split()
QUESTION = "Which river did the old surveyors follow for eleven days before they met the first village that had a name on their maps?"
FOOTER = "Copied by hand from the notice board of the reading room, and checked against the original."


def write(folder: Path) -> dict[str, int]:
    """Write corpus and recipes; returns the number of documents by source."""
    found = _documents()
    for name, texts in found.items():
        (folder / "data" / name).mkdir(parents=True)
        lines = [json.dumps({"id": f"{name}-{i}", "text": text, "url": f"https://example.org/{name}/{i}"}) for i, text in enumerate(texts)]
        for number, start in enumerate(range(0, len(lines), 25)):
            (folder / "data" / name / f"{number}.jsonl").write_text("\n".join(lines[start : start + 25]) + "\n")
    _write_recipes(folder / "recipes", list(found))
    return {name: len(texts) for name, texts in found.items()}


def _documents() -> dict[str, list[str]]:
    rng = random.Random(5)
    web = [_text(rng, rng.randrange(60, 200)) for _ in range(120)]
    forum = [_text(rng, 80) for _ in range(40)]
    web[20] = web[21].upper()
    web[30] = f"{web[31]} {_text(rng, 4)}"
    for place in (5, 50, 90):
        web[place] += f"\n{FOOTER}\n{_text(rng, 20)}"
    web[40] += " Write to somebody@example.org, or to nobody."
    web[45] += "\n\n\n\n\nfrom http://192.168.0.1:80/x"
    web[60] += f" {QUESTION} {_text(rng, 30)}"
    web[61] = "few words"
    forum[7] = web[33]
    return {"web": web, "forum": forum}


def _text(rng: random.Random, words: int) -> str:
    return " ".join(rng.choice(WORDS) if rng.random() < 0.8 else f"{rng.choice('aeiou')}{rng.randrange(10**6)}" for _ in range(words))


def _write_recipes(folder: Path, sources: list[str]) -> None:
    for name in ("sources", "filters"):
        (folder / name).mkdir(parents=True)
    _train_tokenizer(folder / "tiny.json")
    (folder / "questions.jsonl").write_text(json.dumps({"id": "river", "question": QUESTION}) + "\n")
    (folder / "filters" / "own.yaml").write_text(
        "name: own\ntitle: own\norigin: here\nprepare: [refinedweb_newlines]\nedit: [pii]\n"
        "attributes:\n  contamination:\n    kind: decontaminate\n    against: questions.jsonl\n"
        "    sets: {rivers: {files: 'questions.jsonl', fields: [question], id: id}}\n"
        "drop: {short: words < 10, contaminated: contamination_items > 0}\n"
    )
    for name in sources:
        (folder / "sources" / f"{name}.yaml").write_text(
            f"name: {name}\ntitle: {name}\nlicence: CC0\nfilters: [own]\ndedupe: [url, exact, near, paragraphs]\n"
        )
    (folder / f"{MIX}.yaml").write_text(
        f"name: {MIX}\ndescription: to be disturbed\ntokenizer: {{file: tiny.json, eos_token: '{EOS}'}}\nsequence_length: 64\nseed: 7\n"
        "dedupe_across: true\nsources: {web: {weight: 3}, forum: {weight: 1}}\n"
    )


def _train_tokenizer(path: Path) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=[EOS], initial_alphabet=alphabet, show_progress=False)
    rng = random.Random(0)
    tokenizer.train_from_iterator((_text(rng, 200) for _ in range(50)), trainer)
    tokenizer.save(str(path))
