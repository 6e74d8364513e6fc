"""A round: a mix is built under attack, then repaired as a person would, and compared with what nobody disturbed.

Attack: some runs of `tokenmill mix`, each of which the saboteur kills, starves of disk or storage, or damages the files of; between the
runs he damages more. Repair: the same command; then `tokenmill verify --remove` and the same command again until all holds; then
`tokenmill gc --remove`, since damaged inputs can have led to units that nothing rests on. After it every file of the store must have the
bytes of the undisturbed one, nothing else may lie there, and the books must balance. A damaged file is found if the next run has made it
again or named it, or if verify names it or removes it.
"""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tools.s3_server import S3, Fault
from tools.saboteur import corpus
from tools.saboteur.faults import STORAGE, Injected, damage, kill_driver, kill_of_ray
from tools.saboteur.places import Bucket, Folder, Place

SETTINGS = ("folder", "s3", "full disk", "ray")
REPAIRS = 3  # of verify and mix, until a round is lost
PATIENCE_S = 300
STORM = 15  # requests that a fault of storage befalls at most
WITH_RAY = "import pipeline.engine; pipeline.engine.INLINE_BYTES = 0; from pipeline.cli import main; main()"
# On a small disk over the store's folder, which is seen by this process alone: $1 the store, $2 kB, $3 what it held at the end.
SMALL_DISK = """
set -e
store=$1; size=$2; after=$3; shift 3
mkdir "$after"; cp -a "$store/." "$after/"
mount -t tmpfs -o size=${size}k none "$store"; cp -a "$after/." "$store/"
status=0; "$@" || status=$?
rm -rf "$after"; mkdir "$after"; cp -a "$store/." "$after/"
exit $status
"""
# Where nobody may mount: the disk is full from the n-th time on that something must be on it.
FULL_FROM = """
import errno, os, sys
left, fsync = int(sys.argv.pop(1)), os.fsync
def full(handle):
    global left
    left -= 1
    if left < 0:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    fsync(handle)
os.fsync = full
from pipeline.cli import main
main()
"""


@dataclass(frozen=True)
class Undisturbed:
    """What a build leaves that nobody disturbed: sha256 by file, units, kB of disk; and the documents that went in, by source."""

    contents: dict[str, str]
    units: int
    kilobytes: int
    documents: dict[str, int]


