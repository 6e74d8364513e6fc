"""Sources, mixes and tokenizers: the recipes that ship, and what is refused when one is written."""

import json
from fractions import Fraction
from pathlib import Path

import pytest

from pipeline.dedupe.methods import Exact
from pipeline.errors import ConfigError
from pipeline.recipe import LocalTokenizer, Mix, load_mix, load_source, load_tokenizer, mix_names, source_names, tokenizer_names

SHA = "0" * 64
SOURCE = {
    "name": "name: code",
    "title": "title: Some code",
    "licence": "licence: MIT",
    "hub": 'hub: {repo: some/code, revision: 99ee6aa, files: ["**/*.parquet"]}',
    "published": "published: {documents: 78.7M, bytes: 325GB, tokens: 101B}",
    "drop": "drop:\n  short: tokens < 5\n  few_stars: stars < 2",
    "sample": f'sample:\n  - {{package: "pypi:a==1.0", file: a.tar.gz, sha256: "{SHA}", licence: MIT, members: ["*.py"]}}',
}
MIX = {
    "name": "name: small",
    "description": "description: two sources",
    "tokenizer": "tokenizer: words",
    "sequence_length": "sequence_length: 8",
    "seed": "seed: 1",
    "sources": "sources:\n  code: {weight: 2, repeats: 3}\n  wiki: {weight: 4}",
}
TOKENIZER = f"name: words\nfile: words.json\nsha256: '{SHA}'\nvocab_size: 10\neos: 9\neos_token: end\n"


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    for folder in ("sources", "tokenizers"):
        (tmp_path / folder).mkdir()
    write(tmp_path / "sources/code.yaml", SOURCE)
    write(tmp_path / "sources/wiki.yaml", SOURCE, name="name: wiki")
    (tmp_path / "tokenizers/words.yaml").write_text(TOKENIZER)
    write(tmp_path / "small.yaml", MIX)
    return tmp_path


def write(path: Path, keys: dict[str, str], **changed: str) -> None:
    path.write_text("\n".join(line for line in (keys | changed).values() if line) + "\n")


def complaint(load: object, name: str, folder: Path) -> str:
    with pytest.raises(ConfigError) as error:
        load(name, folder)  # type: ignore[operator]
    return str(error.value).replace(f"{folder}/", "")


def test_a_source_says_all_that_its_file_says(recipes: Path) -> None:
    source = load_source("code", recipes)
    assert source.published is not None and source.hub is not None
    assert (source.published.documents, source.published.bytes) == (78_700_000, 325_000_000_000)
    assert source.drop == {"short": "tokens < 5", "few_stars": "stars < 2"}
    assert list(source.drop) == ["short", "few_stars"]
    assert source.sample[0].members == ("*.py",)
    assert source.fields["text"] == ("text",)
    assert (source.validation.share, source.validation.documents, source.dedupe) == (0.005, 8, (Exact(),))


