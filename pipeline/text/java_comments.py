"""Comments of Java as Pygments 2.21 sees them (slash_comments.py; lexers/jvm.py there).

In:   a flat array of UTF-8 bytes that ends with a line's end. Out: characters in comments.
Not:  a function for Python: another compiled function calls it.
"""

import numpy as np

from pipeline.text.code_text import ALPHANUMERIC, DECIMAL, SPACE
from pipeline.text.interning import find, native, table_of
from pipeline.text.lexing import block_end, count_characters, kind_at, line_end, skip_name, skip_spaces, skip_word
from pipeline.text.utf8 import decode

# Words of Java that never begin a method's signature, and those that a name follows.
_STATEMENTS = table_of(
    "assert break case catch continue default do else finally for if goto instanceof new return switch this throw try while".split()
)
_NAMING = table_of(["class", "interface", "module", "var", "package", "import", "record", "static"])
_CLASS, _INTERFACE, _MODULE, _VAR, _PACKAGE, _IMPORT, _RECORD, _STATIC = range(8)
_MODIFIERS = table_of("public private protected static strictfp".split())
TABLES = (_STATEMENTS, _NAMING, _MODIFIERS)


@native
def java_characters(data, start, end, kinds, tables):  # type: ignore[no-untyped-def]
    _, statements, naming, modifiers = tables
    count, at = 0, start
    open_block = False  # "/*" without "*/" was seen: there is none further on either
    blank, solid, record, label = -1, -1, -1, -1  # white space from a line's start, and where what follows it ends, if it is that
    no_method = 0  # before this no method's signature begins
    while at < end:
        byte = data[at]
        if at == start or data[at - 1] == 10:
            if not blank <= at <= solid:
                blank, solid = at, skip_spaces(data, at, end, kinds)
                record, label = _record(data, solid, end, kinds, naming, modifiers), _label(data, solid, end, kinds)
            if record >= 0:
                at = _named(data, record, end, kinds, True)
                continue
            if byte == 10 and label >= 0:
                at = label
                continue
        kind, width = kind_at(data, at, kinds)
        if kind & SPACE:
            at += width
        elif byte == 47 and data[at + 1] == 47:
            place = line_end(data, at)
            count += count_characters(data, at, place)
            at = place + 1
        elif byte == 47 and data[at + 1] == 42 and not open_block:
            place = block_end(data, at, end)
            if place < 0:
                open_block = True
                at += 1
            else:
                count += count_characters(data, at, place)
                at = place
        elif byte == 34:
            at = _java_string(data, at, end)
        elif byte == 39:
            at = _java_character(data, at, end)
        elif byte == 64:  # an annotation: @interface declares no name here
            place = skip_name(data, at + 1, end, kinds)
            at += 1
            if place > at and data[at] != 36:
                at = skip_word(data, at, end, kinds)
                while at < end and data[at] == 46:
                    at = skip_word(data, at + 1, end, kinds)
        elif byte == 46:  # an attribute, even ".class"
            at = skip_name(data, at + 1, end, kinds)
        elif (kind & ALPHANUMERIC and not kind & DECIMAL) or byte == 95 or byte == 36:
            place = skip_word(data, at, end, kinds)
            if find(statements, data, at, place) >= 0:
                at = place
                continue
            if at >= no_method:
                found, no_method = _method(data, at, end, kinds)
                if found:
                    at, no_method = no_method, 0
                    continue
            word = find(naming, data, at, place)
            if word in (_CLASS, _INTERFACE, _MODULE):
                at = _named(data, place, end, kinds, True)
            elif word == _VAR and kind_at(data, place, kinds)[0] & SPACE:
                at = _named(data, skip_spaces(data, place, end, kinds), end, kinds, False)
            elif (word in (_IMPORT, _PACKAGE)) and kind_at(data, place, kinds)[0] & SPACE:
                at = skip_spaces(data, place, end, kinds)
                if word == _IMPORT:
                    place = skip_word(data, at, end, kinds)
                    second = find(naming, data, at, place)
                    if (second in (_STATIC, _MODULE)) and kind_at(data, place, kinds)[0] & SPACE:
                        at = skip_spaces(data, place, end, kinds)
                at = _imported(data, at, end, kinds)
            else:
                at = skip_name(data, at, end, kinds)
        elif 48 <= byte <= 57:  # "1.class" is a number and a word
            while 48 <= data[at] <= 57 or data[at] == 95:
                at += 1
            at += data[at] == 46
        else:
            at += width
    return count


