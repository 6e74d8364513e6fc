"""Requests of OLMo's multiple-choice tasks, each question with its right answer a record.

Goes in: JSON lines as OLMo packages its tasks (`requests.jsonl.gz`): one line for each choice, with the question under
`doc.query`, all choices under `doc.choices` and the right one's number under `doc.gold`. Comes out, for the first line
of each question: `{"text": "<query> <choice>", "metadata": {"task", "question"}}`. Left out are the examples that a
request puts before the question, the same for a whole task, and the lines that ask for a choice without its question,
to tell how probable it is by itself. `row` is the line.

It does not know training data from tests: name only files of `train_*` folders.
Failures: those of jsonl.py, and `not_a_question`. Cost: that of jsonl.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.readers import Failure, RawFile, Record, jsonl


def read(file: RawFile) -> Iterator[Record | Failure]:
    """Yield the file's questions. Raises `PipelineError` for a damaged file."""
    for line in jsonl.read(file):
        if isinstance(line, Failure):
            yield line
        elif line.fields.get("idx") == 0:
            question = _question(line)
            if question is not None:
                yield question


def _question(line: Record) -> Record | Failure | None:
    match line.fields:
        case {
            "task_name": str(task), "native_id": identity, "request": {"context": str(context)},
            "doc": {"query": str(query), "choices": [*choices], "gold": int(gold)},
        } if 0 <= gold < len(choices):  # fmt: skip
            if not context.endswith(query):
                return None
            metadata = {"task": task, "question": str(identity)}
            return Record(line.row, {"text": f"{query} {str(choices[gold]).strip()}", "metadata": metadata})
    detail = f"no task_name, request.context, doc.query, doc.choices and doc.gold among {', '.join(line.fields)}"
    return Failure(line.row, "not_a_question", detail)
