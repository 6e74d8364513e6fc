"""`make push MIX=… TO=<owner>/<name>`: release a built mix on the hub.

In: a mix of the store, the name of a data set, and a token that may write there (HF_TOKEN). Out: the data set, private if it was not
there before, with the mix as `DATA=<owner>/<name>` reads it back. Nothing of the store is changed.
"""

import re
from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import ConfigError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9_.-]{1,96}")


def push(
    to: Annotated[str, typer.Option(help="The data set on the hub, owner/name; made, private, where it is not there.")],
    mix: Annotated[str, typer.Option("--mix", help="A mix that is built in the store.")] = "olmoe-mix",
    store: Annotated[str, typer.Option("--store", help="Where it was built: a folder, or a URL such as s3://bucket/prefix.")] = "data",
    recipes: Annotated[Path | None, typer.Option(help="The folder of recipes it was built from, instead of mixes/.")] = None,
) -> None:
    """Release a built mix on the hub: shards, document tables, card, lock-file; compared there in the end."""
    from pipeline.progress import Progress
    from pipeline.recipe import MIXES
    from pipeline.store import Store
    from tools.card.command import card_of_mix
    from tools.push.contents import contents
    from tools.push.repository import Repository
    from tools.push.upload import upload

    if not NAME.fullmatch(to):
        raise ConfigError(f"TO={to}: say which data set of the hub, as in TO=your-name/{mix}")
    opened, repository = Store(store), Repository(to)
    made = contents(opened, mix, to, card_of_mix(opened, mix, repo=to, recipes=recipes or MIXES))
    private = repository.create()
    done = upload(opened, made, repository, Progress())
    print(
        f"{done.files:,} files, {done.bytes / 1e6:,.1f} MB, are in {repository.url} with our hashes; "
        f"{done.sent:,} of them, {done.sent_bytes / 1e6:,.1f} MB, were sent now"
    )
    if private:
        print(f"It is private. Who may see it is for you to say: {repository.url}/settings")
    print(f"Next: make mix MIX={mix} DATA={to}   or, to the byte for ever: DATA={to}@{done.commit}")
