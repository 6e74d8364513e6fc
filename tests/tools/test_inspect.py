"""`make inspect`: what it says of instances and documents is what the store holds, and hostile text stays text."""

import io
import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from pipeline import catalog
from pipeline.build import Request, build
from pipeline.errors import ConfigError, PipelineError
from pipeline.progress import Progress
from pipeline.reader import MixReader
from pipeline.stats import open_catalog
from pipeline.store import Store
from pipeline.terminal import UNSEEN, Screen, visible
from tests.pipeline.corpus import write_corpus, write_recipes
from tools.inspect import look
from tools.inspect.words import SEPARATOR, pieces
from tools.s3_server import S3

COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def tokenizer_of(store: Store, mix: str = "small") -> Tokenizer:
    sha256 = MixReader(store.path(f"mixes/{mix}.lock.json")).lock.tokenizer.sha256
    return Tokenizer.from_file(str(store.path(f"tokenizers/{sha256}.json")))


def shown(place: Path | str, mix: str = "small", *, instance: str = "", doc: str = "", source: str = "", dropped: str = "") -> list[str]:
    """What a pipe gets, piece by piece."""
    subject = look.open_subject(mix, "", str(place))
    if instance:
        found = look.instance(subject, instance)
    else:
        found = look.documents(subject, doc, source) if doc else look.listed(subject, source, dropped)
    texts = []
    for draw in found:
        screen = Screen(file=io.StringIO(), width=200)
        draw(subject.drawing(screen, subject.tokenizer()))
        texts.append(screen.file.getvalue())  # type: ignore[attr-defined]
    return texts


def text_of(piece: str) -> str:
    """The text of a document as shown, with its boundaries."""
    return piece.split("\n\n", 1)[1].removesuffix("\n\n")


def queried(store: Store, query: str) -> list[tuple]:
    with open_catalog(store) as connection:
        return connection.execute(query).fetchall()


def test_pieces_are_together_what_the_tokenizer_decodes(built: Store) -> None:
    tokenizer, reader = tokenizer_of(built), MixReader(built.path("mixes/small.lock.json"))
    for index in range(0, len(reader), 7):
        ids = reader[index].tokens.tolist()
        assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids, skip_special_tokens=False)


def test_a_piece_is_a_token_and_a_character_of_several_tokens_is_one_piece(built: Store) -> None:
    tokenizer = tokenizer_of(built)
    plain = tokenizer.encode("the water was so new").ids
    assert list(pieces(tokenizer, plain)) == [tokenizer.decode([number]) for number in plain]
    spread = tokenizer.encode("水").ids
    assert len(spread) == 3  # bytes: the vocabulary has no such letter
    assert list(pieces(tokenizer, [*plain, *spread, *plain])) == [*pieces(tokenizer, plain), "水", *pieces(tokenizer, plain)]


def test_ids_that_make_no_characters_are_shown_in_time_that_grows_with_their_number(built: Store) -> None:
    tokenizer = tokenizer_of(built)
    noise = tokenizer.get_vocab()["Ģ"]  # a byte that only continues a character
    found = list(pieces(tokenizer, [noise] * 20_000))
    assert "".join(found) == "\ufffd" * 20_000
    assert max(map(len, found)) <= 8


def test_an_instance_shows_each_of_its_documents_with_its_own_tokens(built: Store) -> None:
    tokenizer, reader = tokenizer_of(built), MixReader(built.path("mixes/small.lock.json"))
    several = next(index for index in range(len(reader)) if len(reader.documents(index)) > 1)
    for index in (0, several, len(reader) - 1):
        (drawn,) = shown(built.root, instance=str(index))
        head, *documents = drawn.split("\n\n── ")
        place = reader.locate(index)
        assert f"instance {index:,} of small" in head and place.source in head and f"{place.shard}, tokens {place.start:,} to" in head
        assert len(documents) == len(reader.documents(index))
        for span, document in zip(reader.documents(index), documents, strict=True):
            ids = reader[index].tokens[span.start : span.start + span.length].tolist()
            assert f"{span.id} of {place.source}" in document and f"{span.file}#{span.row}," in document
            assert f"tokens {span.start:,} to {span.start + span.length:,} of the instance" in document
            assert text_of(document + "\n\n").rstrip("\n").replace(SEPARATOR, "") == tokenizer.decode(
                ids, skip_special_tokens=False
            ).rstrip("\n")
            assert text_of(document + "\n\n").count(SEPARATOR) >= len(ids) * 0.9 - 2


