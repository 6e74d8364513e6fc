"""Sample packages: what is fetched from registries, verified, unpacked, and what happens when it goes wrong.

Both registries are played by one server on the loopback interface.
"""

import hashlib
import io
import stat
import tarfile
import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.download import packages, registries
from pipeline.errors import PipelineError
from pipeline.progress import Progress
from pipeline.recipe import SamplePackage, load_source, source_names

FILES = {"docs/a.txt": b"alpha", "docs/b.txt": b"beta" * 1000, "src/c.py": b"print()\n"}


def sdist(files: dict[str, bytes], top: str = "demo_text-1.0", extra: Callable[[tarfile.TarFile], None] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as bundle:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{top}/{name}" if top else name)
            member.size = len(content)
            bundle.addfile(member, io.BytesIO(content))
        if extra:
            extra(bundle)
    return buffer.getvalue()


class Registry:
    """Serves `pages`; what stands in `plan[path]` comes first: an HTTP status, or `cut`, half an answer."""

    def __init__(self) -> None:
        self.pages: dict[str, tuple[str, bytes]] = {}
        self.plan: dict[str, list[int | str]] = {}
        self.asked: Counter[str] = Counter()
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.asked[self.path] += 1
                kind, content = registry.pages.get(self.path, ("", b""))
                step = (registry.plan.get(self.path) or [200]).pop(0) if kind else 404
                self.send_response(200 if step == "cut" else int(step))
                self.send_header("Content-Type", kind or "text/plain")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2] if step == "cut" else content)

            def do_HEAD(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(registry.pages[self.path][1])))
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def add(self, project: str, file: str, content: bytes) -> None:
        links = self.pages.get(f"/simple/{project}/", ("", b""))[1] + f'<a href="/files/{file}">{file}</a>'.encode()
        self.pages[f"/simple/{project}/"] = ("text/html", links)
        self.pages[f"/files/{file}"] = ("application/octet-stream", content)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    played = Registry()
    monkeypatch.setenv("PIP_INDEX_URL", f"{played.url}/simple")
    monkeypatch.setenv("npm_config_registry", f"{played.url}/npm")
    monkeypatch.setattr(registries, "FIRST_PAUSE_S", 0.0)
    yield played
    played.close()


def demo(registry: Registry, content: bytes | None = None, file: str = "demo_text-1.0.tar.gz", **changes) -> SamplePackage:
    """The sample entry of a package that the registry now has."""
    content = sdist(FILES) if content is None else content
    registry.add("demo-text", file, content)
    fields = {"package": "pypi:demo-text==1.0", "file": file, "sha256": hashlib.sha256(content).hexdigest(), "licence": "CC0",
              "members": ["*/docs/*.txt"], **changes}  # fmt: skip
    return SamplePackage(**fields)


def fetch(sample: SamplePackage, folder: Path) -> list:
    return packages.fetch(sample, folder, lambda size: None)


