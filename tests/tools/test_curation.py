"""What the comparisons with other people's filters rest on: thresholds that listen, and texts that come out the same anywhere."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from tools import golden, peers
from tools.curation import made, texts
from tools.curation.witness import Witnesses
from tools.golden import GOLDEN


def test_a_witness_hears_what_it_is_compared_with_and_never_says_yes() -> None:
    witness = Witnesses()
    limit, share, each = witness("limit"), witness("share"), witness("first", "second")
    answers = []

    def rules(count: int, mean: np.float64) -> None:
        answers.extend([count < limit, count > limit, mean >= limit, mean <= limit])
        answers.append(count > share * 28)
        answers.extend([count > each, mean > each])

    assert witness.listen(lambda: rules(7, np.float64(3.5))) == {"limit": 3.5, "share": 0.25, "first": 7.0, "second": 3.5}
    assert len(answers) == 7 and not any(answers)


def test_what_fails_is_heard_up_to_there() -> None:
    witness = Witnesses()
    limit, mean = witness("limit"), witness("mean")

    def rules(words: int) -> bool:
        return words < limit or 12 / words < mean

    assert witness.listen(lambda: rules(0)) == {"limit": 0.0}
    assert witness.listen(lambda: rules(4)) == {"limit": 4.0, "mean": 3.0}


def test_a_witness_of_a_share_of_nothing_hears_none() -> None:
    witness = Witnesses()
    share, count = witness("share"), 0
    assert witness.listen(lambda: count > share * 0) == {"share": 0.0}


def test_made_texts_are_those_of_the_tables() -> None:
    table = pq.read_table(GOLDEN / "documents.parquet").to_pydict()
    stored = {name: key for name, key in zip(*table.values(), strict=True) if name.startswith("made/")}
    assert {name: texts.key(text) for name, text in made.documents().items()} == stored


def test_files_of_packages_that_are_not_there_have_no_text() -> None:
    assert texts.find(["no-such-package/a.py", "networkx/no-such-file.py", "networkx/METADATA#3"]) == {
        "no-such-package/a.py": "",
        "networkx/no-such-file.py": "",
        "networkx/METADATA#3": "",
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["datatrove", "dolma"])
def test_peers_say_today_what_the_tables_say(name: str) -> None:
    peer = {"datatrove": peers.DATATROVE, "dolma": peers.DOLMA}[name]
    try:
        interpreter = peers.python(peer)
    except (peers.PeerUnavailable, peers.InstallFailed) as error:
        pytest.skip(str(error))
    table = pq.read_table(GOLDEN / f"{name}.parquet").slice(0, 60)
    documents = list(made.documents().values())[:60]
    columns = golden.columns(golden.ask(name, interpreter, documents, {}))
    for column in table.column_names[1:]:
        assert column not in columns or columns[column].to_pylist() == table[column].to_pylist(), column
