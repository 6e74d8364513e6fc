"""Words and n-grams that made a count or share of words what it is: the most frequent ones, those repeated, those without a letter.

What a word is differs by family (pipeline/taggers/gopher_*.py): pieces of `str.split()` to Dolma, spaCy's tokens to datatrove, UAX #29's
segments that begin with a letter or digit to DCLM. Cost: a second per MB of text and column. Not: nothing is decided here.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from pipeline.taggers.language import STOP_WORDS
from tools.report.documents.evidence.text import Mark, Text, Word, shows

Limit = float | None
QUOTED = 60  # characters of a label's quotation


def family(text: Text, name: str) -> list[Word]:
    """The words that the columns of a family count."""
    if name == "gopher_datatrove":
        return text.words("spacy")
    if name == "gopher_dclm":
        return [word for word in text.words("unicode") if word.text[0].isalnum()]
    return text.words("whitespace")


@shows("top_word_share|top_two_words_share|paper_top_word|paper_second_word")
def top_words(text: Text, column: re.Match[str], limit: Limit) -> Iterator[Mark]:
    words = text.words("whitespace")
    most = Counter(word.text for word in words).most_common(2)
    first, last = {"top_two_words_share": (0, 2), "paper_second_word": (1, 2)}.get(column[0], (0, 1))
    for chosen, times in most[first:last]:
        label = f"{quotation(chosen)}, {times:,} of {len(words):,} words"
        yield from (Mark(word.start, word.end, label) for word in words if word.text == chosen)


@shows(r"(gopher_\w+)_top_(\d+)gram_share")
def top_ngram(text: Text, column: re.Match[str], limit: Limit) -> list[Mark]:
    """Of those equally frequent the first, of DCLM's the longest."""
    words, n = family(text, column[1]), int(column[2])
    times = Counter(ngrams(words, n))
    if not times:
        return []
    most = max(times.values())
    candidates = [ngram for ngram, count in times.items() if count == most]
    chosen = max(candidates, key=lambda ngram: len("".join(ngram))) if column[1] == "gopher_dclm" else candidates[0]
    if most == 1 and column[1] == "gopher_dclm":
        return []
    said = f"the most frequent {n}-gram, {most:,} times" if most > 1 else f"the first {n}-gram of those that each come once"
    label = f"{said}: {quotation(' '.join(chosen))}"
    return [_mark(words, at, n, label) for at, ngram in enumerate(ngrams(words, n)) if ngram == chosen]


@shows(r"(gopher_dolma|gopher_dclm)_(?:duplicate|repeated)_(\d+)gram_share")
def repeated_ngrams(text: Text, column: re.Match[str], limit: Limit) -> list[Mark]:
    words, n = family(text, column[1]), int(column[2])
    times = Counter(ngrams(words, n))
    label = f"{n}-grams that come more than once"
    return [_mark(words, at, n, label) for at, ngram in enumerate(ngrams(words, n)) if times[ngram] > 1]


@shows(r"gopher_datatrove_repeated_(\d+)gram_share")
def read_before(text: Text, column: re.Match[str], limit: Limit) -> Iterator[Mark]:
    """As a reader meets them who skips what he has read; words written together, as datatrove compares them."""
    words, n = family(text, "gopher_datatrove"), int(column[1])
    seen: set[str] = set()
    at = 0
    while at + n <= len(words):
        joined = "".join(word.text for word in words[at : at + n])
        if joined in seen:
            yield _mark(words, at, n, f"{n}-grams that came before")
            at += n
        else:
            seen.add(joined)
            at += 1


@shows(r"english_stop_words|gopher_dolma_required_words|gopher_datatrove_stop_words")
def stop_words(text: Text, column: re.Match[str], limit: Limit) -> Iterator[Mark]:
    in_any_case = column[0] == "english_stop_words"
    words = family(text, "gopher_datatrove" if "datatrove" in column[0] else "gopher_dolma")
    wanted = set(STOP_WORDS)
    return (Mark(w.start, w.end, "stop words") for w in words if (w.text.lower() if in_any_case else w.text) in wanted)


@shows(r"(gopher_dolma|gopher_datatrove)_alphabetic_word_share|gopher_dclm_unalphabetic_word_share")
def without_letter(text: Text, column: re.Match[str], limit: Limit) -> Iterator[Mark]:
    words = family(text, column[1] or "gopher_dolma")
    return (Mark(w.start, w.end, "words without a letter") for w in words if not any(map(str.isalpha, w.text)))


@shows(r"mean_word_length|(gopher_dolma|gopher_datatrove)_(?:mean|median)_word_length")
def long_words(text: Text, column: re.Match[str], limit: Limit) -> list[Mark]:
    """Where it is more than long words that are asked about, none."""
    if limit is None or limit < 6:
        return []
    words = family(text, column[1] or "gopher_dolma")
    return [Mark(w.start, w.end, f"words of more than {limit:g} characters") for w in words if len(w.text) > limit]


@shows("gopher_dolma_symbol_word_share")
def symbol_words(text: Text, column: re.Match[str], limit: Limit) -> Iterator[Mark]:
    return (Mark(w.start, w.end, "words with # or …") for w in family(text, "gopher_dolma") if set(w.text) & set("#…"))


def ngrams(words: Sequence[Word], n: int) -> Iterable[tuple[str, ...]]:
    """Those of n neighbours, in order."""
    strings = [word.text for word in words]
    return (tuple(strings[at : at + n]) for at in range(len(strings) - n + 1))


def quotation(string: str, most: int = QUOTED) -> str:
    """Its beginning, in quotation marks, on one line. White space by itself is shown as symbols."""
    line = " ".join(string[: 2 * most].split()) or string.translate({0x20: "␣", 0x0A: "⏎", 0x09: "⇥"})
    return f"“{line[:most]}{'…' if len(line) > most or len(string) > 2 * most else ''}”"


def _mark(words: Sequence[Word], at: int, n: int, label: str) -> Mark:
    return Mark(words[at].start, words[at + n - 1].end, label)
