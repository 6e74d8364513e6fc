"""What a command costs, with everything that it starts: wall time, CPU seconds, memory.

In: a command line. Out: a Cost. The whole tree is followed, Ray's daemons and workers included, by reading /proc ten
times a second (Linux only; about 2 % of a core). While a command runs this process adopts its orphans, so that a daemon
that leaves its parent is still seen, and `run` returns when the last of the tree is gone.

A process's CPU time is the last one seen. So what is missed is the last tenth of a second of a process that its own
parent reaps, and a process that lives shorter than that altogether; the command itself and orphans are read when they
have ended, exactly. Memory is sampled too, but a process's own peak is kept by the kernel and missed no more than its
CPU time. One `run` at a time.
"""

import ctypes
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

INTERVAL_S = 0.1
PATIENCE_S = 60  # for daemons that outlive the command
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
SET_CHILD_SUBREAPER = 36  # of <linux/prctl.h>


@dataclass(frozen=True)
class Cost:
    """seconds: until the command itself ended. cpu_seconds: user and system time of the whole tree. largest_mb: the
    highest resident size of any one process; together_mb: of all at once, pages that they share left out (MiB)."""

    seconds: float
    cpu_seconds: float
    largest_mb: float
    together_mb: float
    processes: int

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.seconds + other.seconds,
            self.cpu_seconds + other.cpu_seconds,
            max(self.largest_mb, other.largest_mb),
            max(self.together_mb, other.together_mb),
            self.processes + other.processes,
        )

    def to_json(self) -> dict[str, float]:
        return asdict(self)


class CommandFailed(Exception):
    """The command ended with another status than 0; the message has the end of its output."""


def run(command: Sequence[str | Path], log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Cost:
    """Run `command`, its output into the file `log`, and measure it. Raises CommandFailed."""
    ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    log.parent.mkdir(parents=True, exist_ok=True)
    # What this process was already the parent of is none of the command's.
    tree = _Tree(os.getpid(), {pid for pid, entry in _processes().items() if entry.parent == os.getpid()})
    began = time.perf_counter()
    with open(log, "wb") as output:
        process = subprocess.Popen([str(word) for word in command], stdout=output, stderr=subprocess.STDOUT, env=env, cwd=cwd)
        while not os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            tree.look()
            time.sleep(INTERVAL_S)
        seconds = time.perf_counter() - began
        tree.look()  # it is a zombie now, and its times are final
        status = process.wait()
        while tree.look(reap=True) and time.perf_counter() - began - seconds < PATIENCE_S:
            time.sleep(INTERVAL_S)
    if status:
        tail = log.read_text(errors="replace")[-3000:]
        raise CommandFailed(f"{' '.join(map(str, command))}\nended with status {status}; the end of {log}:\n{tail}")
    return Cost(seconds, sum(tree.cpu.values()) / TICK, max(tree.peak.values()) / 1024, tree.together / (1 << 20), len(tree.cpu))


@dataclass(frozen=True)
class _Process:
    parent: int
    state: str
    ticks: int
    started: int


class _Tree:
    """The descendants of `root`, seen again and again. Processes are told apart by number and starting time."""

    def __init__(self, root: int, excluded: set[int]) -> None:
        self.root, self.excluded = root, excluded
        self.cpu: dict[tuple[int, int], int] = {}  # ticks
        self.peak: dict[tuple[int, int], int] = {}  # KiB
        self.together = 0  # bytes

    def look(self, reap: bool = False) -> int:
        """Read all descendants once; returns how many live. `reap`: bury orphans that have ended."""
        processes = _processes()
        children: dict[int, list[int]] = {}
        for pid, process in processes.items():
            children.setdefault(process.parent, []).append(pid)
        alive, private = 0, 0
        waiting = [pid for pid in children.get(self.root, []) if pid not in self.excluded]
        while waiting:
            pid = waiting.pop()
            waiting += children.get(pid, [])
            process = processes[pid]
            key = (pid, process.started)
            self.cpu[key] = max(process.ticks, self.cpu.get(key, 0))
            if process.state == "Z":
                if reap and process.parent == self.root:
                    os.waitpid(pid, os.WNOHANG)
                continue
            alive += 1
            peak, own = _memory(pid)
            self.peak[key] = max(peak, self.peak.get(key, 0))
            private += own
        self.together = max(self.together, private)
        return alive


def _processes() -> dict[int, _Process]:
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                # The second field is the command in brackets, and may hold anything: proc_pid_stat(5).
                fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
            except OSError:
                continue  # ended meanwhile
            found[int(folder.name)] = _Process(int(fields[1]), fields[0].decode(), int(fields[11]) + int(fields[12]), int(fields[19]))
    return found


def _memory(pid: int) -> tuple[int, int]:
    """A process's highest resident size in KiB, and the bytes that it now has for itself."""
    try:
        lines = Path(f"/proc/{pid}/status").read_bytes().splitlines()
        resident, shared = (int(pages) for pages in Path(f"/proc/{pid}/statm").read_bytes().split()[1:3])
    except OSError:
        return 0, 0
    status = dict(line.split(b":", 1) for line in lines if b":" in line)
    return int(status.get(b"VmHWM", b"0 kB").split()[0]), (resident - shared) * PAGE
