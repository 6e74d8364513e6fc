"""Words: a batch of texts split once, in one of three published ways, for every tagger that counts words.

In:   the UTF-8 bytes of many texts and their offsets. Out: `Words`: a number for every word of every text (equal number,
      equal string), where it begins, and per distinct word its lengths, its hash and whatever else a tagger asks for.
Cost: all three ways cut at whitespace first and then look only inside such a chunk, so a batch is cut once for all of
      them, and each distinct chunk is split once per process; a chunk seen before costs one look into a hash table.
      10 to 15 ms of CPU for the chunks of 1 MB, and 5 to 10 more for the words of spaCy and of UAX #29 each, where most
      chunks are known. Memory: tables of what was seen, up to 200 MB for each kind, then begun anew; 10 bytes per
      byte of the batch at hand, up to 100 where nearly every character is a word.
Not:  nothing is lower-cased or left out but whitespace.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.text import interning, spacy_words, unicode_words
from pipeline.text.interning import Bytes, Table, kernel, native
from pipeline.text.utf8 import decode, is_space

Kind = Literal["whitespace", "spacy", "unicode"]
Offsets = npt.NDArray[np.int64]
Ints = npt.NDArray[np.int32]

_REMEMBERED = 1 << 19  # chunks, at most _REMEMBERED_BYTES of them in all, and four times as many words in them
_REMEMBERED_BYTES = 1 << 25
_NO_CLASSES = np.empty(0, np.uint8)
_CUT_AT_ONCE = 1 << 16  # bytes of new chunks, or one chunk if that is longer


class Vocabulary:
    """The distinct words of a table and what has been found out about each of them so far."""

    def __init__(self) -> None:
        self.table = interning.new_table()
        self._values: dict[object, tuple[object, npt.NDArray]] = {}

    def values(self, key: object, compute: Callable[[int, int], npt.NDArray]) -> npt.NDArray:
        """[words] compute(first, stop), asked only for words that came since the last call with this key."""
        count = int(self.table.count[0])
        _, known = self._values.get(key, (None, None))
        if known is None or len(known) < count:
            fresh = compute(0 if known is None else len(known), count)
            known = fresh if known is None else np.concatenate([known, fresh])
            self._values[key] = (compute, known)
        return known


@dataclass(frozen=True)
class Words:
    """The words of n texts; w words in all, v distinct ones at least (the vocabulary may know more).

    ids [w] int32: equal numbers are equal strings. offsets [n + 1] int64: words of text d are ids[offsets[d]:offsets[d + 1]].
    starts [w] int64: the byte of the batch's data where each begins. By number: lengths [v] int32 in characters,
    byte_lengths [v] int32, hashes [v] uint64 of the UTF-8 bytes, which depend on nothing else.
    """

    ids: npt.NDArray[np.int32]
    offsets: Offsets
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int32]
    byte_lengths: npt.NDArray[np.int32]
    hashes: npt.NDArray[np.uint64]
    _vocabulary: Vocabulary
    _table: Table

    def table(self, function: Callable[[str], int]) -> npt.NDArray[np.int64]:
        """[v] int64: a function of each distinct word, called once for each. Give the same function object every time."""

        def compute(start: int, stop: int) -> npt.NDArray[np.int64]:
            return np.fromiter(map(function, interning.strings_of(self._vocabulary.table, start, stop)), np.int64, stop - start)

        return self._vocabulary.values(function, compute)[: len(self.lengths)]

    def flags(self, characters: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """[v] uint8: the bits that at least one character of the word has in `characters` [0x110000] uint8, by code point.

        At native speed; the same array object must be given every time, and never be changed.
        """

        def compute(start: int, stop: int) -> npt.NDArray[np.uint8]:
            # `compute` is kept with its result, so the array lives on and no other can get its id.
            found = np.zeros(stop - start, np.uint8)
            interning.or_of_characters(self._vocabulary.table, start, found, characters)
            return found

        return self._vocabulary.values(("flags", id(characters)), compute)[: len(self.lengths)]

    def totals(self, values: npt.NDArray) -> npt.NDArray[np.int64]:
        """[n] int64: for each text the sum of values[id] over its words; values [v] integer or bool."""
        sums = np.zeros(len(self.offsets) - 1, np.int64)
        _add_up(self.ids, self.offsets, values.astype(np.int32, copy=False), sums)
        return sums

    def strings(self) -> list[str]:
        """[v] the distinct words themselves."""
        return interning.strings_of(self._table, 0, len(self.lengths))


def segment(data: Bytes, offsets: Offsets, kind: Kind) -> Words:
    """`Chunks(data, offsets).words(kind)`, for who needs the texts in one way only."""
    return Chunks(data, offsets).words(kind)


class Chunks:
    """The texts data[offsets[d]:offsets[d + 1]], which are valid UTF-8, cut at whitespace, to get their words from."""

    def __init__(self, data: Bytes, offsets: Offsets) -> None:
        self._data, self._offsets = data, offsets
        self._memory = _memory()
        # Numbers of the chunks, their first bytes, and the chunks of text d: counts[d] … counts[d + 1] - 1.
        self._chunks = self._memory.split(data, offsets[:-1], offsets[1:], _NO_CLASSES)

    def words(self, kind: Kind) -> Words:
        """whitespace: the pieces of `str.split()`. spacy: the tokens of spaCy's English tokenizer without those that are
        whitespace, as datatrove's `split_into_words` gives them. unicode: the segments between the word boundaries of
        UAX #29 (Unicode 16, as `uniseg` has them) that are not whitespace alone; punctuation is included.
        """
        memory = self._memory
        ids, starts, counts = self._chunks if kind != "unicode" else self._unicode_chunks()
        if kind == "whitespace":
            vocabulary = memory.vocabulary
            vocabulary.table = memory.chunks
        else:
            cutter = memory.cutters[kind]
            cutter.learn(memory.chunks)
            vocabulary = cutter.vocabulary
            ids, starts, counts = cutter.expanded(ids, starts, counts)
        table = vocabulary.table
        count = int(table.count[0])
        sizes = np.diff(table.starts[: count + 1]).astype(np.int32)
        if kind == "spacy":
            ids, starts, counts = spacy_words.mend(ids, starts, counts, sizes, self._data)
        return Words(ids, counts, starts, table.characters[:count], sizes, table.hashes[:count], vocabulary, table)

    def _unicode_chunks(self) -> tuple[Ints, Offsets, Offsets]:
        """The chunks with those texts cut anew where UAX #29 binds what is whitespace elsewhere."""
        ids, starts, counts = self._chunks
        classes, odd = unicode_words.classes(), np.zeros(len(counts) - 1, np.bool_)
        _find_odd(self._data, self._offsets, ids, starts, counts, self._memory.chunks.starts, classes, odd)
        if not odd.any():
            return self._chunks
        odd_ids, odd_starts, odd_counts = self._memory.split(self._data, self._offsets[:-1][odd], self._offsets[1:][odd], classes)
        sizes = np.diff(counts)
        plain = np.repeat(~odd, sizes)
        sizes[odd] = np.diff(odd_counts)
        replaced = np.repeat(odd, sizes)
        new_ids, new_starts = np.empty(len(replaced), np.int32), np.empty(len(replaced), np.int64)
        new_ids[replaced], new_ids[~replaced] = odd_ids, ids[plain]
        new_starts[replaced], new_starts[~replaced] = odd_starts, starts[plain]
        return new_ids, new_starts, np.concatenate([[0], np.cumsum(sizes)])


