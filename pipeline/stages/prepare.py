"""Documents → spans that are replaced in them before anything else looks at their text.

In: one part of documents and the editors that its source names under `prepare:`, in order; each sees what the earlier ones
left. Out: `spans.parquet` (taggers.SPANS), all of them as bytes of the documents as read. From here on every stage that reads
a text of this source reads it with these spans replaced. One pass over the text for each editor, memory of a row group.
"""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import edits
from pipeline.documents import SCHEMA, row_groups, write_table
from pipeline.engine import Stage, Work
from pipeline.taggers import SPANS, Batch, run
from pipeline.taggers.ready import Ready, restored
from pipeline.unit import Artifact, Json, Unit

STAGE = Stage("prepare", "prepared", 1, "pipeline.stages.prepare:prepare")


def unit(source: str, part: Artifact, editors: Sequence[Ready]) -> Unit:
    return STAGE.unit(
        source,
        inputs=(part, *(file for editor in editors for file in editor.files)),
        params={"editors": [dict(editor.params) for editor in editors]},
        where={editor.tagger.name: editor.where for editor in editors if editor.where},
    )


def prepare(work: Sequence[Work]) -> Iterator[dict[str, Json]]:
    for item in work:
        editors = [restored(params, item.unit, item.store) for params in item.unit.params["editors"]]
        columns = sorted({name for editor in editors for name in editor.reads} & set(SCHEMA.names) | {"text", "source", "file", "row"})
        tables, first, size = [SPANS.empty_table()], 0, 0
        for group in row_groups(item.store.local(item.unit.inputs[0]), columns):
            spans, texts = SPANS.empty_table(), group["text"]
            field = group.schema.get_field_index("text")
            for editor in editors:
                batch = Batch(group.set_column(field, group.schema.field(field), texts))
                found = edits.original(run(editor, batch)[1]["spans"], spans)
                spans = edits.union([spans, found])
                texts = edits.apply(group["text"], spans)
            tables.append(spans.set_column(0, SPANS.field("row"), pc.add(spans["row"], first)))
            first += group.num_rows
            size += pc.sum(pc.binary_length(group["text"])).as_py() or 0
        spans = pa.concat_tables(tables)
        write_table(spans, item.folder / "spans.parquet")
        yield {"documents": first, "bytes": size, "spans": spans.num_rows}