@dataclass
class Round:
    """home: the corpus. work: a folder of its own. After `play`: what was injected, and what is wrong, "" if nothing is."""

    setting: str
    seed: str
    home: Path
    work: Path
    undisturbed: Undisturbed
    s3: S3
    injected: list[Injected] = field(default_factory=list)
    wrong: str = ""

    def play(self) -> None:
        self.rng = random.Random(self.seed)
        self.work.mkdir(parents=True)
        self.place: Place = Bucket(self.s3) if self.setting == "s3" else Folder(self.work / "store")
        for _ in range(1 if self.setting == "ray" else self.rng.randrange(1, 4)):
            {"folder": self._struck, "s3": self._on_bad_storage, "full disk": self._on_full_disk, "ray": self._on_ray}[self.setting]()
            for _ in range(self.rng.randrange(0, 3)):
                self._damage()
        try:
            self.wrong = self._repaired()
        except subprocess.TimeoutExpired as error:
            self.wrong = f"no end after {error.timeout:.0f} s: {error.cmd}"
        for fault in self.injected:
            if fault.file and not fault.found_by:
                self.wrong = self.wrong or f"nobody found {fault.file} ({fault.kind})"

    def _struck(self) -> None:
        """A run during which files are damaged, or that is killed, or both."""
        with self._running() as process:
            self._strike(process, self.rng.randrange(1, 4))
            self._end(process)

    def _strike(self, process: "subprocess.Popen[bytes]", times: int) -> None:
        for strike in self.rng.choices(("damage", "kill"), k=times):
            self._await(process, self.rng.randrange(self.undisturbed.units))
            self._damage() if strike == "damage" else self._note(kill_driver(process))

    def _on_bad_storage(self) -> None:
        """The same on object storage that fails besides, now and then on a machine that has nothing in its cache."""
        faults: list[tuple[str, Fault]] = []
        for kind, ways in STORAGE.items():
            way, method, path = self.rng.choice(ways)
            share = self.rng.choice((0.02, 0.1))
            faults.append((kind, self.s3.fail(way, method=method, path=path, times=STORM, seconds=0.3, share=share)))
        if self.rng.random() < 0.5:
            shutil.rmtree(self.work / "cache", ignore_errors=True)
        with self._running() as process:
            self._strike(process, self.rng.randrange(3))
            self._end(process)
        self.s3.faults.clear()
        self.injected += [Injected(kind, STORM - fault.times) for kind, fault in faults if fault.times < STORM]

    def _on_full_disk(self) -> None:
        store, after = Path(self.place.store), self.work / "after"
        store.mkdir(exist_ok=True)
        used = _kilobytes(store)
        size = used + self.rng.randrange(16, max(17, self.undisturbed.kilobytes - used))
        mounting = ["unshare", "-rm", "sh", "-c", SMALL_DISK, "sh", str(store), str(size), str(after)]
        may_mount = subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode == 0
        start = [*mounting, sys.executable] if may_mount else [sys.executable]
        limit = [] if may_mount else [str(self.rng.randrange(3 * self.undisturbed.units))]
        with self._running(start, ["-m", "pipeline"] if may_mount else ["-c", FULL_FROM, *limit]) as process:
            self._end(process)
        if after.exists():
            shutil.rmtree(store)
            after.rename(store)
        if process.returncode:
            self._note(Injected("disk full"))
            if "no space left under" not in self._said():
                self.wrong = f"a full disk was told as: {self._said()[-300:]}"

    def _on_ray(self) -> None:
        with self._running(program=["-c", WITH_RAY], workers=2) as process:
            for kind in ("worker killed", "worker killed", self.rng.choice(("raylet killed", "driver killed"))):
                self._await(process, self.rng.randrange(1, self.undisturbed.units))
                self._note(kill_driver(process) if kind == "driver killed" else kill_of_ray(process, kind))
            self._end(process)

    def _repaired(self) -> str:
        """Run, verify, remove, run … until all holds; what is wrong then."""
        ended = self._mix("next run")
        self._made_again()
        for _ in range(REPAIRS):
            status, said = self._tokenmill("verify", "--remove", "--mix", corpus.MIX, "--workers", "1")
            if status == 0 and ended == 0:
                break
            self._named(said, "verify")
            ended = self._mix("next run")
            self._made_again()
        else:
            return f"it does not hold after {REPAIRS} repairs: {self._said()[-600:]}"
        orphans = self.place.orphans()
        if orphans:
            return f"left: {', '.join(orphans)}"
        status, said = self._tokenmill("gc", "--remove", "--recipes", str(self.home / "recipes"))
        if status:
            return f"gc: {said[-300:]}"
        return self._compared()

    def _compared(self) -> str:
        found = self.place.contents()
        differing = sorted(name for name, _ in found.items() ^ self.place.part_of(self.undisturbed.contents).items())
        if differing:
            return f"not the undisturbed bytes: {', '.join(differing[:5])}"
        manifest = json.loads(self.place.read(f"mixes/{corpus.MIX}.build.json") or b"")
        for name, documents in self.undisturbed.documents.items():
            if sum(line["documents"] for line in manifest["sources"][name]["funnel"]) != documents:
                return f"the books of {name} do not balance"
        return ""

    def _damage(self) -> None:
        self._note(damage(self.rng, self.place, self.place.part_of(self.undisturbed.contents)))

    def _note(self, fault: Injected | None) -> None:
        if fault:
            self.injected.append(fault)

    def _made_again(self) -> None:
        """What has its bytes again was found by the run that gave it them."""
        for fault in self.injected:
            if fault.file and not fault.found_by:
                content = self.place.read(fault.file)
                if content is not None and hashlib.sha256(content).hexdigest() == self.undisturbed.contents[fault.file]:
                    fault.found_by = "next run"

    def _named(self, said: str, by: str) -> None:
        for fault in self.injected:
            unit = fault.file.rsplit("/", 1)[0] if fault.file.count("/") > 2 else fault.file
            if fault.file and not fault.found_by and (fault.file in said or f"removed {unit}\n" in said):
                fault.found_by = by

    def _mix(self, by: str) -> int:
        with self._running() as process:
            process.wait(PATIENCE_S)
        self._named(self._said(), by)
        return process.returncode

    def _running(self, start: list[str] | None = None, program: list[str] | None = None, workers: int = 1) -> "_Running":
        given = ["--data", self.home / "data", "--recipes", self.home / "recipes", "--scale", "--workers", workers]
        words = [*(start or [sys.executable]), *(program or ["-m", "pipeline"]), "mix", "--mix", corpus.MIX, *given]
        return _Running([str(word) for word in [*words, "--store", self.place.store]], self.work / "log", self._environment())

    def _tokenmill(self, command: str, *arguments: str) -> tuple[int, str]:
        words = [sys.executable, "-m", "pipeline", command, "--store", self.place.store, *arguments]
        done = subprocess.run(
            words, env=self._environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE_S, check=False
        )
        with open(self.work / "log", "a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(words)}\n{done.stdout}")
        return done.returncode, done.stdout

    def _environment(self) -> dict[str, str]:
        given = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        return given | {"TOKENMILL_CACHE": str(self.work / "cache"), "COLUMNS": "400"}

    def _said(self) -> str:
        """All of the last run's output."""
        return (self.work / "log").read_text(errors="replace").rsplit("\n$ ", 1)[-1]

    def _await(self, process: "subprocess.Popen[bytes]", units: int) -> None:
        """Until so many units are done, and a moment more."""
        until = time.monotonic() + PATIENCE_S
        while process.poll() is None and self.place.finished() < units and time.monotonic() < until:
            time.sleep(0.02 if isinstance(self.place, Folder) else 0.2)
        time.sleep(self.rng.uniform(0, 0.1))

    def _end(self, process: "subprocess.Popen[bytes]") -> None:
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.wrong = f"a disturbed run had no end after {PATIENCE_S} s"


