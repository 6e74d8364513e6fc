"""Comments and docstrings of Python files, found in their bytes, with every statement reduced to its shape.

In:   the bytes of many texts in one flat array with their offsets.
Out:  characters of comments and docstrings per text, and per text the numbers of its statements' shapes.
Cost: one pass, some hundred MB per second.
Not:  a parser. Whether a file is valid Python, without which it has no docstrings, the interpreter's own parser says about the
      shapes (code_comments.py): names become `n`, numbers `0`, strings `''`, a header stands without its block, and what
      stands in the brackets of a call, an index or a dictionary becomes a shape by itself ("(n ,n =0 )c", "[…]s", "{…}d"),
      because a grammar sees no more of them. What stands where among lines is checked here. What is not surely read as
      Python's tokenizer reads it is marked ODD and not read.
"""

import keyword

import numba
import numpy as np
import numpy.typing as npt

from pipeline.text.interning import Table, find, intern, native, table_of
from pipeline.text.python_docstrings import clean_size, literal_text
from pipeline.text.python_shapes import alone, atom, copy, trailer
from pipeline.text.python_tokens import LONGEST_NUMBER, bracket_depth, is_operator, number_end, read_string
from pipeline.text.utf8 import Bytes, Counts, Offsets, decode, is_space

# Columns of `scan`'s counts. ODD: nothing else is known of the text. UNSURE: its docstrings have to be found by a parser.
# COMMENTS and DOCSTRINGS: characters; LEADING, TRAILING: white space at the ends, all of it if nothing else is there.
ODD, UNSURE, COMMENTS, LEADING, TRAILING, DOCSTRINGS, DOCSTRING_COUNT, DOCSTRING_LEADING, DOCSTRING_TRAILING, FIRST, STOP = range(11)
COLUMNS = 11

_SOFT = ["match", "case", "type", "_"]  # keywords where a statement begins
_WORDS = [*keyword.kwlist, *_SOFT]
_KEYWORDS = table_of(_WORDS)
_FIRST_SOFT = len(keyword.kwlist)
_IF, _ELIF, _ELSE, _FOR, _WHILE, _TRY, _EXCEPT, _FINALLY, _WITH, _DEF, _CLASS, _ASYNC = map(
    _WORDS.index, ["if", "elif", "else", "for", "while", "try", "except", "finally", "with", "def", "class", "async"]
)
_NONE, _TRUE, _FALSE, _IMPORT, _FROM = map(_WORDS.index, ["None", "True", "False", "import", "from"])
_DECORATOR, _TRY_ELSE, _OTHER = 100, 101, 102  # further kinds of statements
_FULL = -2
_DEPTH = 90  # of blocks and brackets; Python's limits are 100 and 200
_PREFIXES = table_of([a + b for a in ["", "b", "B", "f", "F"] for b in ["r", "R"]] + list("bBfFuU") + [a + b for a in "rR" for b in "bBfF"])


def scan(data: Bytes, offsets: Offsets, first: int, shapes: Table, lines: npt.NDArray[np.int32], counts: Counts) -> int:
    """Fills rows of `counts` [n, COLUMNS] int64 from text `first` on, and `lines` [≥ line ends + opening brackets + n] with shape numbers.

    counts[:, FIRST] to counts[:, STOP] are a text's places in `lines`. Returns n, or the text before which `shapes` had no
    more room: call again for it with a table that has room for its lines and twice its bytes.
    """
    return int(_scan(data, offsets, first, shapes, lines, counts, _KEYWORDS, _PREFIXES))


@numba.njit(cache=True, nogil=True)
def _scan(  # type: ignore[no-untyped-def]
    data: Bytes, offsets: Offsets, first: int, shapes, lines, counts: Counts, keywords, prefixes
) -> int:
    longest = 0
    for text in range(first, len(counts)):
        longest = max(longest, offsets[text + 1] - offsets[text])
    source, shape = np.zeros(longest + 4, np.uint8), np.zeros(2 * longest + 64, np.uint8)
    docstring = np.zeros(longest + 1, np.uint8)
    stack = np.zeros((_DEPTH + 1, 6), np.int64)
    for text in range(first, len(counts)):
        count = counts[text]
        count[:] = 0
        count[FIRST] = counts[text - 1, STOP] if text > 0 else 0
        count[STOP] = count[FIRST]
        size = _normal(data, offsets[text], offsets[text + 1], source)
        if size < 0:
            count[ODD] = 1
        elif not _scan_text(source, size, shape, docstring, stack, shapes, lines, count, keywords, prefixes):
            return text
    return len(counts)


