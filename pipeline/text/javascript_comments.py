"""Comments of JavaScript as Pygments 2.21 sees them (slash_comments.py; lexers/javascript.py there).

In:   a flat array of UTF-8 bytes that ends with several lines' ends. Out: characters in comments.
Not:  a function for Python: another compiled function calls it.
"""

from pipeline.text.code_text import ALPHANUMERIC, SPACE
from pipeline.text.interning import find, native, table_of
from pipeline.text.lexing import block_end, count_characters, kind_at, line_end, skip_spaces, skip_word
from pipeline.text.utf8 import decode

START, PART = 16, 32  # flags beside code_text's: may begin a name in JavaScript, may go on in one
# Words behind which a "/" may begin a regular expression in JavaScript.
BEFORE_REGEX = table_of(
    "typeof instanceof in void delete new for while do break return continue switch case default if else throw try catch finally"
    " yield await async this of static export import debugger extends super var let const with function class".split()
)


@native
def javascript_characters(data, start, end, kinds, before_regex):  # type: ignore[no-untyped-def]
    count, at = 0, start
    depth = 0  # of templates; their code ends at the first "}"
    in_template = regex = open_block = open_single = open_double = False
    while at < end:
        byte = data[at]
        if in_template:
            if byte == 92:
                at += 1 + decode(data, at + 1)[1]
            elif byte == 96:
                at, depth, in_template = at + 1, depth - 1, False
            elif byte == 36 and data[at + 1] == 123:
                at, in_template = at + 2, False
            else:
                at += 1
            continue
        kind, width = kind_at(data, at, kinds)
        if at == start and byte == 35 and _hashbang(data, at):
            at = line_end(data, at)
            continue
        mark = byte == 60 and data[at + 1] == 33 and data[at + 2] == 45 and data[at + 3] == 45  # <!--
        if (at == start or data[at - 1] == 10) and (kind & SPACE or byte == 47 or mark):
            regex = True
        if mark:
            at += 4
        elif kind & SPACE:
            at = skip_spaces(data, at, end, kinds)
        elif byte == 47 and data[at + 1] == 47:
            place = line_end(data, at)
            count += count_characters(data, at, place)
            at = place
        elif byte == 47 and data[at + 1] == 42 and not open_block and block_end(data, at, end) > 0:
            place = block_end(data, at, end)
            count += count_characters(data, at, place)
            at = place
        elif byte == 47 and regex:
            open_block = open_block or data[at + 1] == 42
            place = _regex_end(data, at, kinds)
            at = place if place > 0 else line_end(data, at) + 1
            regex = False
        elif byte == 125 and depth > 0:
            at, in_template, regex = at + 1, True, False
        elif 48 <= byte <= 57:
            at, regex = _number_end(data, at), False
        elif byte == 46 and 48 <= data[at + 1] <= 57:
            at, regex = _exponent_end(data, _digits(data, at + 1, 48, 57)), False
        elif kind & START:
            place = skip_word(data, at, end, kinds)
            regex = find(before_regex, data, at, place) >= 0
            at = place if regex else _identifier_end(data, at, end, kinds)
        elif byte == 92 and _escaped_letter(data, at):
            at, regex = _identifier_end(data, at, end, kinds), False
        elif byte == 34 or byte == 39:
            regex = False
            place = -1 if (open_double if byte == 34 else open_single) else _quoted_end(data, at, end)
            if place < 0:
                open_double, open_single = open_double or byte == 34, open_single or byte == 39
                at += 1
            else:
                at = place
        elif byte == 96:
            at, depth, in_template, regex = at + 1, depth + 1, True, False
        elif byte == 35:
            regex, place = False, data[at + 1]
            at += 1
            if place == 95 or 65 <= place & 0xDF <= 90:
                at = skip_word(data, at, end, kinds)
        else:
            open_block = open_block or (byte == 47 and data[at + 1] == 42)
            length, regex = _operator(data, at)
            at += max(length, width)
    return count


@native
def _hashbang(data, at):  # type: ignore[no-untyped-def]
    return data[at + 1] == 33 and (data[at + 2] == 47 or (data[at + 2] == 32 and data[at + 3] == 47))


