"""The planted near-duplicates are as alike as the arithmetic of their edits says, and the scores count what they name."""

import random

import pytest

from tools import near_recall
from tools.near_recall import Planted, advantage, expected, found, jaccard, plant, precision, recall, shingles, similarities


def texts(count: int, words: int = 400) -> list[str]:
    """Texts of words that stand nowhere else."""
    draw = random.Random(1)
    return [" ".join(f"w{draw.getrandbits(60)}" for _ in range(words)) for _ in range(count)]


def test_shingles_are_runs_of_words_without_punctuation_and_case() -> None:
    assert shingles("One, two_three FOUR-five six!") == {"one two three four five", "two three four five six"}
    assert shingles("Just two.") == {"just two"} and shingles(" ?! ") == frozenset()
    assert jaccard(frozenset("abc"), frozenset("bcd")) == 0.5 and jaccard(frozenset(), frozenset()) == 0.0


def test_edits_leave_as_much_as_their_shares_say() -> None:
    originals = texts(200)
    planted = plant(originals)
    assert [copy.original for copy in planted] == list(range(200)) and plant(originals) == planted != plant(originals, seed=2)
    # Of n words a run of sn is gone, and with it the n-grams that reach into it; where others come instead, these are new.
    formula = {
        "scattered": lambda share: (1 - share) ** 5 / (2 - (1 - share) ** 5),
        "replaced": lambda share: (1 - share) / (1 + share),
        "removed": lambda share: 1 - share,
        "added": lambda share: 1 / (1 + share),
    }
    for copy, similarity in zip(planted, similarities(originals, planted), strict=True):
        tolerance = 0.15 if copy.edit == "scattered" else 0.03
        assert similarity == pytest.approx(formula[copy.edit](copy.share), abs=tolerance), copy.edit
    assert {(copy.edit, copy.share) for copy in planted} == {(edit, share) for edit in formula for share in near_recall.SHARES}


def test_short_texts_get_no_copy() -> None:
    assert [copy.original for copy in plant(["too short", *texts(1), ""])] == [1]


def test_a_planted_copy_is_found_if_it_is_in_the_cluster_of_its_original() -> None:
    planted = [Planted(original, "removed", 0.1, "") for original in range(4)]
    assert found(planted, {0: 8, 4: 8, 1: 9, 5: 8, 6: 7}, documents=4) == [True, False, False, False]


def test_recall_counts_pairs_that_are_alike() -> None:
    scored = recall([0.95, 0.8, 0.78, 0.5], [True, True, False, True])
    assert (scored["pairs"], scored["recall"]) == (3, pytest.approx(2 / 3))
    assert scored["expected"] == pytest.approx((expected(0.95) + expected(0.8) + expected(0.78)) / 3)
    assert scored["by_similarity"]["0.5"] == {"planted": 1, "found": 1, "expected": expected(0.5)}
    assert expected(0.8) == pytest.approx(0.924, abs=5e-4) and expected(0.0) == 0.0 and expected(1.0) == 1.0
    assert recall([], [])["recall"] == 0.0


def test_being_ahead_is_measured_in_pairs_that_one_alone_found() -> None:
    ours, theirs = [True] * 9 + [False, True, True], [False] * 9 + [True, True, True]
    assert advantage([0.9] * 11 + [0.1], ours, theirs) == {"only_ours": 9, "only_theirs": 1, "standard_errors_ahead": 8 / 10**0.5}
    assert advantage([0.9], [True], [True])["standard_errors_ahead"] == 0.0


def test_precision_is_of_documents_that_have_a_neighbour_in_their_cluster() -> None:
    one, other, third = texts(3, words=40)
    scored = precision([one, one + " more", other, third, third], {0: 1, 1: 1, 2: 1, 3: 5, 4: 5})
    assert scored == {"clusters": 2, "documents": 5, "largest": 3, "precision": 4 / 5}
    assert precision([], {})["precision"] == 0.0
