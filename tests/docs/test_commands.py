"""Every command block of README, CONTRIBUTING and docs, as a reader would give them: page after page, on one machine.

A stand-in that a machine without hub, cloud and cluster needs has a line and a reason in stand_ins.py. Cost: minutes.
"""

from collections.abc import Iterator

import pytest

from tests.docs.checkout import ROOT
from tests.docs.machine import Machine, machine
from tests.docs.pages import blocks, pages


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with machine(tmp_path_factory.mktemp("pages")) as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("page", pages(ROOT))
def test_every_command_of_a_page_does_what_it_is_there_for(page: str, reader: Machine) -> None:
    failed = reader.read(blocks(reader.checkout, page))
    if failed:
        pytest.fail("\n\n".join(["", *map(str, failed)]), pytrace=False)


@pytest.mark.slow
def test_a_page_that_went_stale_is_told(reader: Machine) -> None:
    """Recipes that a page writes and no command reads, and a tagger, are looked at too."""
    recipe = "`mixes/filters/stale.yaml`:\n\n```yaml\nname: stale\ntitle: Stale\norigin: here\ndrop: {few: wrods < 3}\n```\n"
    tagger = "`pipeline/taggers/stale.py`:\n\n```python\nfrom pipeline.taggers import Bach\n```\n"
    (reader.checkout / "docs" / "stale.md").write_text(f"{recipe}\n```sh\nmake mix MIX=olmoe-mixx\n```\n\n{tagger}")
    failed = reader.read(blocks(reader.checkout, "docs/stale.md"))
    (reader.checkout / "pipeline" / "taggers" / "stale.py").unlink()  # which every command would import
    assert [ran.place for ran in failed] == ["docs/stale.md:4", "docs/stale.md:11", "docs/stale.md:17"]
    assert "did you mean words?" in failed[0].said and "did you mean olmoe-mix?" in failed[1].said and "Bach" in failed[2].said
