"""Running one side of a comparison: a module of this folder in a peer's interpreter or in ours, measured as a process tree.

In: what to run on which documents. Out: what the module wrote, and with it the highest memory of its processes. CPU seconds are
the module's own account of the work itself; its start, which differs by seconds between programs, is in none of them.
"""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median

from pipeline.unit import Json
from tools import measure

ROOT = Path(__file__).resolve().parents[2]


class Bench:
    """`folder` takes documents, scratch files and logs. `interpreters`: of the peers, by name."""

    def __init__(self, folder: Path, interpreters: Mapping[str, Path], dclm: Path | None) -> None:
        self.folder, self.interpreters = folder, interpreters
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | ({"DCLM": str(dclm.resolve())} if dclm else {})

    def documents(self, name: str, texts: Iterable[str]) -> Path:
        """The texts as documents.jsonl in a folder of their own."""
        path = self.folder / name / "documents.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as out:
            out.writelines(json.dumps({"id": str(number), "text": text}, ensure_ascii=False) + "\n" for number, text in enumerate(texts))
        return path

    def run(self, side: str, module: str, *arguments: str | Path) -> dict[str, Json]:
        """`side`: ours, or a peer. The module's last argument is the file that it writes, which is appended here."""
        interpreter = Path(sys.executable) if side == "ours" else self.interpreters[side]
        target = self.folder / f"{module}.json"
        command = [interpreter, "-m", f"tools.curation.{module}", *arguments, target]
        cost = measure.run(command, self.folder / "logs" / f"{module}.log", env=self.environment, cwd=ROOT)
        return {**json.loads(target.read_bytes()), "peak_mb": cost.largest_mb}


def typical(runs: Sequence[float]) -> float:
    return float(median(runs))
