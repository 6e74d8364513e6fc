"""sbatch and srun with this machine as each node: a job runs at once and is waited for; at most NODES nodes, of one core each."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.docs.programs.asked import Arguments, refuse

NODES = 2
DIRECTIVES = {  # of sbatch, with what they take
    "job-name": r"[\w.-]+", "nodes": r"\d+", "ntasks-per-node": r"\d+", "cpus-per-task": r"\d+", "gpus-per-node": r"\d+",
    "exclusive": None, "requeue": None, "mem": r"\d+[KMGT]?", "time": r"(\d+-)?\d+(:\d+){0,2}", "dependency": r"singleton|after\w+:\d+",
    "signal": r"(B:)?[A-Z]+@\d+", "output": r"\S+", "error": r"\S+", "partition": r"\w+",
}  # fmt: skip


def sbatch(arguments: Sequence[str]) -> int:
    if len(arguments) != 1:
        refuse("usage here: sbatch <script>")
    script = Path(arguments[0])
    if not script.is_file():
        refuse(f"Unable to open file {script}")
    asked = directives(script.read_text())
    job = os.getpid()
    surroundings = {
        "SLURM_SUBMIT_DIR": str(Path.cwd()), "SLURM_JOB_ID": str(job), "SLURM_CPUS_PER_TASK": "1",
        "SLURM_JOB_NUM_NODES": str(min(int(asked.get("nodes", 1)), NODES)), "SLURM_NTASKS_PER_NODE": asked.get("ntasks-per-node", "1"),
    }  # fmt: skip
    print(f"Submitted batch job {job}", flush=True)
    with open(f"slurm-{job}.out", "w") as said:
        status = subprocess.call(["bash", str(script)], env=os.environ | surroundings, stdout=said, stderr=said)
    shutil.rmtree(f"/tmp/ray-{job}", ignore_errors=True)  # what nodes write on disks of their own goes with the job
    if status:
        print(f"job {job} ended with exit status {status}; it said:\n{Path(said.name).read_text()}")
    return status


def directives(script: str) -> dict[str, str]:
    """The #SBATCH lines of a script up to its first command. A line that Slurm would not take is refused."""
    if not script.startswith("#!"):
        refuse('This does not look like a batch script. The first line must start with "#!"')
    found = {}
    for line in script.splitlines()[1:]:
        if line.strip() and not line.startswith("#"):
            break
        if not line.startswith("#SBATCH"):
            continue
        matched = re.fullmatch(r"#SBATCH --([a-z-]+)(?:=(\S+))?(\s+#.*)?", line)
        if not matched or matched[1] not in DIRECTIVES:
            refuse(f"unrecognized option: {line}")
        pattern, value = DIRECTIVES[matched[1]], matched[2]
        if (pattern is None) != (value is None) or (pattern and not re.fullmatch(pattern, value)):
            refuse(f"invalid argument: {line}")
        found[matched[1]] = value or ""
    return found


def srun(arguments: Sequence[str]) -> int:
    if "SLURM_JOB_ID" not in os.environ:
        refuse("srun is called within a job")
    parser = Arguments("srun")
    for name in ("--nodes", "--ntasks"):
        parser.add_argument(name, type=int, default=1)
    for name in ("--nodelist", "--exclude"):
        parser.add_argument(name)
    parser.add_argument("command", nargs="...")
    asked = parser.parse_args(arguments)
    if not asked.command or asked.ntasks != asked.nodes or asked.nodes > int(os.environ["SLURM_JOB_NUM_NODES"]):
        refuse(f"cannot place {asked.ntasks} tasks on {asked.nodes} of {os.environ['SLURM_JOB_NUM_NODES']} nodes, or there is no command")
    os.execvp(asked.command[0], asked.command)
