"""A store on object storage: units, the cache, the lease and a whole mix, against a real S3 protocol server on loopback."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from pipeline import catalog, lease
from pipeline.build import Request, build
from pipeline.errors import PipelineError
from pipeline.files import sha256_of
from pipeline.preview import preview, rules_for
from pipeline.progress import Progress
from pipeline.stats import open_catalog
from pipeline.store import Store
from pipeline.unit import Artifact, Record, Unit
from tools.s3_server import S3

OUTPUTS = {"a.bin": bytes(range(256)) * 40, "b.parquet": b"narrow"}


@pytest.fixture
def place(s3: S3) -> str:
    return f"{s3.bucket()}/some/prefix"


def unit(number: int = 0) -> Unit:
    return Unit("documents", 1, "web", (Artifact(f"raw-{number}", f"{number}", 3),))


def publish(store: Store, one: Unit, outputs: dict[str, bytes] = OUTPUTS) -> Record:
    with store.work_folder(one) as folder:
        for name, content in outputs.items():
            (folder / name).write_bytes(content)
        return store.publish(one, folder, {"documents": 7})


def test_a_published_unit_is_found_and_read_on_every_machine(s3: S3, place: str, machine: Callable[[str], None]) -> None:
    store = Store(place)
    assert store.find(unit()) is None and store.find_all([unit()]) == [None]
    record = publish(store, unit())
    assert s3.keys(place) == {f"{unit().folder}/{name}": len(content) for name, content in OUTPUTS.items()} | {
        f"{unit().folder}/record.json": len(record.to_json())
    }
    requests = len(s3.log)
    assert store.local(record.output("a.bin")).read_bytes() == OUTPUTS["a.bin"]
    assert len(s3.log) == requests, "what this machine wrote was fetched again"
    machine("second")
    elsewhere = Store(Store(place).place)
    assert elsewhere.find(unit()) == record == elsewhere.record(unit().folder) and elsewhere.find_all([unit(1), unit()]) == [None, record]
    requests = len(s3.log)
    for _ in range(2):
        assert elsewhere.local(record.output("a.bin")).read_bytes() == OUTPUTS["a.bin"]
        assert elsewhere.local(f"{unit().folder}/b.parquet").read_bytes() == OUTPUTS["b.parquet"]
    assert len(s3.log) == requests + 2, "each file is fetched once"


@pytest.mark.parametrize("harm", ["output gone", "output cut", "record gone", "record cut", "record changed", "record of another"])
def test_a_unit_that_is_not_whole_is_not_done_and_is_mended_by_publishing_again(s3: S3, place: str, machine: object, harm: str) -> None:
    store = Store(place)
    record = publish(store, unit())
    name = "record.json" if "record" in harm else "a.bin"
    key = f"{place}/{unit().folder}/{name}"
    if "gone" in harm:
        s3.delete(key)
    else:
        whole = s3.content(key)
        changes = {"cut": whole[:-1], "changed": whole.replace(b": 7", b": 8"), "another": publish(store, unit(1)).to_json()}
        content = changes[harm.split()[-1]]
        s3.replace(key, content)
    assert Store(place).find(unit()) is None and Store(place).find_all([unit()]) == [None]
    if harm in ("record gone", "record cut", "record changed"):
        with pytest.raises(PipelineError, match=r"record\.json: (missing|it has changed)"):
            Store(place).record(unit().folder)  # although this machine has seen it whole
    publish(store, unit())
    assert Store(place).find(unit()) == record == Store(place).record(unit().folder)


def test_a_damaged_copy_of_a_record_on_this_machine_is_fetched_again(s3: S3, place: str, machine: object) -> None:
    store = Store(place)
    record = publish(store, unit())
    assert store.find(unit()) == record
    (log,) = store.root.glob(".records/*/*.jsonl")
    log.write_bytes(log.read_bytes().replace(b": 7", b": 8"))
    assert Store(place).find(unit()) == record == Store(place).record(unit().folder)


def test_finding_many_units_costs_a_request_per_thousand_objects(s3: S3, place: str, machine: Callable[[str], None]) -> None:
    store = Store(place)
    units = [unit(number) for number in range(12)]
    for one in units:
        publish(store, one, {"a": b"x"})
    machine("second")
    requests = len(s3.log)
    assert all(Store(place).find_all(units))
    assert len(s3.log) == requests + 1 + len(units), "a list, and every record once"
    assert all(Store(place).find_all(units))
    assert len(s3.log) == requests + 2 + len(units), "another process of the same machine needs the list only"


def test_files_are_replaced_listed_and_removed(s3: S3, place: str, machine: object) -> None:
    store = Store(place)
    publish(store, unit())
    store.write("mixes/a.json", b"old")
    assert store.local("mixes/a.json").read_bytes() == b"old"
    store.write("mixes/a.json", b"new")
    assert store.read("mixes/a.json") == store.local("mixes/a.json").read_bytes() == store.open("mixes/a.json").read() == b"new"
    store.path("runs").mkdir(parents=True)
    store.path("runs/b.jsonl").write_bytes(b"{}\n")
    store.put("runs/b.jsonl")
    assert s3.content(f"{place}/runs/b.jsonl") == b"{}\n"
    assert store.files("runs") == {"runs/b.jsonl": 3} and store.files("run") == {}
    s3.replace(f"{place}2/x", b"of another store")
    assert store.files("") == s3.keys(place)
    store.remove(unit().folder)
    assert set(s3.keys(place)) == {"mixes/a.json", "runs/b.jsonl"} and store.find(unit()) is None
    for missing in (store.read, store.local, store.open):
        with pytest.raises(FileNotFoundError):
            missing("mixes/none.json")
    for outside in ("../x", "/etc/passwd", "a/../../x"):
        with pytest.raises(PipelineError, match="no name in"):
            store.local(outside)


def test_a_shared_file_keeps_its_name_with_folders_on_every_machine(
    s3: S3, place: str, machine: Callable[[str], None], tmp_path: Path
) -> None:
    file = tmp_path / "rows.arrow"
    file.write_bytes(b"rows")
    names = [Store(place).share(file, sha256_of(file), name) for name in ("sets/piqa/rows.arrow", "sets/boolq/rows.arrow")]
    machine("second")
    found = [Store(place).local(name) for name in names]
    assert [path.read_bytes() for path in found] == [b"rows", b"rows"]
    assert [path.match("piqa/*.arrow") for path in found] == [True, False]


def test_any_url_that_fsspec_opens_is_a_store(machine: Callable[[str], None], tmp_path: Path) -> None:
    store = Store("memory://some/prefix")
    record = publish(store, unit())
    machine("second")
    assert Store("memory://some/prefix").find_all([unit()]) == [record]
    assert Store("memory://some/prefix").local(record.outputs[0]).read_bytes() == OUTPUTS["a.bin"]
    with store.lock(print):
        store.remove(unit().folder)
    fsspec.filesystem("memory").rm("/some", recursive=True)
    assert Store((tmp_path / "x y").as_uri()).root == tmp_path / "x y"


def test_a_second_run_waits_until_the_first_is_through(place: str, machine: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "POLL_S", 0.05)
    program = f"""
