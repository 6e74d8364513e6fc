"""A small corpus with something planted for every rule, edit and way of deduplication, and the recipes that go with it."""

import json
import random
from pathlib import Path

from pipeline.build import Request, build
from pipeline.progress import Progress
from pipeline.store import Store
from tests.pipeline.corpus import text, train_tokenizer

EVALUATION = (
    "Which of the planets that circle the sun is so far away that nobody had seen it before the year eighteen hundred and forty six?"
)
FOOTER = "This page was made with care by people who hope that you enjoy it as much as they did."
MAIL = "somebody@example.org"


def records() -> dict[str, list[dict]]:
    """Two sources with everything planted that the rules have to find."""
    rng = random.Random(3)
    web = [{"id": f"web-{i:03d}", "text": text(rng, rng.randrange(60, 200)), "url": f"https://example.org/{i}"} for i in range(120)]
    for i in (5, 50, 90):
        web[i]["text"] += "\n" + FOOTER + "\n" + text(rng, 20)
    web[10]["url"] = "http://www.example.org/11/"
    web[20]["text"] = web[21]["text"].upper()
    words = web[30]["text"].split()
    web[31]["text"] = " ".join([*words[: len(words) // 2], "inserted", *words[len(words) // 2 :]])
    web[40]["text"] += f" Write to {MAIL}, or to nobody."
    web[45]["text"] = text(rng, 40) + " http://192.168.0.1:80/x " + text(rng, 40) + "\n\n\n\n\n" + text(rng, 9)
    web[60]["text"] = text(rng, 60) + " " + EVALUATION + " " + text(rng, 60)
    web[61]["text"] = "few words"
    forum = [{"id": f"forum-{i:03d}", "text": text(rng, 80), "url": ""} for i in range(40)]
    forum[7]["text"] = FOOTER
    forum[8]["text"] = web[33]["text"]
    return {"web": web, "forum": forum}


def write_all(folder: Path, across: bool = False, steps: str = "[url, exact, near, paragraphs]") -> Path:
    recipes = folder / "recipes"
    for name in ("sources", "filters"):
        (recipes / name).mkdir(parents=True)
    train_tokenizer(recipes / "tiny.json")
    (recipes / "evaluation.jsonl").write_text(json.dumps({"id": "planets", "question": EVALUATION}) + "\n")
    (recipes / "filters" / "own.yaml").write_text(
        "name: own\ntitle: own\norigin: here\nprepare: [refinedweb_ip_addresses, refinedweb_newlines]\nedit: [pii]\n"
        "attributes:\n  contamination:\n    kind: decontaminate\n    against: evaluation.jsonl\n"
        "    sets: {astronomy: {files: 'evaluation.jsonl', fields: [question], id: id}}\n"
        "drop: {short: words < 10, contaminated: contamination_items > 0}\n"
    )
    for name, found in records().items():
        (recipes / "sources" / f"{name}.yaml").write_text(
            f"name: {name}\ntitle: {name}\nlicence: CC0\nfilters: [own]\ndedupe: {steps}\nvalidation: {{share: 0, documents: 0}}\n"
        )
        (folder / "data" / name).mkdir(parents=True)
        lines = [json.dumps(record) + "\n" for record in found]
        for number, start in enumerate(range(0, len(lines), 50)):
            (folder / "data" / name / f"{number}.jsonl").write_text("".join(lines[start : start + 50]))
    (recipes / "curated.yaml").write_text(
        "name: curated\ndescription: for tests\ntokenizer: {file: tiny.json, eos_token: '<|endoftext|>'}\nsequence_length: 64\n"
        f"seed: 7\ndedupe_across: {str(across).lower()}\nsources: {{web: {{weight: 3}}, forum: {{weight: 1}}}}\n"
    )
    return folder


def made(folder: Path, store: str = "store", workers: int = 1) -> Store:
    request = Request("curated", folder / store, str(folder / "data"), workers=workers, recipes=folder / "recipes", scale=True)
    build(request, Progress())
    return Store(folder / store)
