"""The faults: what befalls a run or the files that it left, and what is remembered of each.

Each is a function that does its harm at once, if it can; whoever calls it chooses the moment.
"""

import random
import signal
import subprocess
from dataclasses import dataclass

import psutil

from tools.saboteur.places import Place

DAMAGES = ("bit flipped", "file truncated", "file deleted")
ANY, OF_UNITS = ".*", "[0-9a-f]{32}/"
STORAGE: dict[
    str, tuple[tuple[int | str, str, str], ...]
] = {  # what the server does to requests, and to which: methods and paths, as in tools/s3_server.py
    "storage refuses": ((503, ANY, ANY), (500, ANY, ANY), (429, ANY, ANY)),
    "storage breaks off": (("reset", ANY, ANY), ("reset upload", "PUT|POST", ANY), ("truncate", "GET", OF_UNITS)),
    "storage answers wrong": (("corrupt", "GET", OF_UNITS), ("short", "GET", OF_UNITS)),
    "storage is slow": (("slow", ANY, ANY),),
}
KINDS = ("driver killed", "worker killed", "raylet killed", "disk full", *DAMAGES, *STORAGE)


@dataclass
class Injected:
    """A fault that came to pass. times: as what is counted. file: what was damaged. found_by: the next run, verify, or nobody yet."""

    kind: str
    times: int = 1
    file: str = ""
    found_by: str = ""


def damage(rng: random.Random, place: Place, known: dict[str, str]) -> Injected | None:
    """Flip a bit of one of the known files that are there, cut it short, or delete it."""
    there = [name for name in place.names() if name in known]
    if not there:
        return None
    # Stages first, so that the few records and indices of each come as often as its many parts.
    stage = rng.choice(sorted({name.split("/")[0] for name in there}))
    name = rng.choice([name for name in there if name.split("/")[0] == stage])
    kind = rng.choice(DAMAGES)
    content = place.read(name)
    if not content:
        return None
    if kind == "bit flipped":
        at = rng.randrange(len(content))
        place.replace(name, content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :])
    elif kind == "file truncated":
        place.replace(name, content[: rng.randrange(len(content))])
    else:
        place.delete(name)
    return Injected(kind, file=name)


def kill_driver(process: "subprocess.Popen[bytes]") -> Injected | None:
    if process.poll() is not None:
        return None
    process.send_signal(signal.SIGKILL)
    return Injected("driver killed")


def kill_of_ray(process: "subprocess.Popen[bytes]", kind: str) -> Injected | None:
    """SIGKILL a worker or the raylet of the Ray that the driver has started."""
    if process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            try:
                name = " ".join(child.cmdline()[:1])
                is_worker = name.startswith("ray::") and "Agent" not in name
                if is_worker if kind == "worker killed" else "raylet" in name:
                    child.send_signal(signal.SIGKILL)
                    return Injected(kind)
            except psutil.NoSuchProcess:
                continue
    return None
