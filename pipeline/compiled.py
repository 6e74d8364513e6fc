"""Where numba keeps what it compiled: under ~/.cache, by the contents of the code.

numba's own cache goes by the time of the file that a function stands in, not of those it calls: after an update it may run old
code, silently. Here a changed line in any file that numba compiles from is another folder, and all is compiled again, once: a
minute or two. The folder must be known before numba is imported, so `pipeline/__init__.py` asks for it.

numba keeps machine code in pickles and runs what it finds, so the folder is its owner's alone: mode 0700, or another one is taken.
"""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

KEPT = 3  # folders of earlier states of the code that stay, for those who go back and forth


def use_own_cache() -> None:
    """Set NUMBA_CACHE_DIR, unless it is set."""
    if "NUMBA_CACHE_DIR" in os.environ:
        return
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        content = file.read_bytes()
        if b"njit" in content:
            digest.update(file.relative_to(package).as_posix().encode() + b"\0" + content)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tokenmill" / "compiled"
    folder = home / digest.hexdigest()[:16]
    try:
        if not folder.is_dir():
            folder.mkdir(mode=0o700, parents=True)
            for old in sorted(home.iterdir(), key=lambda each: each.stat().st_mtime, reverse=True)[KEPT + 1 :]:
                shutil.rmtree(old, ignore_errors=True)
        folder.chmod(0o700)  # of one that was made before, or by another umask
    except OSError:  # no home that can be written to, or not its own
        folder = Path(tempfile.gettempdir()) / f"tokenmill-compiled-{os.getuid()}-{digest.hexdigest()[:16]}"
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():  # whoever made it first could put code there
            folder = Path(tempfile.mkdtemp(prefix="tokenmill-compiled-"))
        folder.chmod(0o700)
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
