"""The machine that pages' commands run on: a checkout, a home, a shell for each page; and the servers on loopback that machines share.

In: a page's blocks. Out: for each command that failed, what it was, where it stands and what it said. A shell's commands run one after
the other, in the environment and folder that the ones before left, without a terminal; a block that the text calls a file is written to
it, other Python is run, other YAML and JSON must be readable. Stand-ins (stand_ins.py) are put in, nothing else is changed. What runs
bears this machine's mark in its environment, and nothing with that mark is left at the end. Cost: what the commands cost.
"""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.docs.checkout import ROOT, check_out
from tests.docs.leftovers import MARK, end_leftovers
from tests.docs.pages import Block, commands
from tests.docs.pretend_hub import write_hub
from tests.docs.programs import install
from tests.docs.stand_ins import BEFORE, ENVIRONMENT, SMALLER, STAND_INS, stood_in
from tests.pipeline.hub_server import serve as serve_hub
from tools.s3_server import serve as serve_s3

# How pip finds its index is the machine's own business.
CARRIED = (".config/pip", ".pip", ".netrc")
SECONDS = 600  # of a block, far above any
SAID = 60  # lines of what a failed command said


@dataclass(frozen=True)
class Ran:
    """A command: where it stands, as the page has it, as it ran, its exit status (None: too long), what it said, its seconds."""

    place: str
    command: str
    ran: str
    status: int | None
    said: str
    seconds: float

    def __str__(self) -> str:
        how = f"was not done after {SECONDS} s" if self.status is None else f"ended with exit status {self.status}"
        as_what = [f"  which ran as: {self.ran.strip()}"] if self.ran != self.command else []
        said = [f"    {line}" for line in self.said.splitlines()[-SAID:]]
        return "\n".join([f"{self.place}: {self.command.strip()}", *as_what, f"  {how}; it said:", *said])


@dataclass
class Machine:
    """checkout: where commands run. environment: of each page's shell at its beginning. folder: all there is, removed in the end."""

    folder: Path
    checkout: Path
    environment: dict[str, str]
    ran: list[Ran] = field(default_factory=list)
    is_closed: bool = False
    _given: set[str] = field(default_factory=set)

    def read(self, blocks: Sequence[Block]) -> list[Ran]:
        """Do what a page asks for. Returns the commands that failed; after one, what follows in its block is left out."""
        (self.folder / "shell").write_text(f"cd {shlex.quote(str(self.checkout))}\n")
        begun = len(self.ran)
        for before in BEFORE:
            if blocks and before.page == blocks[0].page:
                self._run(f"{before.page}, before it", before.runs, before.runs)
        for block in blocks:
            if not self.is_closed:
                self._do(block)
        return [ran for ran in self.ran[begun:] if ran.status != 0]

    def close(self) -> None:
        """End what runs, and begin nothing more."""
        self.is_closed = True
        end_leftovers(self.environment[MARK])

    def _do(self, block: Block) -> None:
        if block.file:
            path = self.checkout / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(stood_in(block.page, block.text))
            if block.language in ("yaml", "python"):
                check = f".venv/bin/python -m tests.docs.recipes {shlex.quote(block.file)}"
                self._run(block.place, f"{block.file}, as the page has it", check)
        elif block.language == "sh":
            for line, command in commands(block.text):
                place = f"{block.page}:{block.line + line}"
                for first in self._first(block.page, command):
                    self._run(f"{place}, before it", first, first)
                if self._run(place, command, stood_in(block.page, command)).status != 0:
                    break
        elif block.language == "python":
            program = f".venv/bin/python - <<'END OF THIS BLOCK'\n{block.text}END OF THIS BLOCK\n"
            self._run(block.place, block.text, stood_in(block.page, program))
        elif block.language in ("yaml", "json"):
            self._parse(block)

    def _parse(self, block: Block) -> None:
        try:
            json.loads(block.text) if block.language == "json" else yaml.safe_load(block.text)
        except (ValueError, yaml.YAMLError) as error:
            self.ran.append(Ran(block.place, block.text, block.text, 1, str(error), 0))

    def _first(self, page: str, command: str) -> list[str]:
        wanted = [each.first for each in STAND_INS if each.first and each.is_for(page, command) and each.first not in self._given]
        self._given.update(wanted)
        return wanted

    def _run(self, place: str, command: str, text: str) -> Ran:
        """Run `text`, which stands in for the page's command, in the page's bash, and keep what it leaves to the next one."""
        state, said = self.folder / "shell", self.folder / "said"
        keep = f'{{ export -p; printf "cd %q\\n" "$PWD"; }} > {shlex.quote(str(state))}'
        program = f"source {shlex.quote(str(state))}\nset -o pipefail\ntrap {shlex.quote(keep)} EXIT\n{text}"
        begun = time.monotonic()
        with said.open("wb") as sink:
            # Into a file: a daemon that a command leaves behind would hold a pipe open.
            shell = subprocess.Popen(
                ["bash", "-c", program], env=self.environment, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True
            )
            try:
                status: int | None = shell.wait(SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(shell.pid, signal.SIGKILL)
                shell.wait()
                status = None
        ran = Ran(place, command, text, status, said.read_text(errors="replace"), time.monotonic() - begun)
        self.ran.append(ran)
        print(f"{ran.seconds:6.1f} s  {place}: {command.splitlines()[0]}", flush=True)
        return ran


@contextmanager
def services(folder: Path) -> Iterator[dict[str, str]]:
    """A hub and object storage on loopback for any number of machines: the places that ENVIRONMENT names."""
    commits = write_hub(ROOT, folder)
    with serve_s3() as s3, serve_hub(folder) as hub:
        s3.client.create_bucket(Bucket="bucket")
        hub.commits |= dict.fromkeys(commits, folder)
        hub.writable.add("your-name")
        yield {"hub": hub.url, "token": hub.token, "files": str(folder), "s3": s3.url}


@contextmanager
def machine(folder: Path, services: dict[str, str]) -> Iterator[Machine]:
    """A machine in `folder`, which is removed with everything that ran there."""
    checkout = check_out(folder / "tokenmill")
    for smaller in SMALLER:
        path = checkout / smaller.file
        path.write_text(yaml.safe_dump(smaller.applied(yaml.safe_load(path.read_text())), sort_keys=False))
    install(folder / "programs")
    places = services | {
        "home": _home(folder / "home"), "cache": _cache(), "programs": str(folder / "programs"), "path": os.environ["PATH"],
        "a_port": _free_port(), "b_port": _free_port(),
    }  # fmt: skip
    stands = {name: value.format(**places) for name, (value, _) in ENVIRONMENT.items()}
    made = Machine(folder, checkout, _clean() | stands | {MARK: str(folder)})
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(folder, ignore_errors=True)


def _home(folder: Path) -> str:
    for name in CARRIED:
        if (Path.home() / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(Path.home() / name)
    folder.mkdir(exist_ok=True)
    return str(folder)


def _cache() -> str:
    return os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")


def _free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def _clean() -> dict[str, str]:
    """This environment without what belongs to the tests themselves."""
    ours = ("PYTEST_", "RAY_", "TOKENMILL_", "HF_", "OMP_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours) and name not in ("PYTHONPATH", "VIRTUAL_ENV")}