class _Memory:
    """What is known so far: the chunks seen, and for each kind the words of each."""

    def __init__(self) -> None:
        self.chunks = interning.new_table()
        self.vocabulary = Vocabulary()  # of whitespace: the chunks
        self.cutters = {"spacy": _Cutter(spacy_words.cut), "unicode": _Cutter(unicode_words.cut)}
        self.cutters["spacy"].vocabulary.table = interning.table_of(spacy_words.seeds())

    def is_large(self) -> bool:
        count = int(self.chunks.count[0])
        words = max(len(cutter.words) for cutter in self.cutters.values())
        return max(count, words // 4) > _REMEMBERED or int(self.chunks.starts[count]) > _REMEMBERED_BYTES

    def split(self, data: Bytes, begins: Offsets, ends: Offsets, classes: Bytes) -> tuple[Ints, Offsets, Offsets]:
        most = int((ends - begins + 1).sum()) // 2 + 1  # pages that are not written to cost nothing
        ids, starts, counts = np.empty(most, np.int32), np.empty(most, np.int64), np.zeros(len(begins) + 1, np.int64)
        place = np.zeros(3, np.int64)
        while missing := _find_chunks(data, begins, ends, place, self.chunks, ids, starts, counts, classes):
            self.chunks = interning.with_room(self.chunks, 1, missing)
        return ids[: place[2]], starts[: place[2]], counts


@cache
def _memories() -> list[_Memory]:
    return []


def _memory() -> _Memory:
    memories = _memories()
    if not memories or memories[0].is_large():
        memories[:] = [_Memory()]
    return memories[0]


class _Cutter:
    """The words of one kind in the chunks seen, and their vocabulary."""

    def __init__(self, cut: Callable[[Table, int, int], tuple[Ints, Ints, Ints]]) -> None:
        self.vocabulary = Vocabulary()
        # Words of chunk c: words[offsets[c] : offsets[c + 1]], which begin at the bytes `begins` of the chunk.
        self.offsets = np.zeros(1, np.int64)
        self.words = np.empty(0, np.int32)
        self.begins = np.empty(0, np.int32)
        self._cut = cut

    def expanded(self, chunks: Ints, starts: Offsets, counts: Offsets) -> tuple[Ints, Offsets, Offsets]:
        """Each chunk replaced by its words."""
        total = int(np.diff(self.offsets)[chunks].sum())
        words = np.empty(total, np.int32), np.empty(total, np.int64), np.zeros_like(counts)
        _expand(chunks, starts, counts, self.offsets, self.words, self.begins, *words)
        return words

    def learn(self, chunks: Table) -> None:
        """Cut the chunks that came since the last call."""
        known, total = len(self.offsets) - 1, int(chunks.count[0])
        counts, words, begins = [], [self.words], [self.begins]
        while known < total:
            ends = chunks.starts[known + 1 : total + 1]
            stop = known + max(1, int(np.searchsorted(ends, chunks.starts[known] + _CUT_AT_ONCE, "right")))
            pieces = self._cut(chunks, known, stop)
            counts.append(pieces[0])
            words.append(self._numbers(chunks, known, *pieces))
            begins.append(pieces[1])
            known = stop
        if counts:
            self.offsets = np.concatenate([self.offsets, self.offsets[-1] + np.cumsum(np.concatenate(counts), dtype=np.int64)])
            self.words, self.begins = np.concatenate(words), np.concatenate(begins)

    def _numbers(self, chunks: Table, chunk: int, counts: Ints, begins: Ints, ends: Ints) -> Ints:
        numbers, place = np.empty(len(begins), np.int32), np.zeros(3, np.int64)
        place[0] = chunk
        while missing := _intern_words(self.vocabulary.table, chunks, chunk, counts, begins, ends, numbers, place):
            self.vocabulary.table = interning.with_room(self.vocabulary.table, 1, missing)
        return numbers


@native
def _is_gap(code, classes):  # type: ignore[no-untyped-def]
    """Whitespace, but U+202F binds in UAX #29, which is meant when there are classes."""
    return is_space(code) and not (code == 0x202F and len(classes) > 0)


@kernel
def _find_chunks(data, begins, ends, place, table, ids, starts, counts, classes):  # type: ignore[no-untyped-def]
    """Number the stretches without whitespace, going on from `place`: text, byte, chunks so far.

    Returns 0 when all is done, else the bytes that the table has no room for. `classes`: Word_Break of UAX #29 or empty;
    with them a mark takes the whitespace that it follows into its chunk, since both are one segment.
    """
    text, at, done = place
    while text < len(begins):
        at, stop = max(at, begins[text]), ends[text]
        while at < stop:
            code, width = decode(data, at)
            if _is_gap(code, classes):
                at += width
                continue
            start = at
            if code >= 0x80 and len(classes) > 0:
                start = unicode_words.with_blanks_before(data, begins[text], at, classes)
            while at < stop:
                at = interning.skip_plain(data, at, stop)
                if at == stop:
                    break
                code, width = decode(data, at)
                if _is_gap(code, classes):
                    break
                at += width
            number = interning.find(table, data, start, at)
            if number < 0:  # asked by itself, since that is fast and nearly all are known
                number = interning.intern(table, data, start, at)
            if number < 0:
                place[0], place[1], place[2] = text, start, done
                return at - start
            ids[done], starts[done] = number, start
            done += 1
        text += 1
        counts[text] = done
    place[2] = done
    return 0


@kernel
def _find_odd(data, offsets, ids, starts, counts, chunk_starts, classes, odd):  # type: ignore[no-untyped-def]
    """Note the texts with whitespace that is U+202F or that a chunk follows which begins with a mark."""
    for text in range(len(odd)):
        end, last = offsets[text], offsets[text + 1]
        for chunk in range(counts[text], counts[text + 1] + 1):
            start = starts[chunk] if chunk < counts[text + 1] else last
            for at in range(end, start - 2):
                if data[at] == 0xE2 and data[at + 1] == 0x80 and data[at + 2] == 0xAF:
                    odd[text] = True
            if start == last:
                break
            if data[start] >= 0x80 and start > offsets[text] and unicode_words.is_mark(classes, decode(data, start)[0]):
                odd[text] = True
            end = start + chunk_starts[ids[chunk] + 1] - chunk_starts[ids[chunk]]


@kernel
def _intern_words(table, chunks, first, counts, begins, ends, numbers, place):  # type: ignore[no-untyped-def]
    """Number the words of some chunks, going on from `place`: chunk, words of it so far, words in all. Returns as above."""
    chunk, inside, done = place
    while done < len(begins):
        while inside == counts[chunk - first]:
            chunk, inside = chunk + 1, 0
        start = chunks.starts[chunk]
        number = interning.intern(table, chunks.arena, start + begins[done], start + ends[done])
        if number < 0:
            place[0], place[1], place[2] = chunk, inside, done
            return np.int64(ends[done] - begins[done])
        numbers[done] = number
        inside, done = inside + 1, done + 1
    return 0


@kernel
def _expand(chunks, chunk_starts, chunk_counts, offsets, words, begins, ids, starts, counts):  # type: ignore[no-untyped-def]
    """Each chunk replaced by its words."""
    done = 0
    for text in range(len(counts) - 1):
        for at in range(chunk_counts[text], chunk_counts[text + 1]):
            for i in range(offsets[chunks[at]], offsets[chunks[at] + 1]):
                ids[done], starts[done] = words[i], chunk_starts[at] + begins[i]
                done += 1
        counts[text + 1] = done


@kernel
def _add_up(ids, offsets, values, sums):  # type: ignore[no-untyped-def]
    for text in range(len(sums)):
        for word in range(offsets[text], offsets[text + 1]):
            sums[text] += values[ids[word]]
