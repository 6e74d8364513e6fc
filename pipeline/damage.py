"""What a person reads when a finished table of a store cannot be read: which one it is, and what mends it."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from pipeline.errors import PipelineError
from pipeline.store import Store


@contextmanager
def named(store: Store, path: str) -> Iterator[None]:
    """Raise what is wrong with the Parquet file that is read within as a PipelineError; FileNotFoundError stays one."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise PipelineError(f"{store.url(path)}: cannot be read ({error}); run make verify REMOVE=1, then make mix again") from error