def test_a_misspelt_column_is_named_at_its_line(recipes: Path) -> None:
    write(recipes / "sources/code.yaml", SOURCE, drop="drop:\n  short: tokens < 5\n  few_stars: star < 2")
    assert complaint(load_source, "code", recipes).startswith("sources/code.yaml:8: drop.few_stars: unknown column star")
    assert "did you mean stars" in complaint(load_source, "code", recipes)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"name": "name: cod"}, "sources/code.yaml:1: name: the file is called code.yaml; give both the same name"),
        ({"title": "title: ' '"}, "sources/code.yaml:2: title: ' ' is not text that says something"),
        ({"licence": ""}, "sources/code.yaml:1: licence: this key is missing"),
        ({"hub": "hub: {repo: code, revision: a, files: [x]}"}, "sources/code.yaml:4: hub.repo: 'code' is not a hub repository"),
        ({"hub": "hub: {repo: a/b, revision: a, files: []}"}, "sources/code.yaml:4: hub.files: at least one entry is needed"),
        ({"published": ""}, "sources/code.yaml:1: `hub` needs `published` beside it"),
        ({"drop": "drop: {Few: stars < 2}"}, "sources/code.yaml:6: drop.Few: 'Few' is not a name of lower-case letters"),
        ({"dedupe": "dedupe: exat"}, "sources/code.yaml:11: dedupe: 'exat' is not one of 'exact', 'url', 'near', 'paragraphs', 'bff'"),
        ({"fields": "fields: {txt: [a]}"}, "sources/code.yaml:11: fields.txt: unknown key; allowed are 'id', 'text'"),
        ({"fields": "fields: {id: [a]}"}, "sources/code.yaml:11: fields: text is missing"),
        ({"budget": "failure_budget: 101%"}, "sources/code.yaml:11: failure_budget: '101%' is neither a number of records nor"),
        ({"sample": SOURCE["sample"].replace("==", "=")}, "sources/code.yaml:10: sample[0].package: 'pypi:a=1.0' is not pypi:NAME"),
        ({"sample": SOURCE["sample"].replace(SHA, "abc")}, "sources/code.yaml:10: sample[0].sha256: 'abc' is not a sha256"),
        ({"sample": SOURCE["sample"].replace("a.tar", "../a.tar")}, "sources/code.yaml:10: sample[0].file: '../a.tar.gz' is not a"),
        ({"validation": "validation: {share: 1}"}, "sources/code.yaml:11: validation.share: '1' is not a share"),
    ],
)
def test_what_a_source_may_not_say(recipes: Path, changed: dict[str, str], expected: str) -> None:
    write(recipes / "sources/code.yaml", SOURCE, **changed)
    assert complaint(load_source, "code", recipes).startswith(expected)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"sources": "sources:\n  cod: {weight: 1}"}, "small.yaml:7: sources.cod: unknown source `cod`; did you mean `code`?"),
        ({"tokenizer": "tokenizer: word"}, "small.yaml:3: tokenizer: unknown tokenizer `word`; did you mean `words`?"),
        ({"tokenizer": "tokenizer: {file: a.json}"}, "small.yaml:3: tokenizer.eos_token: this key is missing"),
        ({"tokenizer": "tokenizer: a.JSON"}, "small.yaml:3: tokenizer: 'a.JSON' is not a name"),
        ({"sources": "sources: {}"}, "small.yaml:6: sources: at least one entry is needed"),
        ({"sources": "sources: {code: 5}"}, "small.yaml:6: sources.code: expected keys and values, found '5'; allowed are weight"),
        ({"sources": "sources: {code: {weight: 3.86X}}"}, "small.yaml:6: sources.code.weight: '3.86X' is not a number"),
        ({"sources": "sources: {code: {weight: 1, repeats: 0}}"}, "small.yaml:6: sources.code.repeats: '0' must be more than 0"),
        (
            {"sources": "sources: {code: {weight: 1, repeats: 3, max_repeats: 2.5}}"},
            "small.yaml:6: sources.code: max_repeats 2.5 is less than repeats 3",
        ),
        ({"epochs": "epochs: 0"}, "small.yaml:9: epochs: '0' must be more than 0"),
        ({"sequence_length": "sequence_length: 0"}, "small.yaml:4: sequence_length: Input should be greater than or equal to 1"),
        ({"seed": "seed: -1"}, "small.yaml:5: seed: '-1' is not a number"),
        ({"source": "source: {}"}, "small.yaml:9: source: unknown key; did you mean `sources`?"),
    ],
)
def test_what_a_mix_may_not_say(recipes: Path, changed: dict[str, str], expected: str) -> None:
    write(recipes / "small.yaml", MIX, **changed)
    assert complaint(load_mix, "small", recipes).startswith(expected)


def test_an_unknown_name_is_answered_with_the_nearest_and_with_all(recipes: Path) -> None:
    assert complaint(load_mix, "smal", recipes) == "unknown mix `smal`; did you mean `small`? (no smal.yaml; there are small)"
    assert "there are code, wiki" in complaint(load_source, "zzz", recipes)
    assert "did you mean `small`?" in complaint(load_mix, "small.yaml", recipes)
    assert complaint(load_mix, "../small", recipes).startswith("unknown mix `../small`")


def test_shares_are_weight_times_repeats_and_sum_to_one_exactly(recipes: Path) -> None:
    mix = load_mix("small", recipes)
    assert mix.shares == {"code": Fraction(6, 10), "wiki": Fraction(4, 10)}
    assert mix.sources["code"].cap == 3


def test_max_repeats_does_not_change_a_share(recipes: Path) -> None:
    write(recipes / "small.yaml", MIX, sources="sources: {code: {weight: 2, max_repeats: 3}, wiki: {weight: 4}}")
    mix = load_mix("small", recipes)
    assert mix.shares["code"] == Fraction(1, 3)
    assert mix.sources["code"].cap == 3


@pytest.mark.parametrize(("budget", "allowed"), [(0, 0), (7, 7), ("12", 12), ("0.1%", 2), ("100%", 2999)])
def test_a_failure_budget_is_a_number_or_a_share(recipes: Path, budget: str | int, allowed: int) -> None:
    write(recipes / "sources/code.yaml", SOURCE, budget=f"failure_budget: {budget}")
    assert load_source("code", recipes).failures_allowed(2999) == allowed


