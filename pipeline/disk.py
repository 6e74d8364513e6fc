"""What a person reads when the system refuses to write: one message, wherever it is met.

Libraries tell of a full disk in their own ways: an OSError with its number, or the system's words within a message of another kind.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import PipelineError

FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def explained(place: str, work: str) -> Iterator[None]:
    """Raise what the system refuses within as a PipelineError. place: where it writes to. work: what it is doing."""
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:
        if is_full(error):
            raise PipelineError(
                f"no space left under {place} ({work}): free some or choose another STORE, then run the same command again; "
                "finished work is kept"
            ) from error
        if isinstance(error, OSError):
            raise PipelineError(f"{work}: {error}") from error
        raise


def is_full(error: Exception) -> bool:
    return getattr(error, "errno", None) in FULL or any(os.strerror(number) in str(error) for number in FULL)
