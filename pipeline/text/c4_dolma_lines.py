"""What Dolma's tagger c4_v2 sees in a text: lines without an end or with few words, and what condemns the text as a whole.

In:   the bytes of many texts in one flat array with their offsets, as Arrow holds a string column, and their lines.
Out:  flags per text; per line the rules that apply to it.
Cost: two passes over the bytes, about 3 ns a byte in all. Imports numba.
"""

import numba
import numpy as np
import numpy.typing as npt

from pipeline.text.interning import native
from pipeline.text.lines import Lines, trimmed
from pipeline.text.utf8 import Bytes, Offsets, decode, is_space

NO_ENDING_PUNCTUATION, FEW_WORDS = 1, 2
RULES = ("no_ending_punctuation", "few_words")
FEWEST_WORDS = 3
CURLY_BRACE, LOREM_IPSUM, JAVASCRIPT = 1, 2, 4

_LOREM_IPSUM = np.frombuffer(b"lorem ipsum", np.uint8)
_JAVASCRIPT = np.frombuffer(b"javascript", np.uint8)


@numba.njit(cache=True, nogil=True)
def condemning(data: Bytes, offsets: Offsets) -> npt.NDArray[np.uint8]:
    """[texts] uint8: CURLY_BRACE, LOREM_IPSUM, JAVASCRIPT where they are anywhere in the text, words in any case."""
    flags = np.zeros(len(offsets) - 1, dtype=np.uint8)
    for text in range(len(flags)):
        end = offsets[text + 1]
        for at in range(offsets[text], end):
            byte = data[at]
            if byte | 0x20 == 0x70:  # the p of ipsum is rarer than the l of lorem
                if at - 7 >= offsets[text] and data[at - 1] | 0x20 == 0x69 and _stands(_LOREM_IPSUM, data, at - 7, end):
                    flags[text] |= LOREM_IPSUM
            elif byte == 0x7B:
                flags[text] |= CURLY_BRACE
            elif byte | 0x20 == 0x6A and _stands(_JAVASCRIPT, data, at, end):
                flags[text] |= JAVASCRIPT
    return flags


@native
def _stands(word, data, at, end):  # type: ignore[no-untyped-def]
    if at + len(word) > end:
        return False
    for i in range(len(word)):
        byte = data[at + i]
        if byte != word[i] and not (0x41 <= byte <= 0x5A and byte + 0x20 == word[i]):
            return False
    return True


def judge(data: Bytes, lines: Lines) -> npt.NDArray[np.uint8]:
    """[lines] uint8: NO_ENDING_PUNCTUATION | FEW_WORDS of each line (of `split`), stripped."""
    return _judge(data, lines.starts, lines.ends)


@numba.njit(cache=True, nogil=True)
def _judge(data, starts, ends):  # type: ignore[no-untyped-def]
    rules = np.zeros(len(starts), dtype=np.uint8)
    for line in range(len(starts)):
        at, end = trimmed(data, starts[line], ends[line])
        last = data[end - 1] if at < end else 0
        if not (last == 0x2E or last == 0x3F or last == 0x21 or last == 0x22):
            rules[line] |= NO_ENDING_PUNCTUATION
        words, inside = 0, False
        while at < end and words < FEWEST_WORDS:
            code, width = decode(data, at)
            space = is_space(code)
            words += not space and not inside
            inside = not space
            at += width
        if words < FEWEST_WORDS:
            rules[line] |= FEW_WORDS
    return rules
