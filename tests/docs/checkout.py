"""A checkout as a user has it: the files of this one, and a `.venv` whose programs run them.

In: the working tree (what git tracks or would track) and the interpreter that runs the tests, with its libraries. Out: a folder with a
commit of its own, in which `make` finds everything installed. Cost: a second, and the few MB of the files. Not: the installation itself,
which `.ci/run` does from nothing; libraries are read where they lie, only the packages of this project are the copy's.
"""

import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
READER = ["-c", "user.name=reader", "-c", "user.email=reader@localhost"]
PROGRAM = "#!{python}\nimport sys\n\nfrom tools.cli import main\n\nsys.exit(main())\n"


def check_out(folder: Path) -> Path:
    """Copy the working tree to `folder`, which must not be there yet, and give it a `.venv`."""
    folder.mkdir(parents=True)
    listed = subprocess.run(["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():  # one that was removed and not committed is listed still
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    for command in (["init", "-q"], ["add", "-A"], [*READER, "commit", "-qm", "as it is"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    _install(folder)
    return folder


def _install(folder: Path) -> None:
    home = folder / ".venv"
    venv.EnvBuilder(symlinks=True, with_pip=False).create(home)
    python, programs = home / "bin" / "python", Path(sys.prefix) / "bin"
    packages = next((home / "lib").glob("python*")) / "site-packages"
    # In this order: this project's packages from the copy, everything else from where it is installed.
    places = dict.fromkeys([str(folder), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    (packages / "checkout.pth").write_text("".join(f"{place}\n" for place in places))
    for program in programs.iterdir():
        target = home / "bin" / program.name
        if target.exists() or not program.is_file():
            continue
        content = program.read_bytes()
        if content.startswith(b"\x7fELF"):
            target.symlink_to(program.resolve())
        else:  # a script of Python names the interpreter that it was installed for
            target.write_bytes(content.replace(bytes(programs), bytes(target.parent)))
            target.chmod(program.stat().st_mode)
    entry = home / "bin" / "tokenmill"
    entry.write_text(PROGRAM.format(python=python))
    entry.chmod(entry.stat().st_mode | stat.S_IXUSR)
    for stamp in re.findall(r"^\$\(VENV\)/(\.\w+):", (folder / "Makefile").read_text(), re.M):
        (home / stamp).touch()
