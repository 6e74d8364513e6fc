"""docs/security.md names, beside each promise, the tests of it."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_tests_that_the_promises_name_are_there() -> None:
    named = set(re.findall(r"`(tests/[\w/]+\.py|[a-z]+/[\w/]+\.py|requirements/[\w*.-]+)`", (ROOT / "docs/security.md").read_text()))
    assert sum(name.startswith("tests/") for name in named) > 10
    assert [name for name in sorted(named) if not any(ROOT.glob(name))] == []
