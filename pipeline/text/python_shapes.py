"""How a Python statement's shape is put together (python_source.py).

In:   a byte buffer and its size. Out: the buffer with one more piece, and its new size.
Not:  functions for Python: other compiled functions call them.
"""

from pipeline.text.interning import native


@native
def alone(byte):  # type: ignore[no-untyped-def]
    """Is this a mark that never makes one operator with its neighbours, or a space?"""
    return byte in (32, 40, 41, 44, 59, 91, 93, 123, 125)


@native
def trailer(shape, primary, first, second, third):  # type: ignore[no-untyped-def]
    """Make the expression at `primary` `n .n `, `n ()` or `n [0]`: of one that goes on so, a grammar does not care how it begins."""
    shape[primary], shape[primary + 1], shape[primary + 2], shape[primary + 3] = 110, 32, first, second
    if third == 0:
        return primary + 4
    shape[primary + 4] = third
    return primary + 5


@native
def copy(data, start, stop, shape, size):  # type: ignore[no-untyped-def]
    for place in range(start, stop):
        shape[size] = data[place]
        size += 1
    return size


@native
def atom(shape, size, byte, width):  # type: ignore[no-untyped-def]
    """Put `byte`, `width` times, and a space. `n.n.n` becomes `n.n`, and four or more of a kind between commas three."""
    step = width + 2
    if byte == 110 and size >= 6 and shape[size - 1] == 46 and _repeated(shape, size - 3, byte, 1, 46, 1):
        return size - 1
    if size >= 3 * step and shape[size - 1] == 44 and _repeated(shape, size - step, byte, width, 44, 2):
        return size - 1
    for place in range(size, size + width):
        shape[place] = byte
    shape[size + width] = 32
    return size + width + 1


@native
def _repeated(shape, at, byte, width, mark, times):  # type: ignore[no-untyped-def]
    """Does the atom with `mark` behind it stand at `at`, and `times` more before it, and no word's end before them?"""
    step = width + 2
    first = at - times * step
    if first < 0:
        return False
    for atom in range(first, at + 1, step):
        for place in range(atom, atom + width):
            if shape[place] != byte:
                return False
        if shape[atom + width] != 32 or shape[atom + width + 1] != mark:
            return False
    before = shape[first - 1] if first > 0 else 32
    return not (97 <= before | 0x20 <= 122 or before == 39 or before == 95)


@native
def quotes(shape, size):  # type: ignore[no-untyped-def]
    shape[size], shape[size + 1], shape[size + 2] = 39, 39, 32
    return size + 3
