"""The English words of spaCy 3.8 at native speed.

In:   chunks without whitespace, and then the words of whole texts. Out: what `spacy.blank("en")` makes of them.
Cost: 50 MB of distinct chunks per CPU-second. Not: spaCy's tokenizer is never called; its rules are (spacy_rules.py).

spaCy peels prefixes and suffixes off a chunk until what is left is an exception ("don't", "Mr.", ":-)") or has none; if
that is no URL, it is cut at infixes. Afterwards exceptions that were torn to pieces on the way ("x(:", "1/w/o") are put
together again. These are looked for along the whole text, longest first, and across single blanks too: ": )" is no
exception, but it keeps others from being found in the same words.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.text import interning
from pipeline.text.interning import Bytes, Table, kernel, native
from pipeline.text.spacy_patterns import exception, infix, is_url, prefix, suffix
from pipeline.text.spacy_rules import Rules, exceptions, is_torn, rules

Ints = npt.NDArray[np.int32]
Offsets = npt.NDArray[np.int64]


def cut(chunks: Table, start: int, stop: int) -> tuple[Ints, Ints, Ints]:
    """Words of the chunks start … stop - 1: how many each has, and the bytes of its chunk where each begins and ends."""
    return _cut_by(rules(), chunks, start, stop)


@cache
def seeds() -> list[str]:
    """The words that a vocabulary must begin with, so that `mend` knows them by number."""
    return list(dict.fromkeys(word for pieces, words in _torn_strings() for word in [*pieces, *words]))


def mend(ids: Ints, starts: Offsets, offsets: Offsets, sizes: Ints, data: Bytes) -> tuple[Ints, Offsets, Offsets]:
    """The words of texts with torn exceptions made whole: numbers, first bytes, and offsets by text.

    sizes: bytes of each word by number, whose vocabulary begins with `seeds()`.
    """
    torn, matches, place = _torn(), np.empty((1024, 2), np.int64), np.zeros(3, np.int64)
    while not _find_matches(ids, starts, offsets, sizes, data, torn, matches, place):
        matches = np.concatenate([matches, np.empty_like(matches)])
    matches = matches[: place[2]]
    taken, kept = np.zeros(len(ids), np.bool_), np.zeros(len(matches), np.bool_)
    _keep_longest(matches, torn, taken, kept)
    if not kept.any():
        return ids, starts, offsets
    return _replaced(ids, starts, offsets, sizes, matches[kept], torn)


class Torn(NamedTuple):
    """The exceptions that affixes tear to pieces, by number of their first piece. Words are numbers below `len(pairs)`."""

    pairs: npt.NDArray[np.bool_]  # [k, k] whether an exception begins with these two pieces
    firsts: Ints  # [k + 1] exceptions firsts[w] … firsts[w + 1] - 1 begin with piece w
    pieces: Ints
    piece_offsets: Ints  # exception e is torn to pieces[piece_offsets[e] : piece_offsets[e + 1]]
    words: Ints
    word_offsets: Ints  # and should be words[word_offsets[e] : word_offsets[e + 1]]


@cache
def _torn() -> Torn:
    numbers = {string: number for number, string in enumerate(seeds())}
    torn = sorted(([numbers[p] for p in pieces], [numbers[w] for w in words]) for pieces, words in _torn_strings())
    pairs = np.zeros((len(numbers), len(numbers)), np.bool_)
    for pieces, _ in torn:
        pairs[pieces[0], pieces[1]] = True

    def flat(lists: list[list[int]]) -> tuple[Ints, Ints]:
        return np.array([number for each in lists for number in each], np.int32), np.cumsum([0, *map(len, lists)]).astype(np.int32)

    firsts = np.searchsorted([pieces[0] for pieces, _ in torn], np.arange(len(numbers) + 1)).astype(np.int32)
    return Torn(pairs, firsts, *flat([pieces for pieces, _ in torn]), *flat([words for _, words in torn]))


@cache
def _torn_strings() -> list[tuple[list[str], list[str]]]:
    """Pieces and words of each exception that spaCy looks for in texts."""
    strings = [string for string in exceptions() if is_torn(string)]
    bare = rules()._replace(exceptions=interning.table_of([]), hints=np.zeros((256, 256), np.uint32))
    counts, begins, ends = _cut_by(bare, interning.table_of(strings), 0, len(strings))
    at, torn = 0, []
    for string, count in zip(strings, counts.tolist(), strict=True):
        whole = string.encode()
        pieces = [whole[begin:end].decode() for begin, end in zip(begins[at : at + count], ends[at : at + count], strict=True)]
        at += count
        if count > 1:
            torn.append((pieces, exceptions()[string]))
        elif pieces != exceptions()[string]:
            raise AssertionError(f"{string} is found by spaCy in its whole form, which is not provided for")
    return torn


def _cut_by(rules: Rules, chunks: Table, start: int, stop: int) -> tuple[Ints, Ints, Ints]:
    size = int(chunks.starts[stop] - chunks.starts[start])  # no word is shorter than a byte
    counts, begins, ends = np.empty(stop - start, np.int32), np.empty(size, np.int32), np.empty(size, np.int32)
    words = _cut(chunks, start, stop, rules, counts, begins, ends)
    return counts, begins[:words].copy(), ends[:words].copy()


@kernel
def _cut(chunks, first, last, rules, counts, begins, ends):  # type: ignore[no-untyped-def]
    data, done = chunks.arena, 0
    for chunk in range(first, last):
        origin, limit = chunks.starts[chunk], chunks.starts[chunk + 1]
        # The ends of words are written from the left of the chunk's room; those of suffixes, which come last, from the right.
        room = done + limit - origin
        start, stop, known, left, right = _peel(data, origin, limit, rules, ends, done, room)
        if known >= 0:
            for i in range(rules.offsets[known], rules.offsets[known + 1]):
                ends[left] = start - origin + rules.ends[i]
                left += 1
        elif start < stop:
            left = _cut_rest(data, origin, start, stop, rules.flags, ends, left)
        for i in range(right, room):
            ends[left] = ends[i]
            left += 1
        counts[chunk - first] = left - done
        for i in range(done, left):
            begins[i] = 0 if i == done else ends[i - 1]
        done = left
    return done


@native
def _peel(data, origin, stop, rules, ends, left, right):  # type: ignore[no-untyped-def]
    """Take affixes off both ends until none is left or the rest is an exception: (start, stop, exception or -1, left, right)."""
    start = origin
    while start < stop:
        known = exception(data, start, stop, rules)
        if known >= 0:
            return start, stop, known, left, right
        before = prefix(data, start, stop, rules.flags)
        if before and start + before < stop:
            known = exception(data, start + before, stop, rules)
            if known >= 0:
                ends[left] = start + before - origin
                return start + before, stop, known, left + 1, right
        after = suffix(data, start + before, stop, rules)
        if after and stop - after > start:
            known = exception(data, start, stop - after, rules)
            if known >= 0:
                ends[right - 1] = stop - origin
                return start, stop - after, known, left, right - 1
        if not before and not after:
            break
        if before:
            start += before
            ends[left] = start - origin
            left += 1
        if after:
            right -= 1
            ends[right] = stop - origin
            stop -= after
    return start, stop, np.int32(-1), left, right


@native
def _cut_rest(data, origin, start, stop, flags, ends, left):  # type: ignore[no-untyped-def]
    """Cut what has no affixes at its infixes, or not at all if it is a URL."""
    at = word = start
    if is_url(data, start, stop, flags):
        at = stop
    while at < stop:
        width, matched = infix(data, at, start, stop, flags)
        if matched and at > start:
            if at > word:
                ends[left] = at - origin
                left += 1
            word = at + width
            ends[left] = word - origin
            left += 1
        at += width
    if word < stop:
        ends[left] = stop - origin
        left += 1
    return left


@kernel
def _find_matches(ids, starts, offsets, sizes, data, torn, matches, place):  # type: ignore[no-untyped-def]
    """Fill `matches` [room, 2] with the first word and the exception of each stretch of pieces, in order.

    Goes on from `place`: text, word, matches so far; False if there is no room for all.
    """
    seeded = len(torn.pairs)
    text, word, found = place
    while text < len(offsets) - 1:
        word, stop = max(word, offsets[text]), offsets[text + 1]
        while word < stop - 1:
            if ids[word] < seeded and ids[word + 1] < seeded and torn.pairs[ids[word], ids[word + 1]]:
                if found + len(torn.piece_offsets) > len(matches):
                    place[0], place[1], place[2] = text, word, found
                    return False
                for each in range(torn.firsts[ids[word]], torn.firsts[ids[word] + 1]):
                    if _matches(ids, starts, word, stop, sizes, data, torn, each):
                        matches[found, 0], matches[found, 1] = word, each
                        found += 1
            word += 1
        text += 1
    place[2] = found
    return True


@native
def _matches(ids, starts, word, stop, sizes, data, torn, each):  # type: ignore[no-untyped-def]
    begin = torn.piece_offsets[each]
    length = torn.piece_offsets[each + 1] - begin
    if word + length > stop:
        return False
    for i in range(1, length):
        if ids[word + i] != torn.pieces[begin + i]:
            return False
        end = starts[word + i - 1] + sizes[ids[word + i - 1]]
        gap = starts[word + i] - end
        if gap > 1 or (gap == 1 and data[end] != 32):  # whitespace other than one blank is a token of its own
            return False
    return True


@kernel
def _keep_longest(matches, torn, taken, kept):  # type: ignore[no-untyped-def]
    """Longer ones exclude shorter ones, then left ones right ones; what is excluded excludes as well, as in spaCy."""
    longest = 0
    for match in range(len(matches)):
        each = matches[match, 1]
        longest = max(longest, torn.piece_offsets[each + 1] - torn.piece_offsets[each])
    for length in range(longest, 1, -1):
        for match in range(len(matches)):
            word, each = matches[match, 0], matches[match, 1]
            if torn.piece_offsets[each + 1] - torn.piece_offsets[each] == length:
                kept[match] = not taken[word] and not taken[word + length - 1]
                for i in range(word, word + length):
                    taken[i] = True


def _replaced(ids: Ints, starts: Offsets, offsets: Offsets, sizes: Ints, matches: Offsets, torn: Torn) -> tuple[Ints, Offsets, Offsets]:
    room = len(ids) + int(np.diff(torn.word_offsets)[matches[:, 1]].sum())
    new_ids, new_starts, new_offsets = np.empty(room, np.int32), np.empty(room, np.int64), np.zeros_like(offsets)
    words = _replace(ids, starts, offsets, sizes, matches, torn, new_ids, new_starts, new_offsets)
    return new_ids[:words], new_starts[:words], new_offsets


@kernel
def _replace(ids, starts, offsets, sizes, matches, torn, new_ids, new_starts, new_offsets):  # type: ignore[no-untyped-def]
    """The words with the exceptions in place of their pieces, except where these have a blank between them."""
    done = match = 0
    for text in range(len(offsets) - 1):
        word, stop = offsets[text], offsets[text + 1]
        while word < stop:
            some = match < len(matches) and matches[match, 0] < stop
            before = matches[match, 0] if some else stop
            for i in range(before - word):
                new_ids[done + i], new_starts[done + i] = ids[word + i], starts[word + i]
            done, word = done + before - word, before
            if not some:
                break
            each = matches[match, 1]
            match += 1
            last = word + torn.piece_offsets[each + 1] - torn.piece_offsets[each] - 1
            size = 0
            for i in range(word, last + 1):
                size += sizes[ids[i]]
            if starts[last] + sizes[ids[last]] - starts[word] == size:
                at = starts[word]
                for i in range(torn.word_offsets[each], torn.word_offsets[each + 1]):
                    new_ids[done], new_starts[done] = torn.words[i], at
                    at += sizes[torn.words[i]]
                    done += 1
                word = last + 1
        new_offsets[text + 1] = done
    return done
