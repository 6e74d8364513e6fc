"""Programs that the pages call and a test machine has not: each does on this machine what it is asked for, as far as it can, and refuses
what is malformed. PROGRAMS says which function stands in for which; `install` puts them into a folder of the PATH."""

import sys
from pathlib import Path

PROGRAMS = {
    "sbatch": "slurm:sbatch", "srun": "slurm:srun",
    "kubectl": "kubernetes:kubectl", "helm": "kubernetes:helm",
    "docker": "docker:docker",
    "lm_eval": "lm_eval:lm_eval",
}  # fmt: skip
PROGRAM = """#!{python}
import sys

sys.path.insert(0, {root!r})
from tests.docs.programs.{module} import {function}

sys.exit({function}(sys.argv[1:]))
"""


def install(folder: Path) -> None:
    folder.mkdir()
    root = str(Path(__file__).resolve().parents[3])
    for name, place in PROGRAMS.items():
        module, function = place.split(":")
        (folder / name).write_text(PROGRAM.format(python=sys.executable, root=root, module=module, function=function))
        (folder / name).chmod(0o755)
