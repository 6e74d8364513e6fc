"""Where a rule draws its lines: the numbers that a predicate compares a column with, and where bins must end to be on one side of them."""

from dataclasses import dataclass
from math import ceil, floor

import numpy as np

from tools.report.documents.margins import comparisons


@dataclass(frozen=True)
class Limit:
    """Column, one of < ≤ > ≥, and a number: what a predicate says, the column on its left."""

    column: str
    symbol: str
    value: float

    def edge(self, whole: bool) -> float:
        """The least value that is on the other side than all values below it. whole: of integers."""
        if self.symbol in ">≤":
            return float(floor(self.value) + 1) if whole else float(np.nextafter(self.value, np.inf))
        return float(ceil(self.value)) if whole else self.value

    def __str__(self) -> str:
        return f"{self.symbol} {self.value:,.6g}"


def limits(sql: str) -> list[Limit]:
    """One for every comparison of more and less between a column by itself and a number; what is compared with another column, or
    computed, has no one place on an axis. Raises PredicateError."""
    found = []
    for column, symbol, limit in comparisons(sql):
        try:
            found.append(Limit(column, symbol, float(limit)))
        except ValueError:
            continue
    return list(dict.fromkeys(found))
