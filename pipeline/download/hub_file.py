"""The bytes of a file on the Hugging Face hub, from any byte on: what transfer.py reads.

In: `hf://datasets/<owner>/<name>@<commit>/<path>` (without `datasets/` a model's file). Out: blocks as they come. The client
library gives the URL, the headers with the token and the session with the user's settings (HF_ENDPOINT, HF_TOKEN, proxies,
HF_HUB_OFFLINE); it does not fetch, because it cannot resume in another process and compares lengths only.

The token goes to the hub and, redirected to a storage host, no further (httpx2 drops it when the origin changes). No error
quotes a header or a URL with its query, which there is a signature.
"""

import os
import re
from collections.abc import Generator
from email.utils import parsedate_to_datetime
from time import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pipeline.download import HUB
from pipeline.download.transfer import Broken
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    import httpx2

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # as with Ray: who runs what is told to nobody
CONNECT_S, SILENCE_S = 15.0, 60.0
PLACE = re.compile(rf"{HUB}(datasets/)?([^/@]+/[^/@]+)@([^/]+)/(.+)", re.DOTALL)
PASSING = {408, 409, 425, 429}  # and all from 500 on


def place_of(repository: str, revision: str, path: str, dataset: bool = True) -> str:
    return f"{HUB}{'datasets/' if dataset else ''}{repository}@{revision}/{path}"


def stream(place: str, offset: int) -> Generator[tuple[int, bytes]]:
    """transfer.Stream for places on the hub."""
    # Imported here: they take 0.3 s, and a finished mix asks no hub.
    import httpx2
    from huggingface_hub import hf_hub_url
    from huggingface_hub.errors import OfflineModeIsEnabled
    from huggingface_hub.utils import build_hf_headers, get_session

    match = PLACE.fullmatch(place)
    if not match:
        raise PipelineError(f"{place} is no place on the hub")
    dataset, repository, revision, path = match.groups()
    url = hf_hub_url(repository, path, repo_type="dataset" if dataset else "model", revision=revision)
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
    limits = httpx2.Timeout(SILENCE_S, connect=CONNECT_S)
    try:
        with get_session().stream("GET", url, headers=headers, timeout=limits, follow_redirects=True) as answer:
            start = _accepted(answer, place, repository, offset)
            for block in answer.iter_raw():
                yield start, block
                start += len(block)
    except OfflineModeIsEnabled:
        raise PipelineError(f"{place} is not here yet and HF_HUB_OFFLINE is set; unset it to download") from None
    except httpx2.HTTPError as error:
        raise Broken(f"{type(error).__name__} {error}".strip()[:200]) from None


def _accepted(answer: "httpx2.Response", place: str, repository: str, offset: int) -> int:
    """Where the body begins. Raises Broken or PipelineError when it is not the file's."""
    code = answer.status_code
    if code == 200:
        return 0
    if code == 206:
        given = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
        return int(given[1]) if given else offset
    host = urlsplit(str(answer.url)).hostname
    # A signed address expires; the hub gives another one for the asking.
    if code in PASSING or code >= 500 or answer.history:
        raise Broken(f"{host} answered {code} {answer.reason_phrase}", _asked_pause(answer.headers))
    if answer.headers.get("X-Error-Code") == "GatedRepo":
        raise PipelineError(gated(repository))
    remedy = {
        401: "it needs a token that may read it: set HF_TOKEN on every machine that downloads",
        403: "your token may not read it: set another HF_TOKEN",
        404: "that commit is gone or never had it: correct the revision in the source's YAML, or in DATA",
    }
    raise PipelineError(f"{place}: {host} answered {code} {answer.reason_phrase}; {remedy.get(code, 'run the same command again')}")


def gated(repository: str, terms: str | None = None) -> str:
    """The one line for a data set whose terms were not accepted."""
    address = terms or f"https://huggingface.co/datasets/{repository}"
    return f"{repository} is gated; accept its terms at {address} and set HF_TOKEN (on every machine that downloads)"


def _asked_pause(headers: "httpx2.Headers") -> float:
    """Seconds, from Retry-After (a number or a date) or the hub's RateLimit (`"api";r=0;t=55`); 0 where neither is there."""
    told = headers.get("Retry-After", "").strip()
    if told.isdigit():
        return float(told)
    if told:
        try:
            return max(0.0, parsedate_to_datetime(told).timestamp() - time())
        except ValueError:
            pass
    left = re.search(r";\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d{1,6})", headers.get("RateLimit", ""))
    return float(left[1]) if left else 0.0
