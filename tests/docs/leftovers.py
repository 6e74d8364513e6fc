"""What the commands of the pages left running, and its end: `python -m tests.docs.leftovers` where a page says `ray stop`.

In: the mark that a machine's processes bear in their environment. Not `ray stop`, which ends every Ray of whoever calls it, also one that
has nothing to do with these tests.
"""

import os

import psutil

MARK = "TOKENMILL_PAGES"  # in the environment of whatever a machine runs: the machine's folder
RAY = ("raylet", "gcs_server", "ray::", "/ray/")


def end_leftovers(mark: str, only: tuple[str, ...] = ()) -> int:
    """Kill all processes with this mark but this one and those that it came from; `only`: with one of these in their command line."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        try:
            told = " ".join(process.cmdline())
            if process.pid not in own and process.environ().get(MARK) == mark and (not only or any(word in told for word in only)):
                process.kill()
                found.append(process)
        except psutil.Error:
            continue  # it has ended, or is another user's
    psutil.wait_procs(found, timeout=10)
    return len(found)


if __name__ == "__main__":
    print(f"Stopped {end_leftovers(os.environ[MARK], RAY)} processes of Ray.")
