"""What all stand-ins for programs share: strict arguments, a refusal, and what they remember from one call to the next."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from tests.docs.leftovers import MARK


class Arguments(argparse.ArgumentParser):
    """A parser that takes no abbreviations, as few of the programs do."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog=prog, allow_abbrev=False)


def refuse(why: str) -> NoReturn:
    print(f"error: {why}", file=sys.stderr)
    raise SystemExit(2)


def remembered() -> dict[str, Any]:
    """What earlier calls on this machine remembered."""
    path = _path()
    return json.loads(path.read_text()) if path.exists() else {}


def remember(**what: Any) -> None:
    _path().write_text(json.dumps(remembered() | what))


def _path() -> Path:
    return Path(os.environ[MARK]) / "remembered.json"
