"""What runs in a peer's interpreter: documents in, the peer's values or its decisions and their CPU time out.

    python -m tools.curation.<peer>_side values <documents.jsonl> <out.jsonl>
    python -m tools.curation.<peer>_side filters <documents.jsonl> <set>,<set>… <out.json>

In: one JSON object a line with `text`, plain. `values`: a JSON object per document. `filters`, per set: CPU seconds of deciding all
documents one after the other in this process, which has then imported, loaded and warmed everything on the first few of them;
`every_rule_cpu_seconds`, the same of asking all rules of all documents, as for a table of attributes, where the peer as it comes
stops at the first that drops; and the decisions: the name of the rule that dropped the document, null for a kept one.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

WARM = 3


@dataclass(frozen=True)
class FilterSet:
    """decide: the first reason for dropping a text, or None. every_rule: all rules of the set asked of a text; None: `decide` does."""

    decide: Callable[[str], str | None]
    every_rule: Callable[[str], object] | None = None


def main(values: Callable[[str], dict[str, Any]], filters: Mapping[str, FilterSet]) -> None:
    verb, source, *sets, target = sys.argv[1:]
    documents = list(texts(source))
    with open(target, "w", encoding="utf-8") as out:
        if verb == "values":
            for text in documents:
                out.write(json.dumps(values(text)) + "\n")
            return
        json.dump({name: _timed(filters[name], documents) for name in sets[0].split(",")}, out)


def _timed(filters: FilterSet, documents: list[str]) -> dict[str, Any]:
    seconds, decisions = _run(filters.decide, documents)
    every = _run(filters.every_rule, documents)[0] if filters.every_rule else seconds
    return {"cpu_seconds": seconds, "every_rule_cpu_seconds": every, "decisions": decisions}


def _run(function: Callable[[str], Any], documents: list[str]) -> tuple[float, list[Any]]:
    for text in documents[:WARM]:
        function(text)
    began = time.process_time()
    results = [function(text) for text in documents]
    return time.process_time() - began, results


def texts(path: str) -> Iterator[str]:
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"]
