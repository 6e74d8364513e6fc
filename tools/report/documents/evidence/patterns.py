"""Characters and patterns that a column counts or asks for, found again in the text.

Cost: linear in the text, whatever it is: no pattern here goes back over what it has read, but for a bounded number of characters.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator

from pipeline.taggers.algebraic_stack import FOREIGN, MATHEMATICAL
from pipeline.taggers.code import files
from tools.report.documents.evidence.text import Mark, Text, shows
from tools.report.documents.margins import Pattern, first_match

Limit = float | None
# Column → pattern and what it is. In any case where the tagger looks in any case.
_PATTERNS = {
    "c4_lorem_ipsum_lines": ("(?i)lorem ipsum", "lorem ipsum"),
    "c4_dolma_lorem_ipsum": ("(?i)lorem ipsum", "lorem ipsum"),
    "c4_curly_bracket_lines": (r"\{", "{"),
    "c4_dolma_curly_brace": (r"\{", "{"),
    "c4_dolma_javascript": ("(?i)javascript", "javascript"),
    "gopher_datatrove_hashes_per_word": ("#", "#"),
    "gopher_datatrove_ellipses_per_word": (r"\.\.\.|…", "… and ..."),
    "gopher_dclm_symbols_per_word": (r"#|…|\.\.\.|\. \. \.", "# … ... and . . ."),
    "code_digit_share": ("[0-9]+", "digits"),
    "code_xml": (r"(?s)\A.{0,100}?<\?xml version=", "<?xml version="),
    "code_test_share": ("@test", "@test"),
    "math_accented_share": ("(?i)[àâäèéêïîôöûü]", "accented letters"),
    "math_formulas": (r"\$\$[^$]+\$\$|\$[^$]+\$", "formulas"),
    "ascii_share": (r"[^\x00-\x7f]+", "characters beyond ASCII"),
    "paper_spaced_letters": (r"\b(?:[A-Za-z]\s)(?:[a-z]\s)*[A-Za-z]\b", "runs of single letters"),
    "paper_sections": (r"\\(?:chapter|part|section|subsection|subsubsection)\*?(?:\[[^\]]{0,200}\])?\{[^}]{0,200}\}", "sections"),
}


@shows("|".join(_PATTERNS))
def pattern(text: Text, column: re.Match[str], limit: Limit) -> Iterable[Mark]:
    return text.find(*_PATTERNS[column[0]])


@shows("latin_share")
def other_scripts(text: Text, column: re.Match[str], limit: Limit) -> Iterator[Mark]:
    for mark in text.find(r"[^\W\d_]+", "letters of other scripts"):
        if not all("LATIN" in unicodedata.name(letter, "") for letter in text.data[mark.start : mark.end].decode()):
            yield mark


@shows("code_(mathematical|foreign)")
def words_of_language(text: Text, column: re.Match[str], limit: Limit) -> Iterable[Mark]:
    """What the tagger's own RE2 finds first, wherever it stands."""
    language = files(text.batch)["code_language"][0].as_py()
    wanted = (MATHEMATICAL if column[1] == "mathematical" else FOREIGN).get(language, "")
    label = f"what makes {language} mathematics" if column[1] == "mathematical" else f"what is no {language}"
    match = first_match(Pattern(column[0], wanted, False), text.string) if wanted else ""
    return text.find(re.escape(match), label) if match else []