@native
def _normal(data, at, end, source):  # type: ignore[no-untyped-def]
    """Into `source`: the text with "\\n" for "\\r\\n", and zeros behind it. Its size; -1 with a "\\r" alone or a zero."""
    size = 0
    while at < end:
        byte = data[at]
        if byte == 13:
            if at + 1 == end or data[at + 1] != 10:
                return -1
            byte = np.uint8(10)
            at += 1
        if byte == 0:
            return -1
        source[size] = byte
        size += 1
        at += 1
    source[size : size + 4] = 0
    return size


@native
def _scan_text(data, end, shape, text, stack, shapes, lines, count, keywords, prefixes):  # type: ignore[no-untyped-def]
    """One text; False if `shapes` has no room."""
    level = at = 0
    stack[0, 0], stack[0, 1], stack[0, 2] = 0, 0, _OTHER  # columns of indentation, tabs as 8 and as 1; the last statement's kind
    block, may_document = False, True  # must a block begin, and would a string that is its first statement be a docstring?
    while at < end:
        column = alternative = 0
        while data[at] == 32 or data[at] == 9:
            column, alternative = (column + 1 if data[at] == 32 else column // 8 * 8 + 8), alternative + 1
            at += 1
        if at == end:
            break
        if data[at] == 10:
            at += 1
            continue
        if data[at] == 35:
            at = _comment(data, at, end, count)
            continue
        if column > stack[level, 0]:
            if alternative <= stack[level, 1] or level + 1 == _DEPTH:
                count[ODD] = 1
                return True
            level += 1
            stack[level, 0], stack[level, 1], stack[level, 2] = column, alternative, _OTHER
            if not block:
                count[UNSURE] = 1
        else:
            if block:
                count[UNSURE] = 1
            while column < stack[level, 0]:
                if stack[level, 2] == _TRY or stack[level, 2] == _DECORATOR:
                    count[UNSURE] = 1
                level -= 1
            if column != stack[level, 0] or alternative != stack[level, 1]:
                count[ODD] = 1
                return True
        at, size, word, second, colon, string, stop = _statement(
            data, at, end, shape, stack, may_document, shapes, lines, count, keywords, prefixes
        )
        if at == _FULL:
            return False
        if at < 0:
            count[ODD] = 1
            return True
        if string >= 0 and may_document:
            _docstring(data, string, stop, text, count)
        if not _note(shape, 0, size, shapes, lines, count):
            return False
        stack[level, 2] = _kind(stack[level, 2], word, second, count)
        block = colon  # where no block may follow, the shape is invalid
        if block and _FIRST_SOFT <= word < _DECORATOR:
            count[UNSURE] = 1  # `match` and `case`
        may_document = block and (word in (_DEF, _CLASS))
    if block:
        count[UNSURE] = 1
    while level >= 0:
        if stack[level, 2] == _TRY or stack[level, 2] == _DECORATOR:
            count[UNSURE] = 1
        level -= 1
    return True


@native
def _note(shape, start, stop, shapes, lines, count):  # type: ignore[no-untyped-def]
    """Note that the text has this shape; False if `shapes` has no room."""
    number = intern(shapes, shape, start, stop)
    lines[count[STOP]] = number
    count[STOP] += number >= 0
    return number >= 0


@native
def _kind(before, word, second, count):  # type: ignore[no-untyped-def]
    """The kind of statement that a first word begins, as far as it decides what may follow. UNSURE if it may not follow `before`."""
    follows = word in (_EXCEPT, _FINALLY)
    if word == _ASYNC:
        word = second
    ok = before != _TRY or follows
    ok = ok and (before != _DECORATOR or word in (_DECORATOR, _DEF, _CLASS))
    if word == _ELIF:
        ok = ok and before == _IF
        word = _IF
    elif word == _ELSE:
        ok = ok and (before in (_IF, _FOR, _EXCEPT))
        word = _TRY_ELSE if before == _EXCEPT else _OTHER
    elif word == _EXCEPT:
        ok = ok and (before in (_TRY, _EXCEPT)) and second != -42
    elif word == _FINALLY:
        ok = ok and (before in (_TRY, _EXCEPT, _TRY_ELSE))
        word = _OTHER
    elif word == _WHILE:
        word = _FOR
    elif word not in (_IF, _FOR, _TRY, _DEF, _CLASS, _DECORATOR):
        word = _OTHER
    if not ok:
        count[UNSURE] = 1
    return word


@native
def _comment(data, at, end, count):  # type: ignore[no-untyped-def]
    """Count the comment at `at`, without "#"; returns the line's end."""
    while at < end and data[at] != 10:
        code, width = decode(data, at)
        at += width
        if code != 35:
            count[COMMENTS] += 1
            if is_space(code):
                count[TRAILING] += 1
                count[LEADING] += count[TRAILING] == count[COMMENTS]
            else:
                count[TRAILING] = 0
    return at


@native
def _statement(data, at, end, shape, stack, may_document, shapes, lines, count, keywords, prefixes):  # type: ignore[no-untyped-def]
    """Read a statement up to its line's end.

    Returns where that is (-1: ODD, _FULL: no room), the size of its shape, its first word (a number of _WORDS, _DECORATOR or -1), the
    second (-42 for "*"), whether it ends with a colon, and where the string begins and ends that it is if it is nothing else (-1).
    """
    size = tokens = depth = 0
    word, second, string, stop = np.int64(-1), np.int64(-1), np.int64(-1), np.int64(-1)
    gap = colon = suite = False  # white space before the token; the token before is a colon; one that may begin a suite
    opening = True  # only "(" so far
    primary = np.int64(-1)  # where in `shape` an expression begins that a call, an index or an attribute may follow
    dotted = naming = False  # the token before is a dot behind such an expression, or `def` or `class`
    while True:
        byte = data[at]
        if byte == 32 or byte == 9:
            at, gap = at + 1, True
            continue
        if byte == 35:
            at = _comment(data, at, end, count)
            continue
        if byte == 10 or at >= end:
            if depth == 0:
                return at, size, word, second, colon, string, stop
            if at >= end:
                break
            at, gap = at + 1, True
            continue
        if byte == 92:
            if data[at + 1] != 10:
                break
            at, gap = at + 2, True
            place = at
            while data[place] == 32 or data[place] == 9:
                place += 1
            if place >= end or data[place] == 10 or data[place] == 35 or data[place] == 92:
                break
            continue
        start, token = at, np.int64(-1)
        tokens += 1
        if string >= 0:
            string = np.int64(-1)
            if may_document:
                count[UNSURE] = 1  # more than a string
        is_string = byte == 34 or byte == 39
        if byte == 95 or 97 <= byte | 0x20 <= 122:
            while data[at] == 95 or 97 <= data[at] | 0x20 <= 122 or 48 <= data[at] <= 57:
                at += 1
            is_string = (data[at] == 34 or data[at] == 39) and at - start <= 2 and find(prefixes, data, start, at) >= 0
            if not is_string:
                token = np.int64(find(keywords, data, start, at)) if at - start <= 8 else np.int64(-1)
                constant = token in (_NONE, _TRUE, _FALSE)
                begins = size == 0 or shape[size - 1] == 58 or shape[size - 1] == 59
                if token >= _FIRST_SOFT and not begins:
                    token = np.int64(-1)
                if constant:  # as little a name as a number is
                    token, primary = np.int64(-1), np.int64(-1)
                    size = atom(shape, size, 48, 1)
                elif token >= 0:
                    primary = np.int64(-1)
                    size = copy(data, start, at, shape, size)
                    shape[size] = 32
                    size += 1
                elif dotted:
                    size = trailer(shape, primary, 46, 110, 32)
                else:
                    size = atom(shape, size, 110, 1)
                    primary = np.int64(-1) if naming or word in (_IMPORT, _FROM) or word >= _FIRST_SOFT else size - 2
                dotted, naming = False, token in (_DEF, _CLASS)
        elif 48 <= byte <= 57 or (byte == 46 and 48 <= data[at + 1] <= 57):
            at = number_end(data, at)
            if at < 0 or at - start > LONGEST_NUMBER:
                break
            size = atom(shape, size, 48, 1)
            primary, dotted, naming = np.int64(-1), False, False
        elif not is_string:
            before, depth = depth, bracket_depth(byte, stack, depth)
            if depth < 0 or depth == _DEPTH or not is_operator(byte, data[at + 1]):
                break
            if gap and size > 0 and not alone(byte) and not alone(shape[size - 1]):
                shape[size] = 32
                size += 1
            shape[size] = byte
            size, at = size + 1, at + 1
            dotted, naming = byte == 46 and primary >= 0, False
            if depth > before:
                grouped = (primary >= 0 and byte != 123) or (byte == 123 and word < _FIRST_SOFT)
                stack[before, 4], stack[before, 5] = (size - 1 if grouped else -1), primary
                primary = np.int64(-1)
            elif depth < before:
                group, primary = stack[depth, 4], stack[depth, 5]
                if group >= 0:
                    shape[size] = 99 if byte == 41 else 115 if byte == 93 else 100
                    if not _note(shape, group, size + 1, shapes, lines, count):
                        return np.int64(_FULL), size, word, second, colon, string, stop
                    if byte == 41:
                        size = trailer(shape, primary, 40, 41, 0)
                    elif byte == 93:
                        size = trailer(shape, primary, 91, 48, 93)
                    else:
                        shape[group + 1] = 125
                        size, primary = group + 2, np.int64(-1)
                else:
                    primary = np.int64(-1)
            elif not dotted:
                primary = np.int64(-1)
            if tokens == 1 and byte == 64:
                word = np.int64(_DECORATOR)
            if tokens == 2 and byte == 42:
                second = np.int64(-42)
        if is_string:
            at, size, plain = read_string(data, start, at, end, shape, size)
            if at < 0:
                break
            primary = np.int64(-1)
            dotted = naming = False
            if plain and tokens == 1:
                string, stop = np.int64(start), np.int64(at)
            if suite or (may_document and opening and tokens > 1):
                count[UNSURE] = 1
        elif suite and byte == 40:
            count[UNSURE] = 1
        if tokens == 1 and token >= 0:
            word = token
        elif tokens == 2 and token >= 0:
            second = token
        opening = opening and byte == 40
        colon = byte == 58 and not is_string
        suite = colon and depth == 0 and (word in (_DEF, _CLASS))
        gap = False
    return np.int64(-1), size, word, second, colon, string, stop


@native
def _docstring(data, start, stop, text, count):  # type: ignore[no-untyped-def]
    """Count the docstring between these places, as inspect.cleandoc leaves it; UNSURE if it needs Python itself."""
    raw = data[start] | 0x20 == 114
    while data[start] != 34 and data[start] != 39:
        start += 1
    width = 3 if data[start] == data[start + 1] == data[start + 2] and stop - start >= 6 else 1
    size = literal_text(data, start + width, stop - width, raw, text)
    if size < 0:
        count[UNSURE] = 1
        return
    characters, leading, trailing = clean_size(text, size)
    if characters == 0:
        return
    if leading == characters or (count[DOCSTRING_COUNT] > 0 and (leading > 0 or count[DOCSTRING_LEADING] > 0)):
        count[UNSURE] = 1  # the order of docstrings matters
    count[DOCSTRINGS] += characters
    count[DOCSTRING_COUNT] += 1
    count[DOCSTRING_LEADING] = leading
    count[DOCSTRING_TRAILING] = max(count[DOCSTRING_TRAILING], trailing)