def test_a_tokenizer_of_ones_own_is_described_by_its_file(recipes: Path) -> None:
    tokenizer = {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [{"id": 7, "content": "<end>"}]}
    (recipes / "mine").mkdir()
    (recipes / "mine/tokenizer.json").write_text(json.dumps(tokenizer))
    write(recipes / "small.yaml", MIX, tokenizer='tokenizer: {file: mine/tokenizer.json, eos_token: "<end>"}')
    mix = load_mix("small", recipes)
    spec = load_tokenizer(mix.tokenizer, recipes)
    assert (spec.name, spec.file, spec.eos, spec.vocab_size) == ("mine", recipes / "mine/tokenizer.json", 7, 8)
    with pytest.raises(ConfigError, match=r"eos_token: .* has no token '<edn>'; did you mean `<end>`"):
        load_tokenizer(LocalTokenizer(file="mine/tokenizer.json", eos_token="<edn>"), recipes)


def test_a_file_that_is_no_tokenizer_is_refused(recipes: Path) -> None:
    (recipes / "bad.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"bad\.json is not a Hugging Face tokenizer\.json"):
        load_tokenizer(LocalTokenizer(file="bad.json", eos_token="x"), recipes)
    with pytest.raises(ConfigError, match=r"gone\.json cannot be read: No such file"):
        load_tokenizer(LocalTokenizer(file="gone.json", eos_token="x"), recipes)


def test_a_tokenizers_eos_must_be_one_of_its_ids(recipes: Path) -> None:
    (recipes / "tokenizers/words.yaml").write_text(TOKENIZER.replace("eos: 9", "eos: 10"))
    assert complaint(load_tokenizer, "words", recipes) == "tokenizers/words.yaml:1: eos 10 is not below vocab_size 10"


def test_the_mixes_that_ship_are_the_published_ones() -> None:
    assert set(mix_names()) >= {
        "olmoe-mix", "olmoe-mix-released-config", "olmoe-anneal", "dolmino-50b", "dolmino-100b", "dolmino-300b",
    }  # fmt: skip
    mixes = {name: load_mix(name) for name in mix_names()}
    # Token shares of the OLMoE-mix card, computed from its rows.
    card = {
        "dclm": 94.88, "starcoder": 2.48, "pes2o": 1.41, "arxiv": 0.519, "open-web-math": 0.312, "algebraic-stack": 0.310, "wiki": 0.0907,
    }  # fmt: skip
    for name in ("olmoe-mix", "olmoe-anneal"):
        assert {source: float(share) * 100 for source, share in mixes[name].shares.items()} == pytest.approx(card, rel=5e-3)
    assert float(mixes["olmoe-mix-released-config"].shares["wiki"]) * 100 == pytest.approx(0.181, rel=5e-3)
    assert (mixes["olmoe-mix"].seed, mixes["olmoe-anneal"].seed) == (6198, 42)
    assert mixes["olmoe-mix"].tokens == mixes["olmoe-mix-released-config"].tokens == 5_133 * 10**9
    assert mixes["olmoe-anneal"].tokens == 23_842 * 1024 * 4096
    assert float(mixes["dolmino-100b"].shares["dolmino-dclm"]) == pytest.approx(0.5023, abs=1e-4)
    for size in (50, 100, 300):
        mix = mixes[f"dolmino-{size}b"]
        assert mix.tokens == (23_842 * 1024 * 4096 if size == 100 else size * 10**9)
        assert sum(source.weight for source in mix.sources.values()) == pytest.approx(100, abs=0.1)


def test_every_shipped_declaration_loads_and_is_used() -> None:
    used = {source for name in mix_names() for source in load_mix(name).sources}
    for source in used:
        assert load_source(source).sample, f"{source} has no offline sample"
    assert set(source_names()) == used
    for name in tokenizer_names():
        load_tokenizer(name)


def test_the_shipped_tokenizer_closes_documents_with_endoftext() -> None:
    spec = load_tokenizer("gpt-neox-olmo-dolma-v1_5")
    assert (spec.vocab_size, spec.eos, spec.eos_token, spec.pad) == (50280, 50279, "<|endoftext|>", 1)


def test_a_mix_is_the_same_however_it_was_made(recipes: Path) -> None:
    made = Mix(
        name="small", description="two sources", tokenizer="words", sequence_length=8, seed=1,
        sources={"code": {"weight": 2, "repeats": 3}, "wiki": {"weight": 4}},
    )  # fmt: skip
    assert made == load_mix("small", recipes)
