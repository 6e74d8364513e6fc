"""HF_TOKEN and the keys of object storage: sent where they belong, and in no message, log or traceback."""

import os
import subprocess
import sys
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from pipeline.download import hub_file, transfer
from pipeline.errors import PipelineError
from pipeline.unit import Artifact
from tests.pipeline.hub_server import COMMIT, serve
from tests.pipeline.test_transfer import point_at

TOKEN = "hf_NEVERSHOWN"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIANEVERSHOWN", "AWS_SECRET_ACCESS_KEY": "secretNEVERSHOWN", "AWS_SESSION_TOKEN": "sessionNEVERSHOWN"}
WANTED = Artifact("a.bin", "0" * 64, 300_000)

# Every way to fail at a store, each with its whole traceback and all that libraries log.
PROGRAM = """
import logging, sys, traceback
logging.basicConfig(level=logging.INFO)
from pipeline import objects
objects.FIRST_WAIT_S = 0.001
for endpoint in sys.argv[1:]:
    import os
    os.environ["AWS_ENDPOINT_URL"] = endpoint
    import s3fs
    s3fs.S3FileSystem.clear_instance_cache()
    from pipeline.store import Store
    for act in (lambda: Store("s3://bucket/x").files("tokens"), lambda: Store("s3://bucket/x").write("a", b"x" * 100)):
        try:
            act()
        except Exception:
            traceback.print_exc()
"""


@pytest.mark.parametrize("fault", ["truncate", "reset", "status", "wrong bytes", "dead"])
def test_giving_up_on_the_hub_does_not_show_the_token_nor_a_signed_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], fault: str
) -> None:
    caplog.set_level("DEBUG")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(transfer, "FIRST_PAUSE_S", 0.001)
    (tmp_path / "hub/some/set").mkdir(parents=True)
    (tmp_path / "hub/some/set/a.bin").write_bytes(bytes(WANTED.bytes))
    with serve(tmp_path / "hub") as hub:
        point_at(hub, monkeypatch)
        hub.cdn = True
        if fault in ("truncate", "reset"):
            hub.inject(fault, match="/signed/", after=0, times=99)
        elif fault == "status":
            hub.inject("status", match="/signed/", code=403, times=99)
        elif fault == "dead":
            monkeypatch.setattr(
                "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{revision}/{filename}"
            )
        with pytest.raises(PipelineError) as error:
            transfer.fetch(f"hf://datasets/some/set@{COMMIT}/a.bin", WANTED, tmp_path / "part", hub_file.stream)
        if fault != "dead":
            assert next(seen.authorization for seen in hub.log if not seen.path.startswith("/signed/")) == f"Bearer {TOKEN}"
    assert "/signed/" not in str(error.value)
    out, err = capfd.readouterr()
    assert "NEVERSHOWN" not in "".join(traceback.format_exception(error.value)) + caplog.text + out + err


class Refusing(BaseHTTPRequestHandler):
    """Refuses as S3 does a wrong secret: it says back whose key it was, and what was signed."""

    asked: ClassVar[list[str]] = []

    def refuse(self) -> None:
        self.asked.append(self.headers.get("Authorization", ""))
        body = (
            "<?xml version='1.0'?><Error><Code>SignatureDoesNotMatch</Code><Message>wrong</Message>"
            f"<AWSAccessKeyId>{KEYS['AWS_ACCESS_KEY_ID']}</AWSAccessKeyId><StringToSign>{KEYS['AWS_SESSION_TOKEN']}</StringToSign></Error>"
        ).encode()
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if self.command != "HEAD" else b"")

    do_GET = do_PUT = do_HEAD = do_POST = refuse

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.slow
def test_no_way_to_fail_at_an_object_store_shows_a_key(tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, f"http://127.0.0.1:{server.server_port}", "http://127.0.0.1:9"],
        env=clean | KEYS | {"AWS_REGION": "us-east-1", "TOKENMILL_CACHE": str(tmp_path)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    server.shutdown()
    server.server_close()
    assert done.stderr.count("pipeline.errors.PipelineError: s3://bucket/x") == 4, done.stderr
    assert "SignatureDoesNotMatch" in done.stderr
    assert any(KEYS["AWS_ACCESS_KEY_ID"] in asked for asked in Refusing.asked), "it was not these keys that were sent"
    assert "NEVERSHOWN" not in done.stdout + done.stderr
