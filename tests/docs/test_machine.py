"""The machine that runs the pages: it tells a command that fails from one that does not, and keeps what a shell keeps."""

import os
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.docs.leftovers import MARK, end_leftovers
from tests.docs.machine import Machine
from tests.docs.pages import blocks
from tests.docs.programs.docker import docker
from tests.docs.programs.kubernetes import helm, kubectl
from tests.docs.programs.slurm import directives, srun


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    (tmp_path / "checkout").mkdir()
    return Machine(tmp_path, tmp_path / "checkout", {"PATH": os.environ["PATH"], MARK: str(tmp_path)})


def read(machine: Machine, text: str) -> list[str]:
    """The places of the commands that failed."""
    (machine.checkout / "README.md").write_text(text)
    return [ran.place for ran in machine.read(blocks(machine.checkout, "README.md"))]


def test_a_failure_is_told_with_its_place_and_ends_its_block_alone(machine: Machine) -> None:
    text = "```sh\ntrue\necho why; false | true  # here\ntouch no\n```\n\n```sh\ntouch yes\n```\n"
    assert read(machine, text) == ["README.md:3"]
    assert [path.name for path in machine.checkout.iterdir() if path.name != "README.md"] == ["yes"]
    told = str(next(ran for ran in machine.ran if ran.status))
    assert told.startswith("README.md:3: echo why;") and "exit status 1" in told and told.endswith("    why")


def test_a_page_is_one_shell_and_the_next_page_another(machine: Machine) -> None:
    text = "```sh\nmkdir a && cd a\nexport B='c  d'\n```\n\n```sh\ntest \"$B\" = 'c  d' && touch here\n```\n"
    assert read(machine, text) == [] and (machine.checkout / "a" / "here").exists()
    assert read(machine, '```sh\ntest -z "$B" && test -d a\n```\n') == []


def test_files_are_written_before_what_uses_them(machine: Machine) -> None:
    text = "`a/b.txt`:\n\n```text\nx: 1\n```\n\n```sh\ngrep -q 'x: 1' a/b.txt\ngrep -q 'x: 2' a/b.txt\n```\n"
    assert read(machine, text) == ["README.md:9"]


def test_yaml_and_json_without_a_file_must_be_readable(machine: Machine) -> None:
    assert read(machine, '```yaml\na: [1\n```\n\n```json\n{"a": 1,}\n```\n\n```yaml\na: [1]\n```\n') == ["README.md:2", "README.md:6"]


def test_a_command_has_no_terminal_and_no_input(machine: Machine) -> None:
    assert read(machine, "```sh\n! read line\ntest ! -t 0 && test ! -t 1\n```\n") == []


def test_what_a_machine_left_running_is_ended_and_nothing_else(tmp_path: Path) -> None:
    theirs = subprocess.Popen(["sleep", "60"])
    ours = subprocess.Popen(["sleep", "60"], env=os.environ | {MARK: str(tmp_path)}, start_new_session=True)
    try:
        assert end_leftovers(str(tmp_path), only=("raylet",)) == 0 and end_leftovers(str(tmp_path)) == 1
        assert not psutil.pid_exists(ours.pid) and theirs.poll() is None
    finally:
        theirs.kill()
        theirs.wait()


@pytest.mark.parametrize("line", ["--nodes=eight", "--node=8", "--exclusive=yes", "--time=tomorrow", "nodes=8"])
def test_a_batch_script_that_slurm_would_refuse_is_refused(line: str) -> None:
    assert directives("#!/bin/bash\n#SBATCH --nodes=8   # a remark\n#SBATCH --exclusive\n") == {"nodes": "8", "exclusive": ""}
    with pytest.raises(SystemExit):
        directives(f"#!/bin/bash\n#SBATCH {line}\n")


def test_srun_takes_no_more_nodes_than_the_job_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    with pytest.raises(SystemExit):
        srun(["--nodes=3", "--ntasks=3", "true"])


JOB = """apiVersion: ray.io/v1
kind: RayCluster
metadata: {name: mill}
spec:
  headGroupSpec:
    rayStartParams: {num-cpus: "0"}
    template: {spec: {containers: [{name: head, image: "registry.example/mill:1", volumeMounts: [{name: cache, mountPath: /c}]}],
               volumes: [{name: cache}]}}
"""


def test_a_cluster_is_made_in_order_and_of_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(MARK, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    apply = ["apply", "-f", "mill.yaml"]
    Path("mill.yaml").write_text(JOB)
    build = ["build", "-t", "registry.example/mill:1", "."]
    steps = {
        "No such file": lambda: docker(build), "not exist locally": lambda: docker(["push", "registry.example/mill:1"]),
        "repo kuberay not found": lambda: helm(["install", "kuberay-operator", "kuberay/kuberay-operator", "--version", "1.7.0"]),
        "not installed": lambda: kubectl(apply),
    }  # fmt: skip
    for why, step in steps.items():
        with pytest.raises(SystemExit):
            step()
        assert why.lower() in capsys.readouterr().err.lower()
    Path("Dockerfile").write_text("FROM a\nCOPY . b\nRUN pip install \\\n  -r mill.yaml\n")
    assert docker(build) == docker(["push", "registry.example/mill:1"]) == 0
    assert helm(["repo", "add", "kuberay", "https://a.b"]) == 0
    assert helm(["install", "kuberay-operator", "kuberay/kuberay-operator", "--version", "1.7.0"]) == 0
    assert kubectl(apply) == 0
    for wrong in (JOB.replace("rayStartParams", "startParams"), JOB.replace('"0"', "0"), JOB.replace("mill:1", "mill:2"),
                  JOB.replace("[{name: cache}]", "[]"), JOB.replace("ray.io/v1", "ray.io/v2")):  # fmt: skip
        Path("mill.yaml").write_text(wrong)
        with pytest.raises(SystemExit):
            kubectl(apply)
    Path("Dockerfile").write_text("FROM a\nRUN pip install -r missing.lock\n")
    with pytest.raises(SystemExit):
        docker(build)
