"""Every command block of README, CONTRIBUTING and docs, as a reader would give them, page after page.

What a machine without hub, cloud and cluster needs instead has a line and a reason in stand_ins.py. Two readers, with a machine each, read
at the same time, since most commands keep one core busy. A page may rest on what earlier pages of its reader left: of one alone
(`-k own-mix`) commands may fail that do not among the others. Cost: some ten minutes of two cores, 300 MB of downloads by each reader.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from tests.docs.checkout import ROOT
from tests.docs.machine import Machine, Ran, machine, services
from tests.docs.pages import blocks, pages

FIRST_READERS = ("README.md", "docs/evaluation.md", "docs/ablations.md", "docs/cluster.md", "docs/benchmarks.md", "CONTRIBUTING.md")


@dataclass
class Reader:
    machine: Machine
    thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    def read(self, page: str) -> Future[list[Ran]]:
        """The commands that fail, once all that this reader was given before is read."""
        return self.thread.submit(lambda: self.machine.read(blocks(self.machine.checkout, page)))


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Reader, Reader]]:
    folder = tmp_path_factory.mktemp("pages")
    with ExitStack() as stack:
        places = stack.enter_context(services(folder / "hub"))
        first, second = (Reader(stack.enter_context(machine(folder / name, places))) for name in "12")
        for reader in (first, second):
            stack.callback(reader.thread.shutdown, wait=False, cancel_futures=True)
        yield first, second


@pytest.fixture(scope="module")
def failures(readers: tuple[Reader, Reader], request: pytest.FixtureRequest) -> dict[str, Future[list[Ran]]]:
    """What failed of each page that was asked for."""
    asked = {item.callspec.params.get("page") for item in request.session.items if hasattr(item, "callspec")}
    return {page: readers[page not in FIRST_READERS].read(page) for page in pages(ROOT) if page in asked}


@pytest.mark.slow
@pytest.mark.parametrize("page", pages(ROOT))
def test_every_command_of_a_page_does_what_it_is_there_for(page: str, failures: dict[str, Future[list[Ran]]]) -> None:
    if failed := failures[page].result():
        pytest.fail("\n\n".join(["", *map(str, failed)]), pytrace=False)


@pytest.mark.slow
def test_a_page_that_went_stale_is_told(readers: tuple[Reader, Reader]) -> None:
    """Recipes that a page writes and no command reads, and a tagger, are looked at too."""
    recipe = "`mixes/filters/stale.yaml`:\n\n```yaml\nname: stale\ntitle: Stale\norigin: here\ndrop: {few: wrods < 3}\n```\n"
    tagger = "`pipeline/taggers/stale.py`:\n\n```python\nfrom pipeline.taggers import Bach\n```\n"
    checkout = readers[1].machine.checkout
    (checkout / "docs" / "stale.md").write_text(f"{recipe}\n```sh\nmake mix MIX=olmoe-mixx\n```\n\n{tagger}")
    failed = readers[1].read("docs/stale.md").result()
    (checkout / "pipeline" / "taggers" / "stale.py").unlink()  # which every command would import
    assert [ran.place for ran in failed] == ["docs/stale.md:4", "docs/stale.md:11", "docs/stale.md:17"]
    assert "unknown column wrods" in failed[0].said and "did you mean `olmoe-mix`?" in failed[1].said and "Bach" in failed[2].said
