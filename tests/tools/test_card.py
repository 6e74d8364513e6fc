"""The data card of a mix: what it says is so, by other means; its files are what they claim; hostile text stays text."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import mlcroissant
import pyarrow.parquet as pq
import pytest
import yaml
from etils import epath
from huggingface_hub import DatasetCard
from markdown_it import MarkdownIt

from pipeline.build import Request, build
from pipeline.errors import ConfigError, PipelineError
from pipeline.progress import Progress
from pipeline.release import Books
from pipeline.store import Store
from pipeline.unit import sealed
from tests.pipeline.curated import made, write_all
from tests.pipeline.hub_server import COMMIT, Hub
from tests.pipeline.test_hub_mix import hub, hub_recipes  # noqa: F401
from tools.card import croissant, data_card, licences
from tools.card.command import card_of_mix, folder_of, write_card
from tools.card.croissant import check
from tools.card.front_matter import size_category
from tools.card.markdown import code, table, text
from tools.card.mix_facts import Facts, gather
from tools.card.rebuild import place, rebuild
from tools.push.contents import contents

if TYPE_CHECKING:
    from tools.s3_server import S3

HOSTILE = [
    "<script>alert(1)</script>",
    "a | b |\n| c | d |\n\n# heading",
    "[click](http://evil.example) ![x](//evil.example/x.png) <http://evil.example>",
    "\x1b[31mred\x07 \u202egnp.exe \u200b zero",
    "`code` ``two`` *stars* __under__ ~~gone~~ $math$ http://evil.example www.evil.example &lt; \\",
    "1. a list",
    "x" * 100_000,
]


class Read(HTMLParser):
    """What a browser would make of a page: elements, links, text, and of each table its rows."""

    def __init__(self, markdown: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.links: list[str] = []
        self.text, self.in_cell = "", False
        self.tables: list[list[list[str]]] = []
        self.feed(MarkdownIt("commonmark").enable("table").enable("strikethrough").render(markdown))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.in_cell:
            self.tables[-1][-1][-1] += data

    def table(self, *header: str) -> list[list[str]]:
        """The rows under the header that begins so."""
        (found,) = [rows for rows in self.tables if tuple(rows[0][: len(header)]) == header]
        return found[1:]


@pytest.fixture(scope="module")
def card(curated: Store, curated_home: Path) -> dict[str, bytes]:
    return card_of_mix(curated, "curated", recipes=curated_home / "recipes")


@pytest.fixture
def facts(curated: Store, curated_home: Path) -> Facts:
    return gather(curated, "curated", curated_home / "recipes")


def body(card: dict[str, bytes]) -> str:
    return card["README.md"].decode().split("\n---\n", 1)[1]


def ledgers(store: Store) -> list[dict]:
    """Every row of the ledgers, with its source."""
    rows = []
    for path in sorted(store.root.glob("shards/*/*/ledger.parquet")):
        rows += [{**row, "source": path.parts[-3]} for row in pq.read_table(path, partitioning=None).to_pylist()]
    return rows


def test_the_funnel_and_the_rules_are_those_of_the_ledgers(curated: Store, card: dict[str, bytes]) -> None:
    page = Read(body(card))
    dropped: Counter[tuple[str, str, str]] = Counter()
    for row in ledgers(curated):
        dropped[row["source"], *(("kept", row["split"]) if row["kept"] else (row["stage"], row["dropped_by"]))] += 1
    shown = {(source, stage, reason): documents for source, stage, reason, documents, *_ in page.table("source", "stage", "reason")}
    assert {key: int(count) for key, count in shown.items() if key[1] != "read" and count != "0"} == dropped
    assert sum(int(count) for key, count in shown.items() if key[1] == "read") == len(ledgers(curated)) == 160
    rules = {(row[0], row[1]): row[2:5] for row in page.table("source", "rule", "drops where")}
    assert rules["web", "own/contaminated"] == ["contamination_items > 0", "here", "1"]
    assert rules["forum", "own/short"] == ["words < 10", "here", "0"]  # a rule that drops nothing is there, too


def test_edits_and_matches_are_those_that_were_planted(card: dict[str, bytes]) -> None:
    page = Read(body(card))
    edits = {row[1]: row[2:] for row in page.table("source", "rule", "documents", "spans")}
    assert edits["email"] == ["1", "1", str(len("somebody@example.org") - len("|||EMAIL_ADDRESS|||"))]
    assert edits["paragraphs"][:2] == ["2", "2"]  # the footer, which stands three times
    assert page.table("source", "evaluation") == [["web", "astronomy", "1", "1"]]


def test_a_sources_own_rule_comes_from_the_comment_above_it_and_a_filters_from_its_origin(
    built: Store, tmp_path: Path, recipes: Path
) -> None:
    own = shutil.copytree(recipes, tmp_path / "recipes")
    path = own / "sources" / "code.yaml"
    path.write_text(path.read_text().replace("  few_stars:", "  # The card, this source:\n  # two stars at least.\n  few_stars:"))
    source = next(source for source in gather(built, "small", own).sources if source.name == "code")
    assert source.origin("few_stars") == "The card, this source: two stars at least."
    assert source.origin("repetition") == source.origin("few_stars")  # it follows without a comment of its own
    path.write_text(path.read_text().replace("stars < 2", "stars < 3"))
    changed = gather(built, "small", own)
    assert next(source for source in changed.sources if source.name == "code").origin("few_stars") == ""
    assert rebuild(changed, built).doubts == ("sources/code.yaml, or a filter that it names, has other rules now",)


def test_every_file_of_the_distribution_has_the_sha256_that_is_stated(curated: Store, card: dict[str, bytes]) -> None:
    found = [file for file in json.loads(card["croissant.json"])["distribution"] if file["@type"] == "cr:FileObject"]
    assert {file["contentUrl"].rsplit(".", 1)[1] for file in found} == {"bin", "json", "parquet"}
    for file in found:
        content = (curated.root / file["contentUrl"]).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), f"{len(content)} B") == (file["sha256"], file["contentSize"])
    shards = {path.relative_to(curated.root).as_posix() for path in curated.root.glob("shards/*/*/*") if path.name != "record.json"}
    assert shards <= {file["contentUrl"] for file in found}


def test_record_sets_are_read_by_the_library_out_of_a_folder(curated: Store, card: dict[str, bytes], tmp_path: Path) -> None:
    shutil.copytree(curated.root / "shards", tmp_path / "shards")
    stranger = tmp_path / "shards" / "web" / ("0" * 32)  # a unit of another mix in the same folder
    shutil.copytree(next(tmp_path.glob("shards/web/*")), stranger)
    (tmp_path / "croissant.json").write_bytes(card["croissant.json"])
    dataset = mlcroissant.Dataset(tmp_path / "croissant.json")
    rows = ledgers(curated)
    found = list(dataset.records("documents"))
    names = [name.removeprefix("documents/") for name in found[0]]
    assert set(names) == rows[0].keys()

    def plain(row: dict) -> tuple:
        values = [row[name] for name in names]
        return tuple(
            value.decode() if isinstance(value, bytes) else tuple(v.decode() if isinstance(v, bytes) else v for v in value)
            if isinstance(value, list) or hasattr(value, "tolist") else value
            for value in values
        )  # fmt: skip

    records = [plain({name.removeprefix("documents/"): value for name, value in record.items()}) for record in found]
    assert sorted(records, key=str) == sorted((plain(row) for row in rows), key=str)
    placed = [record["train/shard"].decode() for record in dataset.records("train")]
    assert len(placed) == sum(row["split"] == "train" for row in rows) and all((tmp_path / f"{shard}.bin").exists() for shard in placed)
    in_place = mlcroissant.Context(folder=epath.Path(curated.root))  # as docs/formats.md has it
    metadata = mlcroissant.Metadata.from_json(in_place, json.loads(card["croissant.json"]))
    assert len(list(mlcroissant.Dataset.from_metadata(metadata).records("documents"))) == len(rows)


def test_metadata_with_a_warning_is_refused(card: dict[str, bytes]) -> None:
    found = json.loads(card["croissant.json"])
    check("curated", found)
    with pytest.raises(PipelineError, match="citeAs"):
        check("curated", {key: value for key, value in found.items() if key != "citeAs"})


def test_the_front_matter_is_the_hubs_and_its_patterns_name_files(curated: Store, card: dict[str, bytes]) -> None:
    data = DatasetCard(card["README.md"].decode()).data.to_dict()
    assert data["license"] == "cc0-1.0" and data["size_categories"] == ["n<1K"] and data["task_categories"] == ["text-generation"]
    assert data == yaml.safe_load(card["README.md"].decode().split("---\n")[1])
    patterns = [file["path"] for file in data["configs"][0]["data_files"]] + [data["configs"][1]["data_files"]]
    assert patterns and all(list(curated.root.glob(pattern)) for pattern in patterns)
    assert [size_category(count) for count in (1, 999, 1_000, 9_999, 10_000, 10**12, 10**15)] == [
        "n<1K", "n<1K", "1K<n<10K", "1K<n<10K", "10K<n<100K", "n>1T", "n>1T",
    ]  # fmt: skip


def test_only_one_known_licence_has_a_name_of_the_hub() -> None:
    assert licences.identifiers(["MIT", "CC0", "LGPL-2.1-or-later", "MIT OR LGPL-3.0-or-later", "Apache-2.0 (Batteries)"]) == [
        "cc0-1.0", "lgpl-2.1", "mit", "other",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="did you mean `apache-2.0`"):
        licences.check("apache2.0")


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_text_in_paragraphs_and_tables(hostile: str) -> None:
    page = Read(f"{text(hostile)}\n\n{table(['name', 'value'], [[code(hostile), text(hostile)]], left=2)}\n")
    assert page.tags.keys() <= {"p", "table", "thead", "tbody", "tr", "th", "td", "code"} and not page.links
    assert [len(row) for row in page.tables[0]] == [2, 2]
    assert not set(page.text) & set("\x1b\x07\u202e\u200b") and len(page.text) < 10_000
    plain = " ".join(hostile.split())
    if plain.isprintable() and len(plain) < 2_000:
        assert [" ".join(cell.split()) for cell in page.tables[0][1]] == [plain, plain]  # nothing is lost, either


def test_a_hostile_recipe_gives_a_card_of_the_same_shape(facts: Facts, curated: Store, card: dict[str, bytes]) -> None:
    again = rebuild(facts, curated)
    plain = Read(data_card.write(facts, again, curated).decode())
    for hostile in HOSTILE[:5]:
        built = {**facts.sources[0].built, "title": hostile, "licence": [hostile], "origin": [hostile], "failed": {hostile: 3}}
        built["funnel"] = [*built["funnel"], {"stage": hostile, "reason": hostile, "documents": 1, "bytes": 2, "tokens": 3}]
        worse = replace(facts, sources=(replace(facts.sources[0], built=built), *facts.sources[1:]))
        readme = data_card.write(worse, again, curated).decode()
        page = Read(readme.split("\n---\n", 1)[1])
        assert set(page.tags) <= set(plain.tags) and "script" not in page.tags
        assert not [link for link in page.links if "evil" in link]
        assert yaml.safe_load(readme.split("---\n")[1])["license"] == ["cc0-1.0", "other"]
        assert not set(readme) & set("\x1b\x07\u202e")
        croissant.write(worse)
        assert not [line for line in data_card.licence_file(worse).decode().split("\n") if line.startswith(("# heading", "<"))]


def test_what_is_missing_or_damaged_is_named(curated: Store, curated_home: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has not been built"):
        gather(curated, "other", curated_home / "recipes")
    copy = Store(shutil.copytree(curated.root, tmp_path / "store"))
    ledger = next(copy.root.glob("shards/web/*/ledger.parquet"))
    ledger.write_bytes(ledger.read_bytes()[:-1])
    with pytest.raises(PipelineError, match=r"shards/web/\w+/ledger\.parquet .* bytes were written; run make verify MIX=curated REMOVE=1"):
        gather(copy, "curated", curated_home / "recipes")
    next(copy.root.glob("tokenizers/*.json")).write_bytes(b"{}")
    with pytest.raises(PipelineError, match=r"tokenizers/\w+\.json .* has the sha256 44136fa"):
        gather(copy, "curated", curated_home / "recipes")


def test_without_the_library_it_is_said_what_installs_it(monkeypatch: pytest.MonkeyPatch, curated: Store) -> None:
    monkeypatch.setitem(sys.modules, "mlcroissant", None)
    monkeypatch.delitem(sys.modules, "tools.card.croissant")
    monkeypatch.delattr("tools.card.croissant", raising=False)
    with pytest.raises(ConfigError, match="make card installs it"):
        card_of_mix(curated, "curated")


def test_a_card_replaces_the_one_before(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write_card(store, "mix", {"README.md": b"old", "recipes/sources/gone.yaml": b""})
    write_card(store, "mix", {"README.md": b"new"})
    assert store.files("mixes") == {f"{folder_of('mix')}/README.md": 3} and store.read(f"{folder_of('mix')}/README.md") == b"new"


def test_no_place_on_this_machine_and_no_secret_is_told(card: dict[str, bytes], curated_home: Path) -> None:
    assert not [
        name for name, content in card.items() if str(curated_home).encode() in content or str(curated_home.parent).encode() in content
    ]
    assert place("https://me:secret@host/data?token=1#x") == "https://host/data"


def test_what_no_rule_does_is_a_known_gap(built: Store, recipes: Path, card: dict[str, bytes]) -> None:
    gaps = Read(card_of_mix(built, "small", recipes=recipes)["README.md"].decode()).text.split("Known gaps")[1]
    for sentence in ("not masked in any source", "items were looked for in any source", "spells the end-of-document token"):
        assert sentence in gaps
    assert "Near-duplicates were not looked for" in gaps and "Near-duplicates were not looked for" not in body(card)


def test_a_mix_that_was_read_from_a_release_says_so_and_is_the_same_files(
    curated: Store, curated_home: Path, card: dict[str, bytes], tmp_path: Path
) -> None:
    for name in ("shards", "tokenizers", "mixes"):
        shutil.copytree(curated.root / name, tmp_path / name)
    books = contents(curated, "curated", "some/curated", {}).small["mixes/curated.build.json"]
    origin = {"repository": "some/curated", "revision": "main", "commit": "c" * 40}
    manifest = {**Books.from_json(books).model_dump(mode="json"), "data": "some/curated", "release": origin}
    (tmp_path / "mixes/curated.build.json").write_bytes(sealed(manifest))
    again = card_of_mix(Store(tmp_path), "curated", "me/copy", curated_home / "recipes")
    found, before = json.loads(again["croissant.json"]), json.loads(card["croissant.json"])
    assert found["distribution"] == before["distribution"] and found["url"] == "https://huggingface.co/datasets/me/copy"
    assert f"make mix MIX=curated DATA=some/curated@{'c' * 40}\n" in body(again) and "make mix MIX=curated DATA=me/copy\n" in body(again)
    page = Read(body(again))
    assert "The text of web, forum is not in this store" in page.text and "### Edits" not in body(again)
    assert page.table("source", "rule", "drops where") == Read(body(card)).table("source", "rule", "drops where")


@pytest.mark.slow
def test_the_command_and_the_recipes_of_a_card_make_the_same_lock_file(
    curated: Store, curated_home: Path, card: dict[str, bytes], tmp_path: Path
) -> None:
    """Elsewhere, with nothing but the card, the data and tokenmill. (`--workers 1`, for there is no Ray in this test.)"""
    for name, content in card.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    shutil.copytree(curated_home / "data", tmp_path / "corpus")
    block = body(card).split("## Building it again")[1].split("```sh\n")[1].split("```")[0].splitlines()
    (command,) = [line for line in block if line.startswith(".venv/bin/tokenmill ")]
    words = command.replace("--data data ", "--data corpus ").split()[1:]  # data is where the store goes
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r}); from tools.cli import main; main()"
    subprocess.run([sys.executable, "-c", program, *words, "--workers", "1"], cwd=tmp_path, check=True)
    expected = block[-1].split()[-1]
    assert hashlib.sha256((tmp_path / "data/mixes/curated.lock.json").read_bytes()).hexdigest() == expected
    assert curated.path("mixes/curated.lock.json").read_bytes() == (tmp_path / "data/mixes/curated.lock.json").read_bytes()


@pytest.mark.slow
def test_a_card_is_of_its_own_mixs_units_when_a_later_mix_has_other_rules(tmp_path: Path) -> None:
    home = write_all(tmp_path)
    store = made(home)
    before = card_of_mix(store, "curated", recipes=home / "recipes")
    later = shutil.copytree(home / "recipes", tmp_path / "later")
    (later / "curated.yaml").rename(later / "second.yaml")
    for path, old, new in ((later / "second.yaml", "name: curated", "name: second"), (later / "filters/own.yaml", "edit: [pii]\n", "")):
        path.write_text(path.read_text().replace(old, new))
    build(Request("second", store.root, str(home / "data"), workers=1, recipes=later, scale=True), Progress())
    assert card_of_mix(store, "curated", recipes=home / "recipes") == before
    other = Read(card_of_mix(store, "second", recipes=later)["README.md"].decode())
    assert "email" not in {row[1] for row in other.table("source", "rule", "documents", "spans")}


@pytest.mark.slow
def test_from_the_hub_it_tells_revisions_and_what_publishers_state_and_takes_the_same_files_again(
    hub: Hub,  # noqa: F811
    hub_recipes: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Whole sources, then as many files as a budget asks for."""
    for tokens, wanted in ((None, "--data hub --recipes"), (10_000, "--data hub --tokens 9984 ")):
        store = Store(tmp_path / f"{tokens}")
        build(Request("small", store.root, "hub", tokens=tokens, workers=1, recipes=hub_recipes, scale=True), Progress())
        hub.log.clear()
        readme = card_of_mix(store, "small", recipes=hub_recipes)["README.md"].decode()
        assert hub.log == [] and wanted in readme and "may not give the same bytes" not in readme
        page = Read(readme.split("\n---\n", 1)[1])
        assert DatasetCard(readme).data.source_datasets == ["some/code", "some/web", "some/wiki"]
        assert [row[3] for row in page.table("source", "what it is")] == [f"hf:some/{name}@{COMMIT}" for name in ("web", "code", "wiki")]
        assert "the web of this release is a test" in page.text
        whole = page.table("source", "taken")[0]
        assert whole[1:4] == ["100.0%", "239", "238 (-0.4%)"] if tokens is None else whole[1] != "100.0%"
        shutil.rmtree(store.path("downloads/hub"))
        readme = card_of_mix(store, "small", recipes=hub_recipes)["README.md"].decode()
        assert hub.log == [] and "may not give the same bytes: which files of the hub were taken" in readme


