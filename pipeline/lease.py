"""One run at a time on an object store: a lease, which is an object that its holder renews.

Object storage has no locks, so this is a courtesy and no guarantee: two runs that both believe to hold the lease do the same work
twice and nothing worse, because units are idempotent and every object appears whole. A holder that vanished is known by its lease
standing still: for `seconds` by the waiting run's own clock, or at once when it was a process of this machine that is gone.
"""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.objects import Objects
from pipeline.unit import Json

NAME = ".lock"
SECONDS = 60.0
POLL_S = 1.0


class Lease:
    """Use as a context manager. `announce` is told when another run holds the store, and when it is gone."""

    def __init__(self, objects: Objects, announce: Callable[[str], None], seconds: float) -> None:
        self.objects, self.announce, self.seconds = objects, announce, seconds
        self.owner = secrets.token_hex(8)
        self._beat = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> "Lease":
        announced = False
        seen, since = b"", time.monotonic()
        while not self._taken():
            held = self._read()
            if held != seen:
                seen, since = held, time.monotonic()
            fields = _fields(held)
            if not announced and held:
                self.announce(
                    f"another run (process {fields.get('process', '?')} on {fields.get('host', '?')}) is writing to {self.objects.url}; "
                    f"waiting for it (if it is dead, for {self.seconds:.0f} s)"
                )
                announced = True
            if held and (_gone(fields) or time.monotonic() - since > self.seconds):
                self.announce(f"that run has ended without giving {self.objects.url} back; going on")
                self.objects.remove([NAME])
            else:
                time.sleep(min(POLL_S, self.seconds / 4))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        with suppress(PipelineError, OSError):  # a store that is gone needs no lease back
            if _fields(self._read()).get("owner") == self.owner:
                self.objects.remove([NAME])

    def _taken(self) -> bool:
        """Whether there was no lease and now there is ours."""
        if self._read():
            return False
        try:
            self.objects.write(NAME, self._content(), create=True)
        except FileExistsError:
            return False
        return _fields(self._read()).get("owner") == self.owner

    def _renew(self) -> None:
        while not self._over.wait(self.seconds / 4):
            self._beat += 1
            try:
                if _fields(self._read()).get("owner") != self.owner:
                    return  # another run has taken it for dead: nothing breaks, it only computes units that this one computes too
                self.objects.write(NAME, self._content())
            except (PipelineError, OSError):
                continue  # the work itself will meet the same trouble and name it

    def _read(self) -> bytes:
        try:
            return self.objects.read(NAME)
        except FileNotFoundError:
            return b""

    def _content(self) -> bytes:
        fields = {"owner": self.owner, "host": socket.gethostname(), "boot": _boot(), "process": os.getpid(), "beat": self._beat}
        return json.dumps(fields).encode()


def _fields(content: bytes) -> dict[str, Json]:
    try:
        fields = json.loads(content)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _gone(fields: dict[str, Json]) -> bool:
    """Whether the holder was a process of this machine and is no more."""
    if (fields.get("host"), fields.get("boot")) != (socket.gethostname(), _boot()) or not _boot():
        return False
    try:
        os.kill(int(fields["process"]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, KeyError, ValueError):
        pass
    return False


def _boot() -> str:
    """Names this machine since it was started; "" where nothing does."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