def test_what_a_reason_dropped_is_what_the_catalog_says_it_dropped(built: Store) -> None:
    for source, reason, count in queried(built, "SELECT source, reason, documents FROM funnel WHERE stage NOT IN ('kept', 'read')"):
        heading, *documents = shown(built.root, source=source, dropped=reason)
        expected = queried(
            built, f"SELECT id, file, row FROM documents WHERE source = '{source}' AND dropped_by = '{reason}' ORDER BY file, row"
        )
        assert heading.startswith(f"{count:,} dropped by {reason}, of {source}") and len(documents) == count == len(expected)
        found = sorted((*re.findall(r"── (.*) of .* ──\nfrom +(.*)#(\d+), ", document)[0],) for document in documents)
        assert found == sorted((name, file, str(row)) for name, file, row in expected)


def test_a_source_is_paged_through_whole(built: Store) -> None:
    documents = shown(built.root, source="wiki")
    fates = Counter(re.search(r"^(kept|dropped) ", document, re.MULTILINE)[1] for document in documents)  # type: ignore[index]
    assert fates == Counter({("kept" if kept else "dropped"): n for kept, n in queried(
        built, "SELECT kept, count(*) FROM documents WHERE source = 'wiki' GROUP BY kept")})  # fmt: skip


def test_a_dropped_document_says_the_rule_and_the_value_it_looked_at(built: Store) -> None:
    stars = dict(queried(built, "SELECT id, stars FROM attributes_code"))
    for document in shown(built.root, source="code", dropped="few_stars")[1:]:
        identity, found = re.search(r"── (\S+) of code[^§]*^because +few_stars: stars < 2, and it has stars (\d)$", document, re.M).groups()  # type: ignore[union-attr]
        assert stars[identity] == int(found) < 2


def test_a_duplicate_names_its_twin_and_a_command_that_shows_it(curated: Store) -> None:
    rows = queried(curated, "SELECT source, id, duplicate_of_source, duplicate_of FROM duplicates WHERE duplicate_of IS NOT NULL")
    assert len(rows) >= 3
    for source, identity, twin_source, twin in rows:
        (document,) = shown(curated.root, "curated", doc=identity, source=source)
        command = f"make inspect MIX=curated STORE={curated.root} SOURCE={twin_source} DOC={twin}"
        assert re.search(rf"^twin +{twin} of {twin_source} stays: {re.escape(command)}$", document, re.MULTILINE)


def test_edits_and_matches_with_evaluations_are_said(curated: Store) -> None:
    rows = queried(curated, 'SELECT source, id, start, "by", replacement FROM edits ORDER BY source, id, start')
    assert len({by for *_, by, _ in rows}) >= 3
    for source, identity, start, by, _ in rows:
        (document,) = shown(curated.root, "curated", doc=identity, source=source)
        assert re.search(rf"^edited +by {re.escape(by)}: '.*' at byte {start:,} is ", document, re.MULTILINE)
    (masked,) = shown(curated.root, "curated", doc="web-040", source="web")
    assert "somebody@example.org" in masked.split("\n\n", 1)[0] and "somebody@example.org" not in text_of(masked).replace(SEPARATOR, "")
    [(source, identity, evaluation, item, matched, total)] = queried(
        curated, "SELECT source, id, evaluation, item, matched, total FROM matches WHERE item = 'planets'"
    )
    (document,) = shown(curated.root, "curated", doc=identity, source=source)
    assert re.search(rf"^overlaps +{item} of {evaluation}, in {matched} of its {total} n-grams$", document, re.MULTILINE)


