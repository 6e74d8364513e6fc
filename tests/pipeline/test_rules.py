"""What a source's filters, attributes and edits may say, and how a mistake is named."""

import re
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.fetch import attribute_files
from pipeline.progress import Progress
from pipeline.recipe import MIXES, filter_names
from pipeline.rules import load_filter, load_rules
from pipeline.store import Store
from pipeline.taggers import SPANS, TAGGERS
from pipeline.taggers.kinds import KINDS

DOCS = (MIXES.parent / "docs" / "filters.md").read_text("utf-8")


def write(recipes: Path, source: str = "", **filters: str) -> Path:
    (recipes / "sources").mkdir(parents=True, exist_ok=True)
    (recipes / "filters").mkdir(exist_ok=True)
    (recipes / "sources" / "web.yaml").write_text(f"name: web\ntitle: web\nlicence: CC0\n{source}\n")
    for name, rules in filters.items():
        (recipes / "filters" / f"{name}.yaml").write_text(f"name: {name}\ntitle: {name}\norigin: here\n{rules}\n")
    return recipes


def complaint(recipes: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        load_rules("web", recipes)
    return str(refused.value).removeprefix(f"{recipes}/")


@pytest.mark.parametrize("name", filter_names())
def test_every_filter_that_is_shipped_can_be_used_and_is_described(tmp_path: Path, name: str) -> None:
    _, rules = load_rules("web", write(tmp_path, f"filters: [{name}]\ndrop: {{own: words < 3}}"))
    assert next(iter(rules.drop)) == "own"
    assert all(reason.startswith(f"{name}/") for reason in list(rules.drop)[1:])
    assert rules.drop.keys() > {"own"} or rules.edit
    assert f"`{name}`" in DOCS


def test_every_attribute_and_editor_is_described() -> None:
    described = set(re.findall(r"[a-z][a-z0-9_]+", DOCS))
    for first, last, stem in re.findall(r"(\w+?)_(?:\d+)gram_share … \w+?_(\d+)gram_share()", DOCS):
        described |= {f"{first}_{n}gram_share" for n in range(5, int(last) + 1)} | {stem}
    columns = {column for tagger in TAGGERS.values() for column in tagger.columns}
    assert columns - described == set()
    assert {tagger.name for tagger in TAGGERS.values() if tagger.tables.get("spans") == SPANS} - described == set()
    assert KINDS.keys() - described == set()


@pytest.mark.parametrize(
    ("source", "filters", "expected"),
    [
        ("filters: [gopher-dolmo]", {}, "sources/web.yaml:4: filters[0]: unknown filter `gopher-dolmo`; did you mean `gopher-dolma`?"),
        ("filters: [c4, c4]", {}, "sources/web.yaml:4: filters[1]: c4 is named twice; remove one"),
        ("edit: [pi]", {}, "sources/web.yaml:4: edit[0]: pi is no tagger and no attribute; did you mean `pii`?"),
        ("prepare: [gopher_dolma]", {}, "sources/web.yaml:4: prepare[0]: gopher_dolma gives no spans"),
        ("attributes: {q: {kind: fastext}}", {}, "sources/web.yaml:4: attributes.q.kind: unknown kind `fastext`; did you mean `fasttext`?"),
        ("attributes: {q: {model: a.bin}}", {}, "sources/web.yaml:4: attributes.q.kind: this key is missing; there are"),
        ("attributes: {q: {kind: fasttext, model: m, lab: x}}", {}, "sources/web.yaml:4: attributes.q.lab: unknown key; did you mean"),
        ("attributes: {stars: {kind: fasttext, model: a.bin}}", {}, "sources/web.yaml:4: attributes.stars: the column stars is stars's"),
        ("drop: {bad: q < 1}", {}, "sources/web.yaml:4: drop.bad: unknown column q in 'q < 1'"),
        ("dedupe: [exact, neer]", {}, "sources/web.yaml:4: dedupe[1]: 'neer' is not one of 'exact', 'url', 'near', 'paragraphs', 'bff'"),
        ("dedupe: [{method: near, band: 3}]", {}, "sources/web.yaml:4: dedupe[0].band: unknown key"),
        ("dedupe: [near, {method: near, bands: 20}]", {}, "sources/web.yaml:4: dedupe: near is named twice; remove one"),
        ("filters: [own]", {"own": "drop: {low: qual < 1}"}, "filters/own.yaml:4: drop.low: unknown column qual"),
        (
            "filters: [one, two]",
            {
                name: f"attributes: {{q: {{kind: fasttext, model: {name}.bin}}}}\ndrop: {{low: q < 1}}"
                for name in ("one", "two")
            },
            "sources/web.yaml:4: filters[1]: two different attributes are called q; rename one of them",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_named_at_its_line(tmp_path: Path, source: str, filters: dict[str, str], expected: str) -> None:
    assert complaint(write(tmp_path, source, **filters)).startswith(expected)


def test_filters_share_an_attribute_that_they_declare_alike_and_ones_own_filter_stands_in_for_ours(tmp_path: Path) -> None:
    attribute = "attributes: {q: {kind: fasttext, model: one.bin}}\ndrop: {low: q < 1}"
    _, rules = load_rules("web", write(tmp_path, "filters: [one, c4]\ndrop: {very_low: q < 0.1}", one=attribute, c4=attribute))
    assert rules.drop == {"very_low": "q < 0.1", "one/low": "q < 1", "c4/low": "q < 1"}
    assert [each.name for each in rules.used_attributes] == ["q"]
    assert load_filter("c4").drop.keys() != load_filter("c4", tmp_path).drop.keys()


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    source = "attributes: {q: {kind: fasttext, model: models/one.bin}}\ndrop: {low: q < 1}"
    _, rules = load_rules("web", write(tmp_path / "recipes", source))
    with pytest.raises(ConfigError, match=r"attribute q: model is models/one\.bin, and there is no file .*recipes/models/one\.bin"):
        attribute_files(rules.used_attributes, Store(tmp_path / "store"), Progress())
    (tmp_path / "recipes" / "models").mkdir()
    (tmp_path / "recipes" / "models" / "one.bin").write_bytes(b"model")
    [file] = attribute_files(rules.used_attributes, Store(tmp_path / "store"), Progress())["q"]["model"]
    assert (file.name, file.bytes) == ("models/one.bin", 5)
