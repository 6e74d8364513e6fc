"""Thresholds that write down what they are compared with, so that a peer's own code tells its values.

A filter such as `if ratio > self.limit: return False` says no more than on which side of the limit a document lies. Given
a Witness for a limit it says the ratio: every comparison with a Witness is recorded under the Witness's name and comes out
false, so that the filter goes on to its next rule. Nothing of the peer is rewritten or read from its source.

Python asks the right operand first where its type is derived from the left one's, and a Witness is a float; numpy's
scalars give way to what says `__array_ufunc__ = None`.
"""

from collections.abc import Callable
from contextlib import suppress


class Witness(float):
    """A number that is neither passed nor missed. The first comparison is heard under the first of `names`, and so on; all
    further ones under the last, the latest staying."""

    __array_ufunc__ = None
    __hash__ = float.__hash__

    names: tuple[str, ...]
    heard: dict[str, float]
    scale: float

    def __new__(cls, names: tuple[str, ...], heard: dict[str, float], scale: float = 1.0) -> "Witness":
        witness = super().__new__(cls, 0.5)
        witness.names, witness.heard, witness.scale = names, heard, scale
        return witness

    def _hear(self, value: float) -> bool:
        name = next((name for name in self.names if name not in self.heard), self.names[-1])
        self.heard[name] = float(value) / self.scale if self.scale else 0.0
        return False

    def __lt__(self, value: float) -> bool:
        return self._hear(value)

    __le__ = __gt__ = __ge__ = __lt__

    def __mul__(self, factor: float) -> "Witness":
        """For `count > limit * total`: what is heard is count / total; 0 where there is nothing to count."""
        return Witness(self.names, self.heard, factor)


class Witnesses:
    """Makes Witnesses that share what they hear. `listen` runs a function and returns the values in the order of rules."""

    def __init__(self) -> None:
        self._heard: dict[str, float] = {}

    def __call__(self, *names: str) -> Witness:
        return Witness(names, self._heard)

    def listen(self, function: Callable[[], object]) -> dict[str, float]:
        """Where the function fails, as by dividing by no words, the rules that it did not come to are left out."""
        self._heard.clear()
        with suppress(ArithmeticError, AssertionError, IndexError, ValueError):
            function()
        return dict(self._heard)