@pytest.mark.slow
def test_a_store_in_a_bucket_gives_the_card_of_the_one_in_a_folder(
    built: Store, recipes: Path, corpus: Path, s3: "S3", machine: Callable[[str], None]
) -> None:
    store = Store(f"{s3.bucket()}/some/prefix")
    build(Request("small", store.place, str(corpus), workers=1, recipes=recipes, shard_tokens=20_000, scale=True), Progress())
    machine("second")  # which has no copies
    card = card_of_mix(Store(store.place), "small", recipes=recipes)
    assert card == card_of_mix(built, "small", recipes=recipes)
    write_card(store, "small", card)
    assert s3.content(f"{store.place}/{folder_of('small')}/README.md") == card["README.md"]


@pytest.mark.slow
def test_the_librarys_own_program_and_the_command_agree(curated: Store, curated_home: Path, tmp_path: Path) -> None:
    store = shutil.copytree(curated.root, tmp_path / "store")
    words = ["card", "--mix", "curated", "--store", str(store), "--recipes", str(curated_home / "recipes")]
    told = subprocess.run([sys.executable, "-m", "tools.cli", *words], check=True, capture_output=True, text=True).stdout
    assert f"{store}/mixes/curated.card/: README.md, croissant.json, LICENSE.md" in told
    program = Path(sys.executable).with_name("mlcroissant")
    path = store / "mixes/curated.card/croissant.json"
    done = subprocess.run([program, "validate", "--jsonld", path], check=True, capture_output=True, text=True)
    assert "WARNING" not in done.stderr.upper() and "Done" in done.stderr