@native
def _record(data, at, end, kinds, naming, modifiers):  # type: ignore[no-untyped-def]
    """Behind the word `record` that stands at `at` behind any modifiers; -1 if it does not."""
    while True:
        place = skip_word(data, at, end, kinds)
        if find(naming, data, at, place) == _RECORD:
            return place
        if find(modifiers, data, at, place) < 0 or not kind_at(data, place, kinds)[0] & SPACE:
            return np.int64(-1)
        at = skip_spaces(data, place, end, kinds)


@native
def _label(data, at, end, kinds):  # type: ignore[no-untyped-def]
    place = skip_name(data, at, end, kinds)
    return place + 1 if place > at and data[place] == 58 else np.int64(-1)


@native
def _named(data, at, end, kinds, spaces):  # type: ignore[no-untyped-def]
    """Behind the next name, whatever stands before it; without `spaces` a line's end gives the name up."""
    while at < end:
        place = skip_name(data, at, end, kinds)
        if place > at:
            return place
        if data[at] == 10 and not spaces:
            return at + 1
        at += kind_at(data, at, kinds)[1]
    return at


@native
def _imported(data, at, end, kinds):  # type: ignore[no-untyped-def]
    """Behind the next name with dots, of this line."""
    while at < end:
        place = skip_word(data, at, end, kinds)
        if place > at or data[at] == 46:
            while data[place] == 46:
                place = skip_word(data, place + 1, end, kinds)
            return place + 1 if data[place] == 42 else place
        if data[at] == 10:
            return at + 1
        at += kind_at(data, at, kinds)[1]
    return at


@native
def _method(data, at, end, kinds):  # type: ignore[no-untyped-def]
    """Do names with white space between them and a "(" behind the last stand here? And behind it, or where they break off."""
    while True:
        kind = kind_at(data, at, kinds)[0]
        if not ((kind & ALPHANUMERIC and not kind & DECIMAL) or data[at] == 95 or data[at] == 36):
            return False, at
        while True:
            at = skip_word(data, at, end, kinds)
            byte = data[at]
            if not (byte == 46 or byte == 91 or byte == 93 or byte == 36 or byte == 60 or byte == 62 or byte == 63):
                break
            at += 1
        place = skip_spaces(data, at, end, kinds)
        if place in (at, end):
            return False, at
        at = place
        place = skip_name(data, at, end, kinds)
        if place > at:
            place = skip_spaces(data, place, end, kinds)
            if place < end and data[place] == 40:
                return True, place + 1


@native
def _java_string(data, at, end):  # type: ignore[no-untyped-def]
    block = data[at + 1] == 34 and data[at + 2] == 34 and data[at + 3] == 10
    at += 4 if block else 1
    while at < end:
        if data[at] == 34:
            if not block:
                return at + 1
            if at + 2 < end and data[at + 1] == 34 and data[at + 2] == 34:
                return at + 3
        elif data[at] == 92 and at + 1 < end and (data[at + 1] == 92 or data[at + 1] == 34):
            at += 1
        at += 1
    return end


@native
def _java_character(data, at, end):  # type: ignore[no-untyped-def]
    place = at + 1
    if data[place] == 92 and place + 1 < end:
        place += 1
    width = decode(data, place)[1]
    if place + width < end and data[place + width] == 39:
        return place + width + 1
    return at + 1  # '\\u0041' too: nothing in it matters
