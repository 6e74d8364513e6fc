"""AlgebraicStack's rules of content, by language (EleutherAI/math-lm, proof_pile_2/algebraic_stack/process_stack.py and
process_github.py): words that a file must have to count as mathematics, and signs that it is something else.

Its rules of size, digits, paths and repositories need no text: mixes/filters/algebraic-stack.yaml has them as predicates.
"""

import re

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.taggers import Batch, tagger

# `\s` of Python's re, which RE2's is not.
_SPACE = r"[\x09-\x0d\x1c-\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]"


def _any_of(*literals: str) -> str:
    return "|".join(re.escape(literal) for literal in literals)


def _in_any_case(literal: str) -> str:
    # Not (?i): that also lets "ſ" stand for "s", which `str.lower()` does not.
    return "".join(f"[{letter}{letter.upper()}]" if letter.isalpha() else re.escape(letter) for letter in literal)


_HASKELL = "Numeric.LinearAlgebra Numeric.SpecFunctions Numeric.Vector Statistics Data.Complex".split()
_PYTHON = "numpy scipy sympy sage numba numexpr theano statsmodels networkx mpmath pymc3 astropy cupy pycuda cvxpy pyomo jax".split()
_CPP = "adept_arrays.h> adept.h> alglib boost armadillo blitz Eigen deal.II dlib NTL mtl".split()

# Language → what must be found, as RE2. The dots of Haskell's names match any character but "\n", as upstream's do. In C,
# upstream lacks a comma, so that fftw3.h and rfftw.h count only where the two directives touch, which is nowhere.
MATHEMATICAL = {
    "haskell": rf"import{_SPACE}+(?:qualified{_SPACE}+)?(?:{'|'.join(_HASKELL)})",
    "python": f"(?:import|from) (?:{'|'.join(_PYTHON)})",
    "c": _any_of(
        "#include <fftw.h>", "#include <fftw3.h>#include <rfftw.h>", "#include <gsl", "#include <cblas.h>", "#include <blas.h>",
        "#include <lapacke.h>", "#include <nlopt.h>", "#include <petsc.h>",
    ),
    "c++": "#include <(?:" + _any_of(*_CPP) + ")",
    "tex": r"\\(?:(?:chapter|section|subsection|subsubsection)\*?|paragraph|subparagraph)\{",
    "jupyter-notebook": "|".join(map(_in_any_case, (r"\begin{equation}", r"\begin{align}", "import sympy", "from sympy"))),
    "coq": _any_of("Theorem", "Proof", "Qed", "Inductive", "Definition", "Fixpoint"),
    "lean": _any_of("theorem ", "lemma ", "example "),
    "isabelle": _any_of("theorem ", "lemma "),
}  # fmt: skip

# Language → what must not be found. `\A` binds a sign to the file's beginning.
FOREIGN = {
    "r": rf"/\* Resource fork|Requirement{_SPACE}+\{{{_SPACE}+Identifier|\A<\?xml|\A\{{",
    "maple": r"\A<\?xml",
    "python": rf"\A{_SPACE}*\{{",
    "julia": r"\A[%{\[]",
    "tex": "gnuplot",
    "coq": _any_of("pragma", "endmodule", "posedge", "negedge", "wire", "This file was automatically generated"),
    "matlab": _any_of("#import", "@interface", "@implementation", "@property", "#include") + r"| main\(.*\{\n?\z",
}  # fmt: skip


@tagger(
    columns={"code_mathematical": pa.bool_(), "code_foreign": pa.bool_(), "code_test_share": pa.float64()},
    reads=("text", "metadata", "file"),
)
def algebraic_stack(batch: Batch) -> dict[str, pa.Array | npt.NDArray]:
    """What a file's text says about its place in AlgebraicStack, by its `code_language`.

    code_mathematical: it has one of the words that MATHEMATICAL asks for, such as `import numpy` in Python or `lemma ` in
    Lean; True in a language that it does not name. code_foreign: it has a sign of being something else, in FOREIGN, such as
    a notebook among Python files or Verilog among Coq's; False in a language that it does not name, and for an empty text.
    code_test_share: occurrences of "@test" / lines ("\\n" + 1), the sign of Julia's test files; 0.0 for an empty text.
    """
    from pipeline.taggers.code import files
    from pipeline.text.utf8 import occurrences

    language, text = files(batch)["code_language"], batch["text"].cast(pa.large_string())
    lines, tests = (occurrences(*batch.utf8, np.frombuffer(string, np.uint8), 0) for string in (b"\n", b"@test"))
    return {
        "code_mathematical": _found(text, language, MATHEMATICAL, otherwise=True),
        "code_foreign": _found(text, language, FOREIGN, otherwise=False),
        "code_test_share": tests / (lines + 1),
    }


def _found(text: pa.Array, language: pa.Array, patterns: dict[str, str], otherwise: bool) -> npt.NDArray[np.bool_]:
    """[n] bool: does a text match its language's pattern? `otherwise` where the language has none."""
    found = np.full(len(text), otherwise, dtype=np.bool_)
    for name, pattern in patterns.items():
        rows = np.flatnonzero(pc.equal(language, name).to_numpy(zero_copy_only=False))
        if len(rows):
            found[rows] = pc.match_substring_regex(text.take(pa.array(rows)), pattern).to_numpy(zero_copy_only=False)
    return found
