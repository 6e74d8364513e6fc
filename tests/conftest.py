"""Fixtures that several test files share: the corpus, one Ray for the whole session, a built store."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.build import Request, build
from pipeline.progress import Progress
from pipeline.store import Store
from tests.browser import launched
from tests.pipeline.corpus import write_corpus, write_recipes
from tests.pipeline.curated import made, write_all

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tools.s3_server import S3


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs a browser is no quick test: `make test-browser` runs these."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")
            item.add_marker("slow")


@pytest.fixture(scope="session", autouse=True)
def warming() -> Iterator[None]:
    """Compile in the background what later tests need (warm.py)."""
    process = subprocess.Popen([sys.executable, "-m", "tests.warm"], cwd=Path(__file__).parents[1])
    yield
    process.kill()
    process.wait()


@pytest.fixture(scope="session")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipes(tmp_path_factory.mktemp("recipes"))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, corpus: Path, recipes: Path) -> Store:
    """The small mix, built once in this process. Tests must not change this store."""
    store = Store(tmp_path_factory.mktemp("built") / "store")
    build(Request("small", store.root, str(corpus), workers=1, recipes=recipes, shard_tokens=20_000, scale=True), Progress())
    return store


@pytest.fixture(scope="session")
def curated_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Corpus and recipes of the mix `curated`."""
    return write_all(tmp_path_factory.mktemp("curated"))


@pytest.fixture(scope="session")
def curated(curated_home: Path) -> Store:
    """The mix `curated`, built once in this process. Tests may add attributes to this store, and nothing else."""
    return made(curated_home)


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """One Ray for all tests that need several workers."""
    from ray.cluster_utils import Cluster

    arguments = {"num_cpus": 4, "include_dashboard": False, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args=arguments)
    yield cluster.address
    cluster.shutdown()


@pytest.fixture(scope="session")
def s3() -> "Iterator[S3]":
    """One server of S3's protocol for all tests of object storage."""
    from tools.s3_server import serve  # a second of imports

    with serve() as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """A Chromium, until the module ends: beside Playwright's event loop the thread can run no other."""
    with launched() as chromium:
        yield chromium


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Go on as on a machine of that name, which has a cache of its own."""

    def become(name: str) -> None:
        monkeypatch.setenv("TOKENMILL_CACHE", str(tmp_path / name))

    become("first")
    return become
