"""Compiles kernels in a second process while the first tests run: on a machine where nothing is compiled yet this takes a minute or two
of one core, and the tests keep only the other one busy. Those that the first test files need are left to them."""

import json
import sys

import pyarrow as pa

from pipeline.taggers import TAGGERS, Batch, run

TEXTS = {
    "a.py": 'import os\n\n\ndef f(x):\n    """Says f."""\n    return [x, "é", 1]  # a comment\n',
    "b.java": "/* a */ class B { int c = 1; // d\n}\n",
    "c.js": "// a\nvar b = /c/g;\n",
    "d.html": "<html><body><p>A &amp; b</p><script>c</script></body></html>",
    "e.txt": "See http://192.168.0.1/a or www.example.org [12]. Don't write to a@b.org, +1 555 123 4567!\n\n\n\nIt's 3.5 km.",
}
FIRST = ("code_comments", "code_html", "code", "algebraic_stack", "papers", "math_text", "math_macro_lines", "pii", "pii_dolma")


def main() -> None:
    names, texts = list(TEXTS), list(TEXTS.values())
    metadata = [json.dumps({"path": name, "ext": name.rsplit(".", 1)[1]}) for name in names]
    columns = {"id": names, "text": pa.array(texts, pa.large_string()), "source": ["warm"] * len(names), "created": ["2024"] * len(names)}
    batch = Batch(pa.table({**columns, "metadata": metadata, "file": names, "row": pa.array(range(len(names)), pa.int64())}))
    batch.words("unicode")
    for name in sorted(TAGGERS, key=lambda name: name not in FIRST):
        if "tokens" not in TAGGERS[name].reads:
            run(TAGGERS[name], batch)


if __name__ == "__main__":
    sys.exit(main())