class _Running:
    """A process with its output at the end of a log; with it go, at the end, all that it has started."""

    def __init__(self, words: list[str], log: Path, environment: dict[str, str]) -> None:
        self.words, self.log, self.environment = words, log, environment
        self.children: dict[int, psutil.Process] = {}

    def __enter__(self) -> "subprocess.Popen[bytes]":
        with open(self.log, "a", encoding="utf-8") as log:
            log.write(f"\n$ {' '.join(self.words)}\n")
        self.output = open(self.log, "ab")
        self.process = subprocess.Popen(self.words, env=self.environment, stdout=self.output, stderr=self.output, start_new_session=True)
        return self.process

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.output.close()
        for other in psutil.process_iter():  # a killed driver leaves Ray's processes, which are of its session
            try:
                if os.getsid(other.pid) == self.process.pid:
                    other.kill()
            except (ProcessLookupError, PermissionError, psutil.NoSuchProcess):
                continue


def undisturbed(home: Path, documents: dict[str, int], folder: Path) -> Undisturbed:
    """Build the mix once in peace."""
    words = ["mix", "--mix", corpus.MIX, "--data", home / "data", "--recipes", home / "recipes", "--scale", "--workers", 1]
    subprocess.run([sys.executable, "-m", "pipeline", *map(str, words), "--store", folder], check=True, capture_output=True)
    place = Folder(folder)
    return Undisturbed(place.contents(), place.finished(), _kilobytes(folder), documents)


def _kilobytes(folder: Path) -> int:
    return sum(4 * (1 + path.stat().st_size // 4096) if path.is_file() else 4 for path in folder.rglob("*"))