@native
def _operator(data, at):  # type: ignore[no-untyped-def]
    """Bytes of the operator or punctuation mark at `at`, 0 for another character; may a regular expression follow it?"""
    first, second = data[at], data[at + 1]
    if first == 46:  # . ...
        return (3 if second == 46 and data[at + 2] == 46 else 1), False
    if first == 61 and second == 62:  # =>
        return 2, False
    if first == 41 or first == 93 or first == 125:  # ) ] }
        return 1, False
    if first == 40 or first == 91 or first == 123 or first == 59 or first == 44:  # ( [ { ; ,
        return 1, True
    if first == second and (first == 43 or first == 45):  # ++ --
        return 2, True
    if first == 126 or first == 58:  # ~ :
        return 1, True
    if first == 63:  # ? ?? ??=
        return (1 if second != 63 else 3 if data[at + 2] == 61 else 2), True
    if first == 92:
        return (1 if second == 10 else 0), second == 10
    length = 0
    if first == 60:
        length = 2 if second == 60 else 1
    elif first == 62:
        length = 1 if second != 62 else 3 if data[at + 2] == 62 else 2
    elif first == 61 or first == 33:
        length = 2 if second == 61 else 1
    elif first == second and (first == 42 or first == 124 or first == 38):  # ** || &&
        length = 2
    elif first == 45 or first == 43 or first == 42 or first == 37 or first == 38 or first == 124 or first == 94 or first == 47:
        length = 1
    if length == 0:
        return 0, False
    return (length + 1 if data[at + length] == 61 else length), True


@native
def _quoted_end(data, at, end):  # type: ignore[no-untyped-def]
    """Behind the quote that closes the one at `at`; -1 if none does. Line ends may stand between."""
    quote = data[at]
    at += 1
    while at < end:
        if data[at] == quote:
            return at + 1
        at += 2 if data[at] == 92 else 1
    return -1


@native
def _regex_end(data, at, kinds):  # type: ignore[no-untyped-def]
    """Behind the regular expression whose "/" stands at `at`; -1 if there is none."""
    begin = at = at + 1
    in_class = False
    while in_class or data[at] != 47:
        if data[at] == 10:
            return -1
        if data[at] == 92:
            at += 1
        elif data[at] == 91:
            in_class = True
        elif data[at] == 93:
            in_class = False
        at += 1
    if at == begin:
        return -1
    begin = at = at + 1
    while _is_flag(data[at]):
        at += 1
    kind = kind_at(data, at, kinds)[0]
    return -1 if kind & ALPHANUMERIC or data[at] == 95 else at


@native
def _is_flag(byte):  # type: ignore[no-untyped-def]
    return byte == 103 or byte == 105 or byte == 109 or byte == 117 or byte == 121 or byte == 115 or byte == 100  # gimuysd


@native
def _digits(data, at, low, high):  # type: ignore[no-untyped-def]
    while low <= data[at] <= high:
        at += 1
    return at


@native
def _number_end(data, at):  # type: ignore[no-untyped-def]
    begin = at
    if data[at] == 48:
        letter = data[at + 1] | 0x20
        if letter == 98:
            at = _digits(data, begin + 2, 48, 49)
            if at > begin + 2:
                return at + (data[at] == 110)
        at = _digits(data, begin + (2 if letter == 111 else 1), 48, 55)
        if at > begin + (2 if letter == 111 else 1):
            return at + (data[at] == 110)
        if letter == 120:
            at = begin + 2
            while 48 <= data[at] <= 57 or 97 <= data[at] | 0x20 <= 102:
                at += 1
            if at > begin + 2:
                return at + (data[at] == 110)
    at = _digits(data, begin, 48, 57)
    if data[at] == 110:
        return at + 1
    if data[at] == 46:
        at = _digits(data, at + 1, 48, 57)
    return _exponent_end(data, at)


@native
def _exponent_end(data, at):  # type: ignore[no-untyped-def]
    if data[at] | 0x20 == 101:
        place = at + 1 + (data[at + 1] == 43 or data[at + 1] == 45)
        if 48 <= data[place] <= 57:
            at = _digits(data, place, 48, 57)
    return at


@native
def _escaped_letter(data, at):  # type: ignore[no-untyped-def]
    """Does \\uXXXX stand here?"""
    if data[at] != 92 or data[at + 1] != 117:
        return False
    for place in range(at + 2, at + 6):  # noqa: SIM110 (numba)
        if not (48 <= data[place] <= 57 or 97 <= data[place] | 0x20 <= 102):
            return False
    return True


@native
def _identifier_end(data, at, end, kinds):  # type: ignore[no-untyped-def]
    while at < end:
        kind, width = kind_at(data, at, kinds)
        if not kind & PART:
            if not _escaped_letter(data, at):
                break
            width = 6
        at += width
    return at