import sys, time
from pipeline.store import Store
with Store({place!r}).lock(print):
    print("holding", flush=True)
    sys.stdin.read()
"""
    other = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdin and other.stdout and other.stdout.readline() == "holding\n"
    said: list[str] = []

    def hear(message: str) -> None:
        said.append(message)
        other.stdin.close()

    with Store(place).lock(hear):
        assert other.wait(timeout=10) == 0, "both held it"
    assert len(said) == 1 and f"process {other.pid} on" in said[0] and place in said[0]


def test_a_run_that_died_is_not_waited_for(s3: S3, place: str, machine: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "SECONDS", 0.4)
    program = f"import os; from pipeline.store import Store; held = Store({place!r}).lock(print); held.__enter__(); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 9 and list(s3.keys(place)) == [".lock"]
    said: list[str] = []
    with Store(place).lock(said.append):
        assert "has ended" in said[-1]
    assert s3.keys(place) == {}
    held = json.dumps({"owner": "x", "host": "another", "process": 1, "beat": 3}).encode()
    s3.replace(f"{place}/.lock", held)
    begin = time.monotonic()
    with Store(place).lock(said.append):
        assert time.monotonic() - begin > 0.4, "a holder on another machine is given its time"


def test_a_mix_on_object_storage_is_the_local_one(
    s3: S3, place: str, machine: Callable[[str], None], built: Store, corpus: Path, recipes: Path
) -> None:
    request = Request("small", place, str(corpus), workers=1, recipes=recipes, shard_tokens=20_000, scale=True)
    lock = build(request, Progress())
    assert lock.to_json() == built.read("mixes/small.lock.json") == s3.content(f"{place}/mixes/small.lock.json")
    made = {name: size for name, size in s3.keys(place).items() if re.search(r"[0-9a-f]{32}", name)}
    local = {name: size for name, size in built.files("").items() if re.search(r"[0-9a-f]{32}", name)}
    assert made == local and len(made) > 50
    for name in made:
        assert s3.content(f"{place}/{name}") == built.read(name), name
    written = s3.requests("PUT")
    machine("second")
    assert build(request, Progress()) == lock
    keys = [served.path for served in s3.log if served.method == "PUT"][written:]
    assert not [key for key in keys if re.search(r"/[0-9a-f]{32}/", key)], "a finished unit was computed again"
    queries = {
        view: f"SELECT * FROM {view} ORDER BY ALL"
        for view in ("documents", "funnel", "duplicates", "edits", "shards", "mixes", "attributes_web", "failures", "steps", "instances")
    }
    with open_catalog(Store(place)) as remote, open_catalog(built) as here:
        for view, query in queries.items():
            assert remote.execute(query).fetchall() == here.execute(query).fetchall(), view
    assert catalog.sources(Store(place))["web"]["files"] == 2
    shard = lock.sources[0].shards[0]
    assert sha256_of(Store(place).local(shard.path)) == shard.sha256


@pytest.mark.slow
def test_a_preview_on_object_storage_says_the_same(
    s3: S3, place: str, machine: Callable[[str], None], built: Store, corpus: Path, recipes: Path
) -> None:
    build(Request("small", place, str(corpus), workers=1, recipes=recipes, shard_tokens=20_000, scale=True), Progress())
    machine("second")
    rules = rules_for("web", "unicode_words < 60 OR token_repeats >= 32", [], recipes)
    texts = s3.requests("GET", "part-00000.parquet")
    assert preview(Store(place), "web", rules, 1, Progress()) == preview(built, "web", rules, 1, Progress())
    assert s3.requests("GET", "part-00000.parquet") > texts
