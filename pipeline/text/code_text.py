"""Shape of source files, from their UTF-8 bytes: lengths of lines, letters, digits, the beginning of an XML file.

In:   the bytes of many texts in one flat array with their offsets, as Arrow holds a string column.
Out:  integer counts per text; the taggers make shares of them.
Cost: one pass, some hundred MB per second; a table of 1.1 MB per process. Imports numba.
Not:  lines here are those of `str.splitlines()`, which The Stack's figures are made with; utf8.py's end at "\\n" alone.
"""

import functools

import numba
import numpy as np
import numpy.typing as npt

from pipeline.text.utf8 import Bytes, Counts, Offsets, decode

SPACE, ALPHANUMERIC, BREAK, DECIMAL = 1, 2, 4, 8
XML_CHARACTERS = 100  # where bigcode-dataset's filter_xml looks
_XML = np.frombuffer(b"<?xml version=", dtype=np.uint8)


@functools.cache
def character_table() -> npt.NDArray[np.uint8]:
    """[0x110000] uint8: bit SPACE where `str.isspace()`, ALPHANUMERIC where `str.isalnum()`, DECIMAL where `str.isdecimal()`,
    BREAK where splitlines breaks.

    As this Python's Unicode version sees it. Takes a third of a second, once per process.
    """
    table = np.zeros(0x110000, dtype=np.uint8)
    for code in range(len(table)):
        character = chr(code)
        table[code] = SPACE * character.isspace() | ALPHANUMERIC * character.isalnum() | DECIMAL * character.isdecimal()
    for character in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029":
        table[ord(character)] |= BREAK
    return table


def shape_counts(data: Bytes, offsets: Offsets) -> Counts:
    """[n, 7] int64: characters; those that are not whitespace; alphanumeric ones (`str.isalnum()`); ASCII digits; lines
    (`str.splitlines()`, so an empty text has none); characters in all lines; characters of the longest line."""
    return _shape_counts(data, offsets, character_table())


@numba.njit(cache=True, nogil=True)
def _shape_counts(data: Bytes, offsets: Offsets, table: npt.NDArray[np.uint8]) -> Counts:
    counts = np.zeros((len(offsets) - 1, 7), dtype=np.int64)
    for text in range(len(counts)):
        at, end = offsets[text], offsets[text + 1]
        characters = visible = alphanumeric = digits = lines = longest = line = breaks = 0
        while at < end:
            code, width = decode(data, at)
            at += width
            characters += 1
            line += 1
            kind = table[code]
            visible += not kind & SPACE
            alphanumeric += (kind & ALPHANUMERIC) >> 1
            digits += 48 <= code <= 57
            if kind & BREAK:
                if code == 13 and at < end and data[at] == 10:  # "\r\n" ends one line
                    at += 1
                    characters += 1
                    breaks += 1
                lines += 1
                breaks += 1
                longest = max(longest, line - 1)
                line = 0
        counts[text, 0], counts[text, 1], counts[text, 2], counts[text, 3] = characters, visible, alphanumeric, digits
        counts[text, 4], counts[text, 5], counts[text, 6] = lines + (line > 0), characters - breaks, max(longest, line)
    return counts


def begins_as_xml(data: Bytes, offsets: Offsets) -> npt.NDArray[np.bool_]:
    """[n] bool: does "<?xml version=" stand within the first XML_CHARACTERS characters of a text?"""
    return _found_early(data, offsets, _XML, XML_CHARACTERS)


@numba.njit(cache=True, nogil=True)
def _found_early(data: Bytes, offsets: Offsets, wanted: Bytes, characters: int) -> npt.NDArray[np.bool_]:
    found = np.zeros(len(offsets) - 1, dtype=np.bool_)
    for text in range(len(found)):
        end, left = offsets[text], characters
        while end < offsets[text + 1]:
            if data[end] & 0xC0 != 0x80:
                if left == 0:
                    break
                left -= 1
            end += 1
        for start in range(offsets[text], end - len(wanted) + 1):
            same = 0
            while same < len(wanted) and data[start + same] == wanted[same]:
                same += 1
            if same == len(wanted):
                found[text] = True
                break
    return found
