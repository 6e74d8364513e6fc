"""Near-duplicates with a known answer: edited copies are planted, and how alike they are is computed, not estimated.

In:   documents' texts; then a clustering of them and of what was planted, whoever made it.
Out:  `plant`: copies of which 5 to 30 % of the words are edited, in four ways; `jaccard`: how alike two texts are, exactly;
      `recall` and `precision`: which of the planted pairs a clustering found, and how alike is what it joined;
      `advantage`: whether one clustering found more than another, or was lucky.
Cost: 0.1 s of CPU per MB of text for each of them, most of it sets of strings.
Not:  near-duplicates that the documents held before are not in the recall, for nobody knows them all; in the precision
      they are.
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.unit import Json

NGRAM = 5
SHARES = (0.05, 0.1, 0.15, 0.2, 0.3)
ALIKE = 0.75  # what FineWeb's 14 bands of 8 rows aim at
UNLIKE = 0.5
_WORD = re.compile(r"[^\W_]+")  # letters and digits, as neither side defines its words
_LONGEST_CLUSTER = 50


@dataclass(frozen=True)
class Planted:
    """A copy of document `original` with an edit of the kind `edit` that met about `share` of its words."""

    original: int
    edit: str
    share: float
    text: str


def plant(texts: Sequence[str], seed: int = 1) -> list[Planted]:
    """One copy of every text of at least 50 words, with kinds and shares of edits in turn. The same for the same seed.

    The kinds: single words replaced here and there by other documents' words; one run of words replaced by a run of
    another document; one run removed; another document's run put in. Spaces and punctuation stay as they are.
    """
    draw = random.Random(seed)
    long = [index for index, text in enumerate(texts) if len(text.split()) >= 50]
    edits = [(edit, share) for share in SHARES for edit in _EDITS]
    planted = []
    for place, index in enumerate(long):
        edit, share = edits[place % len(edits)]
        other = texts[long[draw.randrange(len(long))]]
        pieces = _EDITS[edit](re.split(r"(\s+)", texts[index]), other.split(), share, draw)
        planted.append(Planted(index, edit, share, "".join(pieces)))
    return planted


# A text is words at even places and the blanks between them at odd ones.
def _scattered(pieces: list[str], other: list[str], share: float, draw: random.Random) -> list[str]:
    edited = list(pieces)
    for place in range(0, len(edited), 2):
        if draw.random() < share:
            edited[place] = draw.choice(other)
    return edited


def _replaced(pieces: list[str], other: list[str], share: float, draw: random.Random) -> list[str]:
    start, stop = _run(len(pieces), share, draw)
    return pieces[:start] + _foreign(other, (stop - start) // 2, draw) + pieces[stop:]


def _removed(pieces: list[str], other: list[str], share: float, draw: random.Random) -> list[str]:
    start, stop = _run(len(pieces), share, draw)
    return pieces[:start] + pieces[stop:]


def _added(pieces: list[str], other: list[str], share: float, draw: random.Random) -> list[str]:
    start, stop = _run(len(pieces), share, draw)
    return pieces[:start] + _foreign(other, (stop - start) // 2, draw) + pieces[start:]


_EDITS = {"scattered": _scattered, "replaced": _replaced, "removed": _removed, "added": _added}


def _run(pieces: int, share: float, draw: random.Random) -> tuple[int, int]:
    """Where a run of this share of the words starts and stops, both at a word."""
    words = pieces // 2
    length = max(1, round(words * share))
    start = draw.randrange(max(1, words - length))
    return 2 * start, 2 * (start + length)


def _foreign(other: list[str], words: int, draw: random.Random) -> list[str]:
    start = draw.randrange(len(other))
    return [piece for place in range(words) for piece in (other[(start + place) % len(other)], " ")]


def shingles(text: str, ngram: int = NGRAM) -> frozenset[str]:
    """The distinct runs of `ngram` lower-cased words of letters and digits; of a shorter text its words as one run."""
    words = _WORD.findall(text.lower())
    if len(words) < ngram:
        return frozenset([" ".join(words)] if words else [])
    return frozenset(" ".join(words[start : start + ngram]) for start in range(len(words) - ngram + 1))


def jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    """Size of the intersection over that of the union; 0.0 where both are empty."""
    shared = len(first & second)
    return shared / max(1, len(first) + len(second) - shared)


def expected(similarity: float, bands: int = 14, rows: int = 8) -> float:
    """The probability that a pair of this Jaccard similarity shares a band."""
    return 1 - (1 - similarity**rows) ** bands


Clusters = Mapping[int, int]
"""Of each document in a cluster of two or more, a number that only its cluster has. Documents are numbered from 0: those that
were there, and after them the planted ones."""


def similarities(texts: Sequence[str], planted: Sequence[Planted]) -> list[float]:
    """The exact Jaccard similarity of each planted copy to its original."""
    return [jaccard(shingles(texts[copy.original]), shingles(copy.text)) for copy in planted]


def found(planted: Sequence[Planted], clusters: Clusters, documents: int) -> list[bool]:
    """Which planted copies are in the cluster of their original; `documents`: how many were there."""
    return [
        documents + index in clusters and clusters.get(copy.original) == clusters[documents + index] for index, copy in enumerate(planted)
    ]


def recall(alike: Sequence[float], hits: Sequence[bool]) -> dict[str, Json]:
    """`recall`: the share found of the pairs at least ALIKE; `expected`: what the formula expects it to be; and for each
    tenth of similarity the pairs planted, found, and expected to be found."""
    tenths: dict[str, dict[str, float]] = {}
    for similarity, hit in sorted(zip(alike, hits, strict=True)):
        tenth = tenths.setdefault(f"{int(10 * similarity) / 10:.1f}", {"planted": 0, "found": 0, "expected": 0.0})
        tenth["planted"] += 1
        tenth["found"] += hit
        tenth["expected"] += expected(similarity)
    near = [(similarity, hit) for similarity, hit in zip(alike, hits, strict=True) if similarity >= ALIKE]
    return {
        "pairs": len(near),
        "recall": sum(hit for _, hit in near) / max(1, len(near)),
        "expected": sum(expected(similarity) for similarity, _ in near) / max(1, len(near)),
        "by_similarity": tenths,
    }


def advantage(alike: Sequence[float], ours: Sequence[bool], theirs: Sequence[bool]) -> dict[str, Json]:
    """Who finds more of the pairs at least ALIKE: pairs that one alone found, and how many standard errors we are ahead.

    Two sets of random permutations find different pairs, each as many as the formula says, so being behind by less than
    2 standard errors is chance (McNemar's test: of pairs that one alone found, each side has half, give or take).
    """
    near = [(our, their) for similarity, our, their in zip(alike, ours, theirs, strict=True) if similarity >= ALIKE]
    only_ours, only_theirs = (sum(pair == outcome for pair in near) for outcome in ((True, False), (False, True)))
    return {
        "only_ours": only_ours,
        "only_theirs": only_theirs,
        "standard_errors_ahead": (only_ours - only_theirs) / max(1, only_ours + only_theirs) ** 0.5,
    }


def precision(documents: Sequence[str], clusters: Clusters) -> dict[str, Json]:
    """`precision`: the share of the documents in clusters that are at least UNLIKE alike to another one of their cluster.

    Of clusters of more than 50, to one of the first 50.
    """
    members: dict[int, list[int]] = {}
    for index, cluster in sorted(clusters.items()):
        members.setdefault(cluster, []).append(index)
    right = len(clusters)
    for indices in members.values():
        sets = [shingles(documents[index]) for index in indices]
        for place, mine in enumerate(sets):
            nearest = max(jaccard(mine, other) for at, other in enumerate(sets[:_LONGEST_CLUSTER]) if at != place)
            right -= nearest < UNLIKE
    return {
        "clusters": len(members),
        "documents": len(clusters),
        "largest": max(map(len, members.values()), default=0),
        "precision": right / max(1, len(clusters)),
    }
