"""Targets that break their promises on inputs that a search has to find."""

import os
import time
from pathlib import Path

from pipeline.errors import PipelineError
from tools.fuzzing.target import Parts, Target, must

SEED = (b"key: value\n",)


def target(name: str) -> Target:
    runs = {run.__name__: run for run in (raises, promise, unequal, hangs, dies, hoards, sound)}
    return Target(name, [SEED], runs[name], ("tests.fuzz.broken",), (b"MAGIC", b"deep"), seconds=5.0 if name == "hoards" else 0.5)


def raises(parts: Parts, folder: Path) -> list[str]:
    """A KeyError behind two conditions, each of which is a line of its own."""
    (content,) = parts
    if b"MAGIC" in content:
        if b"deep" in content:
            return [{}["missing"]]
        return ["magic"]
    raise PipelineError("no magic in it")


def promise(parts: Parts, folder: Path) -> list[str]:
    must(b"MAGIC" not in parts[0], "no magic comes out")
    return ["whole"]


def unequal(parts: Parts, folder: Path) -> list[str]:
    return [f"{time.perf_counter_ns():b}".replace("0", "o").replace("1", "i")] if b"MAGIC" in parts[0] else ["equal"]


def hangs(parts: Parts, folder: Path) -> list[str]:
    while b"MAGIC" in parts[0]:
        pass
    return ["returned"]


def dies(parts: Parts, folder: Path) -> list[str]:
    if b"MAGIC" in parts[0]:
        os.abort()
    return ["lived"]


def hoards(parts: Parts, folder: Path) -> list[str]:
    return [f"{len(b'x' * (900 << 20))}"] if b"MAGIC" in parts[0] else ["modest"]


def sound(parts: Parts, folder: Path) -> list[str]:
    if len(parts[0]) > 20:
        raise PipelineError(f"{len(parts[0])} bytes are too many; cut them")
    return [f"{len(parts[0])} bytes"]