def test_a_document_s_text_is_that_of_its_shard_and_its_instances_are_those_that_hold_it(built: Store) -> None:
    tokenizer, reader = tokenizer_of(built), MixReader(built.path("mixes/small.lock.json"))
    holding: dict[tuple[str, str], list[int]] = {}
    for index in range(len(reader)):
        for span in reader.documents(index):
            holding.setdefault((reader.locate(index).source, span.id), []).append(index)
    kept = queried(built, "SELECT source, id, shard, start, tokens FROM documents WHERE split = 'train' ORDER BY hash(id) LIMIT 4")
    for source, identity, shard, start, tokens in kept:
        (document,) = shown(built.root, doc=identity, source=source)
        ids = np.fromfile(built.path(shard), "<u2")[start : start + tokens].tolist()
        assert text_of(document).replace(SEPARATOR, "") == tokenizer.decode(ids, skip_special_tokens=False)
        said = re.search(r"^read in +instances? (.*) of small$", document, re.MULTILINE)
        expected = sorted(set(holding.get((source, identity), [])))
        listed = ", ".join(map(str, expected[:12])) + (f" and {len(expected) - 12:,} more" if len(expected) > 12 else "")
        assert (said[1] if said else None) == (listed or None)


def test_a_place_names_a_document_as_well_as_its_id(built: Store) -> None:
    [(identity, file, row)] = queried(built, "SELECT id, file, row FROM documents WHERE source = 'code' ORDER BY id LIMIT 1")
    assert shown(built.root, doc=f"{file}#{row}", source="code") == shown(built.root, doc=identity, source="code")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"mix": "smal", "instance": "0"}, "smal has not been built in"),
        ({"instance": "698"}, "INSTANCE=698: small has instances 0 to 697"),
        ({"instance": "-1"}, "INSTANCE=-1: small has instances 0 to 697"),
        ({"instance": "first"}, "INSTANCE=first: small has instances 0 to 697"),
        ({"doc": "nobody"}, "DOC=nobody: no document of small has that id"),
        ({"source": "wikki"}, "small has no such source; did you mean `wiki`?"),
        ({"source": "code", "dropped": "few_star"}, "did you mean `few_stars`? there are|did you mean `few_stars`?; there are"),
        ({"dropped": "removed_text"}, "it dropped no document of small"),
    ],
)
def test_a_wrong_name_is_refused_with_those_that_there_are(built: Store, wanted: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match="|".join(map(re.escape, message.split("|")))):
        shown(built.root, **wanted)


def test_a_release_shows_kept_documents_and_says_what_it_lacks(built: Store, tmp_path: Path) -> None:
    for name in ("mixes", "shards", "tokenizers"):
        shutil.copytree(built.path(name), tmp_path / name)
    [(kept,)] = queried(built, "SELECT id FROM documents WHERE source = 'wiki' AND split = 'train' LIMIT 1")
    (here,), (there,) = shown(built.root, doc=kept, source="wiki"), shown(tmp_path, doc=kept, source="wiki")
    assert text_of(here) == text_of(there) and "not in this store" in there
    gone = shown(tmp_path, source="code", dropped="few_stars")[1]
    assert re.search(r"^dropped +by few_stars \(filter\)$", gone, re.MULTILINE) and "text        not in this store" in gone
    assert shown(tmp_path, instance="5")


@pytest.mark.parametrize(
    ("file", "said"), [("documents/wiki/*/part-*.parquet", "part-"), ("attributes/wiki/*/attributes.parquet", "attributes")]
)  # fmt: skip
def test_what_is_damaged_is_named_and_not_taken_for_absent(built: Store, tmp_path: Path, file: str, said: str) -> None:
    shutil.copytree(built.root, tmp_path, dirs_exist_ok=True)
    for path in tmp_path.glob(file):
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(PipelineError, match=rf"{said}.*cannot be read .*make verify"):
        shown(tmp_path, source="wiki")


