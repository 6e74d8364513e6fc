"""`make inspect`: an instance of a mix or a run; a document by its id; all documents of a source, or all that one reason dropped.

On a terminal the output goes through a pager, and documents are read as one comes to them; elsewhere it is plain text.
"""

from itertools import chain
from typing import Annotated

import typer

from pipeline import complete
from pipeline.errors import ConfigError
from trainer.complete import runs


def inspect(
    mix: Annotated[str, typer.Option(help="A mix. Default: the run's, or olmoe-mix.", autocompletion=complete.mixes)] = "",
    run: Annotated[str, typer.Option(help="A run: its own instances, by its own length.", autocompletion=runs)] = "",
    instance: Annotated[str, typer.Option(help="An instance, from 0.")] = "",
    doc: Annotated[str, typer.Option(help="A document's id, or its place: <file>#<row>.")] = "",
    source: Annotated[str, typer.Option(help="Only this source.", autocompletion=complete.mix_sources)] = "",
    dropped: Annotated[str, typer.Option(help="Only what this reason dropped.", autocompletion=complete.reasons)] = "",
    store: Annotated[str, typer.Option(help="Where the mix is: a folder, or a URL such as s3://bucket/prefix.")] = "data",
) -> None:
    """Read an instance or documents: their text with the ends of tokens, where they come from, scores, what dropped them and why."""
    if not (instance or doc or source or dropped):
        raise ConfigError("say what to look at: INSTANCE=0, DOC=<id>, SOURCE=<source> or DROPPED=<reason>")
    if (instance and (doc or source or dropped)) or (doc and dropped):
        raise ConfigError("INSTANCE stands alone; DOC goes with SOURCE, and SOURCE with DROPPED")
    from tools.inspect import look
    from tools.inspect.pager import paged

    subject = look.open_subject(mix, run, store)
    if instance:
        found = look.instance(subject, instance)
    else:
        found = look.documents(subject, doc, source) if doc else look.listed(subject, source, dropped)
    first = next(found, None)  # what is wrong is said before a pager starts
    if first is None:
        raise ConfigError(f"{source or subject.of} has no documents")
    tokenizer = subject.tokenizer()
    with paged() as screen:
        drawing = subject.drawing(screen, tokenizer)
        for draw in chain([first], found):
            draw(drawing)
