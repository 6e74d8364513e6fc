"""What a build that has not ended rests on, so that `make gc` leaves it alone.

In: the units that a build asks for, found or to be computed. Out: `mixes/<mix>-<request>.unfinished/<nn>-<stage>.json`, one list of
folders per call, written before anything of that call is computed; all of it removed when the build has ended well. A build that finds
everything done writes nothing. Cost: one small file per stage, 60 bytes per unit.

`<request>` tells builds of the same mix apart that were asked for with other data, sources or tokens: ending one does not
give up what a larger one left when it was killed.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence

from pipeline.errors import PipelineError
from pipeline.store import Store
from pipeline.unit import Json, Unit, canonical

SUFFIX = ".unfinished"


def claimed(store: Store, mix: str) -> dict[str, list[str]]:
    """What the mix's builds that have not ended rest on: folders by stage. Raises PipelineError for a list that is damaged."""
    folders: dict[str, list[str]] = {}
    for place in store.files("mixes"):
        if found := re.fullmatch(rf"mixes/{re.escape(mix)}-[0-9a-f]{{8}}{re.escape(SUFFIX)}/\d+-(.+)\.json", place):
            try:
                folders.setdefault(found[1], []).extend(json.loads(store.read(place)))
            except (ValueError, TypeError) as error:
                raise PipelineError(f"{place} is damaged ({error}); run make mix again") from error
    return folders


class Unfinished:
    """The claims of one build. `request`: what tells it from another build of this mix."""

    def __init__(self, store: Store, mix: str, request: Mapping[str, Json]) -> None:
        self.store = store
        self.folder = f"mixes/{mix}-{hashlib.sha256(canonical(dict(request))).hexdigest()[:8]}{SUFFIX}"
        self._asked: list[tuple[str, bytes]] = []
        self._written = 0

    def claim(self, stage: str, units: Sequence[Unit], missing: bool) -> None:
        """These units are needed. missing: some of them will now be computed, so from here on there is work to lose."""
        self._asked.append((stage, canonical([unit.folder for unit in units])))
        if missing or self._written:
            for number, (name, folders) in enumerate(self._asked[self._written :], self._written):
                self.store.write(f"{self.folder}/{number:02d}-{name}.json", folders)
            self._written = len(self._asked)

    def end(self) -> None:
        """The build's manifest stands: it says what is needed from now on."""
        if self._written or self.store.files(self.folder):
            self.store.remove(self.folder)