EVIL = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\x9b1m \u202eevil\u2066 [bold]x[/bold] :smile: <script>alert(1)</script>\r\x00\x7f\u2028 שלום"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that someone filled with what a terminal would obey."""
    home = tmp_path_factory.mktemp("hostile")
    recipes, corpus = write_recipes(home / "recipes", drop={"short": "words < 3"}), write_corpus(home / "corpus")
    records = [
        {
            "id": f"evil {EVIL}\n[red]id[/red]",
            "text": f"start {EVIL}\n\tline two " + "word two six " * 9,
            "created": EVIL,
            "metadata": {EVIL: EVIL},
        },
        {"id": "long", "text": "x" * 5_000_000},
        {"id": "short", "text": EVIL[:12]},
    ]
    (corpus / "web" / "evil\x1b[32m.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    build(Request("small", home / "store", str(corpus), workers=1, recipes=recipes, shard_tokens=20_000, scale=True), Progress())
    return home / "store"


def terminal(*words: str, keys: tuple[bytes, ...] = (), **environment: str) -> tuple[int, bytes]:
    """`tokenmill <words>` on a terminal of its own: exit status, all that it shows. keys: pressed when it has nothing more to say."""
    child, screen = pty.fork()
    if not child:
        os.environ.update({"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24", **environment})
        os.execv(sys.executable, [sys.executable, "-m", "tools.cli", *words])
    shown, pressing, until = b"", list(keys), time.monotonic() + 60
    while time.monotonic() < until:
        if select.select([screen], [], [], 0.5)[0]:
            try:
                more = os.read(screen, 1 << 16)
            except OSError:
                break
            if not more:
                break
            shown += more
        elif pressing and shown:
            os.write(screen, pressing.pop(0))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown


@pytest.mark.slow
def test_documents_of_many_parts_and_of_several_shards_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has its own scores and its own text, also one that goes on in further shards."""
    monkeypatch.setattr("pipeline.documents.PART_BYTES", 9_000)
    monkeypatch.setattr("pipeline.documents.GROUP_BYTES", 3_000)
    monkeypatch.setattr("pipeline.stages.read.UNIT_BYTES", 20_000)
    recipes, corpus = write_recipes(tmp_path / "recipes"), write_corpus(tmp_path / "corpus")
    words = " ".join(f"{number:b}"[::-1] for number in range(4_000))
    (corpus / "wiki" / "long.jsonl").write_text(json.dumps({"id": "long", "text": words}) + "\n")
    build(Request("small", tmp_path / "store", str(corpus), workers=1, recipes=recipes, shard_tokens=5_000, scale=True), Progress())
    store = Store(tmp_path / "store")
    tokenizer, texts = tokenizer_of(store), dict[str, str]()
    for path in store.root.glob("documents/*/*/part-*.parquet"):
        table = pq.read_table(path, columns=["id", "text"])
        texts |= dict(zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True))
    for source in ("web", "code", "wiki"):
        units = catalog.read_manifest(store, "small")["sources"][source]["units"]
        assert len(units["tokens"]) >= 3 and len(units["shards"]) >= 2
        scores = dict(queried(store, f"SELECT id, token_repeats FROM attributes_{source}"))
        found = shown(store.root, source=source)
        assert len(found) == len(scores)
        for document in found:
            name = re.search(r"── (.*) of ", document)[1]  # type: ignore[index]
            said = re.search(r"^scores .*token_repeats (\d+)", document, re.MULTILINE)
            assert said and int(said[1]) == scores[name], name
            text = visible(unicodedata.normalize("NFC", texts[name]).strip(), lines=True)
            assert text_of(document).split("\nmore  ")[0].replace(SEPARATOR, "").strip().removesuffix("<|endoftext|>")[:300] in text
    (whole,) = shown(store.root, doc="long")
    assert text_of(whole).replace(SEPARATOR, "") == words + "<|endoftext|>"
    shards = [shard for (shard,) in queried(store, "SELECT shard FROM documents WHERE id = 'long'")]
    assert len(tokenizer.encode(words).ids) > 5_000 and len(shards) == 1
    reader = MixReader(store.path("mixes/small.lock.json"))
    holding = [index for index in range(len(reader)) if any(span.id == "long" for span in reader.documents(index))]
    said = re.search(r"^read in +instances (.*) and (.*) more of small$", whole, re.MULTILINE)
    assert said and said[1] == ", ".join(map(str, holding[:12])) and int(said[2]) == len(holding) - 12
    shutil.rmtree(store.path("tokens"))
    assert text_of(shown(store.root, doc="long")[0]) == text_of(whole)  # from the shards alone


@pytest.mark.slow
def test_nothing_hostile_reaches_a_terminal(hostile: Path) -> None:
    """Neither from documents nor from ids, names of files, metadata; in tables, messages and pages alike."""
    place = ["--store", str(hostile)]
    query = f"SELECT id, file, created FROM read_parquet('{hostile}/documents/web/*/part-*.parquet')"
    for words in (
        ["inspect", "--mix", "small", "--source", "web"],
        ["inspect", "--mix", "small", "--dropped", "short"],
        ["sql", f"{query} WHERE contains(id, 'evil')"],
        ["sql", "--format", "csv", f"{query} WHERE contains(id, 'evil')"],
        ["sql", "--format", "json", f"{query} WHERE contains(id, 'evil')"],
        ["sql", "SELECT file, id FROM documents WHERE contains(id, 'evil')"],
        ["sql", f"SELECT error('{EVIL[:40]}')"],
        ["stats", "--mix", "small"],
    ):
        status, raw = terminal(*words, *place, PAGER="cat")
        text = COLOURS.sub("", raw.decode()).replace("\r\n", "\n")
        assert status == (2 if "error" in words[-1] else 0)
        assert not UNSEEN.search(text), (words, UNSEEN.search(text))
        if words[0] != "stats":
            assert "␛]0;owned␇" in text.replace("\n", "") or "evil" in text or "owned" in text


@pytest.mark.slow
def test_a_pager_shows_a_screenful_and_leaves_when_told_to(hostile: Path) -> None:
    if not shutil.which("less"):
        pytest.skip("less is not installed: apt-get install less")
    words = ["inspect", "--mix", "small", "--source", "web", "--store", str(hostile)]
    status, raw = terminal(*words, keys=(b" ", b"q"))
    assert status == 0
    assert b"shard_0.jsonl.zst#0" in raw and raw.count(b"of web") < 20  # there are 243
    status, raw = terminal(*words, keys=(b"\x03", b"q"))  # Ctrl-C ends what is being made, and not the pager
    assert status == 0 and b"Traceback" not in raw
    assert terminal(*words[:-2], "--dropped", "short", "--store", str(hostile), PAGER="no-such-pager")[0] == 2


@pytest.mark.slow
def test_a_line_of_five_megabytes_is_made_as_far_as_it_is_read(hostile: Path) -> None:
    """In a pipe it is one line; on a terminal it is wrapped. Whoever has seen enough does not wait for the rest."""
    words = ["inspect", "--mix", "small", "--doc", "long", "--store", str(hostile)]
    with subprocess.Popen([sys.executable, "-m", "tools.cli", *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        beginning = process.stdout.read(1_000_000)
        process.stdout.close()
    assert process.returncode == 141 and "\x1b" not in beginning
    assert max(map(len, beginning.splitlines())) > 990_000
    status, raw = terminal(*words, keys=(b" ", b"q"))
    assert status == 0 and len(raw) < 100_000
    assert max(len(line) for line in COLOURS.sub("", raw.decode()).splitlines()) <= 90


@pytest.mark.slow
def test_a_store_at_a_url_is_shown_as_a_folder_is(built: Store, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENMILL_CACHE", str(tmp_path))
    url = f"{s3.bucket()}/store"
    for path in (path for path in built.root.rglob("*") if path.is_file()):
        s3.client.upload_file(str(path), url.split("/")[2], f"store/{path.relative_to(built.root).as_posix()}")
    for wanted in ({"instance": "5"}, {"source": "wiki"}, {"source": "code", "dropped": "few_stars"}):
        here, there = shown(built.root, **wanted), shown(url, **wanted)
        assert [text.replace(str(built.root), url) for text in here] == there