def unpacked(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_named_members_are_unpacked_and_nothing_else_stays(registry: Registry, tmp_path: Path) -> None:
    files = fetch(demo(registry, reader="text"), tmp_path)
    assert [file.name for file in files] == ["demo-text-1.0/docs/a.txt", "demo-text-1.0/docs/b.txt"]
    for file, content in zip(files, (b"alpha", b"beta" * 1000), strict=True):
        assert Path(file.path).read_bytes() == content
        assert (file.bytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        assert (file.reader, file.licence, file.origin) == ("text", "CC0", "pypi:demo-text==1.0")
    below = "demo_text-1.0.tar.gz/demo_text-1.0/docs"
    assert unpacked(tmp_path) == {"demo_text-1.0.tar.gz.json", f"{below}/a.txt", f"{below}/b.txt"}


def test_a_second_run_asks_no_server(registry: Registry, tmp_path: Path) -> None:
    sample = demo(registry)
    first = fetch(sample, tmp_path)
    registry.close()
    assert fetch(sample, tmp_path) == first


@pytest.mark.parametrize("harm", [lambda path: path.unlink(), lambda path: path.write_bytes(b"alp")])
def test_a_lost_or_cut_member_is_fetched_again(registry: Registry, tmp_path: Path, harm: Callable[[Path], object]) -> None:
    sample = demo(registry)
    path = Path(fetch(sample, tmp_path)[0].path)
    harm(path)
    fetch(sample, tmp_path)
    assert path.read_bytes() == b"alpha"


def test_another_glob_on_a_known_archive_adds_its_members(registry: Registry, tmp_path: Path) -> None:
    sample = demo(registry)
    fetch(sample, tmp_path)
    files = fetch(sample.model_copy(update={"members": ("*/src/*",)}), tmp_path)
    assert [file.name for file in files] == ["demo-text-1.0/src/c.py"]
    assert len(fetch(sample, tmp_path)) == 2


def test_excluded_members_stay_away(registry: Registry, tmp_path: Path) -> None:
    assert [file.name for file in fetch(demo(registry, exclude=["*/b.txt"]), tmp_path)] == ["demo-text-1.0/docs/a.txt"]


def test_a_wheel_keeps_its_folders(registry: Registry, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        bundle.writestr("inside/docs/a.txt", "alpha")
        link = zipfile.ZipInfo("inside/docs/link.txt")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        bundle.writestr(link, "/etc/passwd")
    files = fetch(demo(registry, buffer.getvalue(), "demo_text-1.0-py3-none-any.whl"), tmp_path)
    assert [file.name for file in files] == ["demo-text-1.0/inside/docs/a.txt"]


def test_an_npm_tarball_loses_its_wrapping_folder(registry: Registry, tmp_path: Path) -> None:
    content = sdist(FILES, top="package")
    registry.pages["/npm/@demo%2Ftext/1.0.0"] = ("application/json", f'{{"dist": {{"tarball": "{registry.url}/t.tgz"}}}}'.encode())
    registry.pages["/t.tgz"] = ("application/octet-stream", content)
    sample = SamplePackage(package="npm:@demo/text@1.0.0", file="text-1.0.0.tgz", sha256=hashlib.sha256(content).hexdigest(),
                           licence="CC0", members=("package/docs/a.txt",))  # fmt: skip
    assert [file.name for file in fetch(sample, tmp_path)] == ["text-1.0.0/docs/a.txt"]


def test_an_archive_of_two_sources_is_downloaded_once(registry: Registry, tmp_path: Path) -> None:
    sample = demo(registry)
    code = sample.model_copy(update={"members": ("*/src/*",)})
    found = packages.fetch_all({"web": [sample], "code": [code]}, tmp_path, Progress())
    assert {source: [file.name.rsplit("/", 1)[1] for file in files] for source, files in found.items()} == {
        "web": ["a.txt", "b.txt"], "code": ["c.py"],
    }  # fmt: skip
    assert registry.asked["/files/demo_text-1.0.tar.gz"] == 1
    assert packages.fetch_all({"code": [code], "web": [sample]}, tmp_path, Progress()) == found


def test_two_entries_of_a_source_may_not_take_the_same_member(registry: Registry, tmp_path: Path) -> None:
    sample = demo(registry)
    with pytest.raises(PipelineError, match=r"web: two entries .* take demo-text-1\.0/docs/a\.txt"):
        packages.fetch_all({"web": [sample, sample]}, tmp_path, Progress())


def test_another_sha256_is_refused_with_both_values(registry: Registry, tmp_path: Path) -> None:
    found = demo(registry).sha256
    with pytest.raises(PipelineError) as raised:
        fetch(demo(registry, sha256="0" * 64), tmp_path)
    for part in ("demo_text-1.0.tar.gz of pypi:demo-text", "0" * 64, found, "PIP_INDEX_URL"):
        assert part in str(raised.value)
    assert unpacked(tmp_path) == set()


@pytest.mark.parametrize("trouble", [[503, 500, "cut"], ["cut"], [429]])
def test_passing_trouble_is_tried_again(registry: Registry, tmp_path: Path, trouble: list[int | str]) -> None:
    sample = demo(registry)
    registry.plan["/files/demo_text-1.0.tar.gz"] = [*trouble]
    heard: list[int] = []
    assert len(packages.fetch(sample, tmp_path, heard.append)) == 2
    assert registry.asked["/files/demo_text-1.0.tar.gz"] == len(trouble) + 1
    assert sum(heard) == len(registry.pages["/files/demo_text-1.0.tar.gz"][1])  # failed attempts were taken back


def test_lasting_trouble_names_the_file_and_the_remedy(registry: Registry, tmp_path: Path) -> None:
    sample = demo(registry)
    registry.plan["/files/demo_text-1.0.tar.gz"] = [503] * registries.ATTEMPTS
    with pytest.raises(PipelineError, match=r"answered 503 .*HTTPS_PROXY.*PIP_INDEX_URL.*the same command") as raised:
        fetch(sample, tmp_path)
    assert str(raised.value).startswith("demo_text-1.0.tar.gz of pypi:demo-text could not be downloaded")
    assert len(fetch(sample, tmp_path)) == 2  # the same command, the server well again


def test_no_network_names_the_file_and_the_remedy(registry: Registry, tmp_path: Path) -> None:
    sample = demo(registry)
    registry.close()
    with pytest.raises(PipelineError, match=r"demo_text-1\.0\.tar\.gz of pypi:demo-text could not be downloaded .*check the network"):
        fetch(sample, tmp_path)


def test_a_refusal_is_not_tried_again(registry: Registry, tmp_path: Path) -> None:
    sample = demo(registry)
    registry.plan["/files/demo_text-1.0.tar.gz"] = [403]
    with pytest.raises(PipelineError, match="answered 403"):
        fetch(sample, tmp_path)
    assert registry.asked["/files/demo_text-1.0.tar.gz"] == 1


@pytest.mark.parametrize("package", ["pypi:demo-text==1.0", "pypi:nobody==1.0", "npm:nobody@1.0"])
def test_a_file_that_the_registry_lacks_is_named(registry: Registry, tmp_path: Path, package: str) -> None:
    sample = demo(registry).model_copy(update={"package": package, "file": "other-2.0.tar.gz"})
    with pytest.raises(PipelineError, match=r"other-2\.0\.tar\.gz of .* is not at 127\.0\.0\.1"):
        fetch(sample, tmp_path)


def test_a_glob_without_members_says_what_is_there(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"no member matches `\*/docs/a\.text`; there are demo_text-1\.0/docs/a\.txt"):
        fetch(demo(registry, members=["*/docs/a.text"]), tmp_path)


def test_no_member_leaves_the_folder(registry: Registry, tmp_path: Path) -> None:
    def with_links(bundle: tarfile.TarFile) -> None:
        for kind, name in ((tarfile.SYMTYPE, "soft.txt"), (tarfile.LNKTYPE, "hard.txt")):
            link = tarfile.TarInfo(f"demo_text-1.0/docs/{name}")
            link.type, link.linkname = kind, "/etc/passwd"
            bundle.addfile(link)

    evil = {"../docs/up.txt": b"up", "demo_text-1.0/../../docs/up.txt": b"up", "/docs/top.txt": b"top", "demo_text-1.0/docs/a.txt": b"a"}
    folder = tmp_path / "deep" / "store"
    files = fetch(demo(registry, sdist(evil, top="", extra=with_links), members=["*docs/*.txt"]), folder)
    assert [file.name for file in files] == ["demo-text-1.0/docs/a.txt"]
    assert {path.split("/")[:2][-1] for path in unpacked(tmp_path)} == {"store"}


def test_unpacked_sizes_are_bounded(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "MEMBER_BYTES", 3999)
    with pytest.raises(PipelineError, match=r"docs/b\.txt unpacks to more than 3999 bytes"):
        fetch(demo(registry), tmp_path)


def test_what_a_killed_run_left_is_no_hindrance(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / ".demo_text-1.0.tar.gz").mkdir()
    (tmp_path / ".demo_text-1.0.tar.gz" / "archive").write_bytes(b"half")
    fetch(demo(registry), tmp_path)
    assert not (tmp_path / ".demo_text-1.0.tar.gz").exists()


def test_a_damaged_archive_is_named(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"demo_text-1\.0\.tar\.gz of pypi:demo-text: the archive cannot be unpacked"):
        fetch(demo(registry, sdist(FILES)[:-40]), tmp_path)


def test_the_index_that_pip_is_configured_with_is_used(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configuration = tmp_path / "pip.conf"
    configuration.write_text(f"[global]\nindex-url = {registry.url}/simple\n")
    monkeypatch.delenv("PIP_INDEX_URL")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(configuration))
    registries._configured_index.cache_clear()
    try:
        assert len(fetch(demo(registry), tmp_path / "store")) == 2
    finally:
        registries._configured_index.cache_clear()


def test_all_sources_agree_on_each_archive() -> None:
    entries = [entry for name in source_names() for entry in load_source(name).sample]
    assert len({(entry.file, entry.sha256, entry.package) for entry in entries}) == len({entry.file for entry in entries})


def test_no_sample_takes_an_evaluations_test_split() -> None:
    members = [member for name in source_names() for entry in load_source(name).sample for member in entry.members]
    assert all("/train_" in member for member in members if "eval" in member)
