"""How often a token sequence repeats itself: the one repetition rule of the filter and of the trainer.

In:   token ids, many segments (documents, or training instances) in one flat array.
Out:  per segment, the largest number of contiguous repeats of any n-gram of 1 to 13 tokens.
Cost: every token is looked at about 3 times at most and far less often where the text repeats more (see
      `_count`); no allocation beyond the answer. Compiled once per machine and cached beside this file.
Not:  it decides nothing. OLMoE drops a document, and masks a training instance, at 32 repeats or more
      (OLMoE paper, section 2, and `instance_filter` of its released configuration).

Importing this module imports numba (half a second): import it where tokens are worked on, not where
recipes are read.
"""

import numba
import numpy as np
import numpy.typing as npt

MAX_PERIOD = 13
MAX_COUNT = 32


def max_repeats(
    tokens: npt.NDArray[np.unsignedinteger], offsets: npt.NDArray[np.int64], max_period: int = MAX_PERIOD
) -> npt.NDArray[np.int32]:
    """The largest number of contiguous repeats of one n-gram, per segment.

    tokens: [t] uint16 or uint32. offsets: [n + 1] int64, segment i is tokens[offsets[i]:offsets[i + 1]].
    Returns [n] int32. With `run` the longest stretch in which token i equals token i - p, an n-gram of p
    tokens stands there floor((run + p) / p) times; the value is the maximum over p = 1 … max_period. So a
    segment in which nothing repeats has 1, an empty one 0. Nothing counts across a segment's border.
    Raises ValueError for another dtype, for offsets that fall or leave the array, and for max_period < 1.
    """
    tokens, offsets = _checked(tokens, offsets, max_period)
    return _count_segments(tokens, offsets, max_period, 1)


def instance_mask(
    instances: npt.NDArray[np.unsignedinteger], max_count: int = MAX_COUNT, max_period: int = MAX_PERIOD
) -> npt.NDArray[np.bool_]:
    """Which training instances may count in the loss: True keeps, False has `max_count` repeats or more.

    instances: [n, sequence_length] uint16 or uint32. Returns [n] bool. Same rule as `max_repeats`, but only
    stretches long enough to matter are searched for, which is many times faster.
    """
    count, length = instances.shape
    offsets = np.arange(count + 1, dtype=np.int64) * length
    tokens, offsets = _checked(instances.reshape(-1), offsets, max_period)
    if max_count < 2:
        raise ValueError(f"max_count is {max_count}: a single occurrence is no repeat, so it must be at least 2")
    return _count_segments(tokens, offsets, max_period, max_count - 1) < max_count


def _checked(
    tokens: npt.NDArray[np.unsignedinteger], offsets: npt.NDArray[np.int64], max_period: int
) -> tuple[npt.NDArray[np.unsignedinteger], npt.NDArray[np.int64]]:
    if tokens.dtype not in (np.uint16, np.uint32) or tokens.ndim != 1:
        raise ValueError(f"tokens must be a flat uint16 or uint32 array, not {tokens.dtype}{list(tokens.shape)}")
    offsets = np.ascontiguousarray(offsets, dtype=np.int64)
    if not len(offsets) or offsets[0] < 0 or offsets[-1] > len(tokens) or (np.diff(offsets) < 0).any():
        raise ValueError(f"offsets must rise within 0 … {len(tokens)} and hold one entry more than there are segments")
    if max_period < 1:
        raise ValueError(f"max_period is {max_period}; it must be at least 1")
    # A memory-mapped file is read-only; a read-only view of everything spares a second compilation.
    view = np.ascontiguousarray(tokens).view(np.ndarray)
    view.flags.writeable = False
    return view, offsets


@numba.njit(cache=True, nogil=True)
def _count_segments(tokens, offsets, max_period, floor):  # type: ignore[no-untyped-def]
    counts = np.empty(len(offsets) - 1, dtype=np.int32)
    for i in range(len(counts)):
        counts[i] = _count(tokens, offsets[i], offsets[i + 1], max_period, floor)
    return counts


@numba.njit(cache=True, nogil=True)
def _count(tokens, start, end, max_period, floor):  # type: ignore[no-untyped-def]
    """Repeats in tokens[start:end] if they exceed `floor`, else min(floor, length).

    To beat the best count so far, a period p needs best · p matching tokens in a row. A window of that
    length is tested from its end: the first mismatch met rules out every window that holds it, so the
    next one starts right behind it. On text that does not repeat this looks at one token in best · p.
    """
    best = min(np.int64(floor), end - start)
    for period in range(1, max_period + 1):
        left = start + period
        while best > 0 and left + best * period <= end:
            right = left + best * period
            at = right - 1
            while at >= left and tokens[at] == tokens[at - period]:
                at -= 1
            if at >= left:
                left = at + 1
                continue
            while right < end and tokens[right] == tokens[right - period]:
                right += 1
            best = (right - left + period) // period
            left = right + 1
    return best
