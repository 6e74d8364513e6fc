"""The command-line program behind make. `tokenmill --help` lists everything."""

import csv
import json
import os
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipeline import complete
from pipeline.errors import ConfigError
from pipeline.terminal import Exact, console, program, run, visible

app = program("Raw corpora in, training tokens out.")
Recipe = Annotated[str, typer.Option("--mix", help="Which recipe: the name of a file under mixes/.", autocompletion=complete.recipes)]
Mix = Annotated[str, typer.Option("--mix", help="A mix that was built in the store.", autocompletion=complete.mixes)]
StoreOption = Annotated[str, typer.Option("--store", help="Where all outputs go: a folder, or a URL such as s3://bucket/prefix.")]


class Format(StrEnum):
    table = "table"
    csv = "csv"
    json = "json"


@app.command()
def mix(
    mix: Recipe = "olmoe-mix",
    data: Annotated[
        str, typer.Option(help="sample, hub, a folder or URL with <source>/** files, or a release on the hub: owner/name.")
    ] = "sample",
    store: StoreOption = "data",
    tokens: Annotated[str, typer.Option(help="Length of the training run, such as 50M or 10B. Default: the recipe's.")] = "",
    workers: Annotated[int, typer.Option(min=1, help="Parallel workers; one core each.")] = os.cpu_count() or 1,
    sources: Annotated[str, typer.Option(help="Narrow the mix to these sources, a,b,c.", autocompletion=complete.recipe_sources)] = "",
    scale: Annotated[bool, typer.Option("--scale", help="Build a smaller mix than the recipe asks for if supply is short.")] = False,
    stream: Annotated[bool, typer.Option("--stream", help="With DATA=hub: download files as they are read, and keep none.")] = False,
    recipes: Annotated[Path | None, typer.Option(help="A folder of recipes of your own instead of mixes/.")] = None,
) -> None:
    """Build a mix: download, read, tokenize, filter, dedupe, write shards, resolve the recipe."""
    from pipeline.build import Request, build
    from pipeline.config import parse_count
    from pipeline.progress import Progress
    from pipeline.recipe import MIXES
    from pipeline.stats import show_mix
    from pipeline.store import Store

    request = Request(
        mix=mix, store=store, data=data, tokens=parse_count(tokens, "TOKENS") if tokens else None, workers=workers,
        sources=tuple(name.strip() for name in sources.split(",") if name.strip()), scale=scale, stream=stream,
        recipes=recipes or MIXES,
    )  # fmt: skip
    progress = Progress()
    lock = build(request, progress)
    show_mix(Store(store), mix, console())
    elsewhere = "" if store == "data" else f" STORE={store}"
    print(
        f"{lock.instances:,} instances of {lock.sequence_length:,} tokens; the lock-file is {store}/mixes/{mix}.lock.json\n"
        f"Next: make stats MIX={mix}{elsewhere}   make verify MIX={mix}{elsewhere}   "
        f"make sql MIX={mix}{elsewhere} Q=\"SELECT * FROM funnel WHERE source = '{lock.sources[-1].name}'\""
    )


@app.command()
def stats(mix: Mix = "olmoe-mix", store: StoreOption = "data") -> None:
    """Requested beside obtained, what was dropped and why, what each stage cost."""
    from pipeline.stats import show
    from pipeline.store import Store

    show(Store(store), mix, console())


@app.command()
def preview(
    source: Annotated[str, typer.Option(help="A source that was built in this store.", autocompletion=complete.mix_sources)],
    where: Annotated[str, typer.Option(help='SQL over attributes, such as "words < 50 OR lines > 9000".')] = "",
    filters: Annotated[str, typer.Option(help="Files under mixes/filters/, a,b,c: all of them.", autocompletion=complete.filters)] = "",
    store: StoreOption = "data",
    workers: Annotated[int, typer.Option(min=1, help="For attributes that are not there yet.")] = os.cpu_count() or 1,
    recipes: Annotated[Path | None, typer.Option(help="A folder of recipes of your own instead of mixes/.")] = None,
) -> None:
    """What rules would drop from a source, with documents on either side, before anything is built again."""
    from pipeline.preview import preview, rules_for, show
    from pipeline.progress import Progress
    from pipeline.recipe import MIXES
    from pipeline.store import Store

    names = [name.strip() for name in filters.split(",") if name.strip()]
    rules = rules_for(source, where, names, recipes or MIXES)
    show(preview(Store(store), source, rules, workers, Progress()), console())


@app.command()
def classifier(
    good: Annotated[Path, typer.Option(help="A folder of texts that you want more of.")],
    bad: Annotated[Path, typer.Option(help="A folder of texts such as your pool has.")],
    out: Annotated[Path, typer.Option(help="Where the model goes; its report beside it as .json.")] = Path("quality.bin"),
) -> None:
    """Train a fastText quality classifier; report precision and recall on texts held out."""
    from pipeline.classifier import train
    from pipeline.terminal import titled

    report = train(good, bad, out)
    held_out = f"{report.held_out_good} good and {report.held_out_bad} bad texts held out"
    print(f"trained on {report.good} good and {report.bad} bad texts; measured on {held_out}:")
    table = titled("", "keep scores from", "precision", "recall", "of the bad kept")
    for point in report.points:
        table.add_row(f"{point.threshold:g}", f"{point.precision:.3f}", f"{point.recall:.3f}", f"{point.kept_of_bad:.1%}")
    console().print(table)
    model = out.with_suffix(".bin").absolute()
    print(
        f"a tenth of the bad texts scores {report.top_tenth:.6f} or more\n"
        f"Next, in a source's YAML: attributes: {{quality: {{kind: fasttext, model: {model}}}}}\n"
        "                          drop: {low_quality: quality < 0.018112}"
    )


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="A query on the catalog; without one a DuckDB shell opens.")] = "",
    mix: Mix = "olmoe-mix",
    store: StoreOption = "data",
    format: Annotated[Format, typer.Option(help="table for people; csv or json for machines.")] = Format.table,
) -> None:
    """Query the catalog: documents, funnel, mixes, duplicates, edits, attributes_<source>, …; pipeline/catalog.py lists its views."""
    import duckdb

    from pipeline import catalog
    from pipeline.stats import format_value, open_catalog
    from pipeline.store import Store

    opened = Store(store)
    if not catalog.is_current(opened):
        if not catalog.sources(opened):
            raise ConfigError(f"nothing has been built in {opened.place} yet; run: make mix MIX=olmoe-mix")
        catalog.write(opened, mix, ())
    if not query:
        if "://" in opened.place:
            raise ConfigError('the DuckDB shell opens no store at a URL; give a query: make sql Q="…"')
        shell = Path(sys.executable).with_name("duckdb")
        if not shell.exists():
            raise ConfigError(f'no DuckDB shell beside {sys.executable}; run make setup, or give a query: make sql Q="…"')
        colourless = ["-light-mode", "-cmd", ".highlight off"] if os.environ.get("NO_COLOR") else []
        raise typer.Exit(subprocess.call([shell, *colourless, "-readonly", catalog.path(opened)]))
    with open_catalog(opened) as connection:
        try:
            cursor = connection.execute(query)
        except duckdb.Error as error:
            raise ConfigError(str(error)) from error
        names, rows = [column[0] for column in cursor.description], cursor.fetchall()
    if format is Format.csv:
        csv.writer(Exact(), lineterminator="\n").writerows([names, *rows])
    elif format is Format.json:
        json.dump([dict(zip(names, row, strict=True)) for row in rows], Exact(), default=str, ensure_ascii=False)
        print()
    else:
        from rich.table import Table

        table = Table(*names, box=None, header_style="bold", pad_edge=False)
        for row in rows:
            table.add_row(*(format_value(value) for value in row))
        console().print(table)


@app.command()
def verify(
    mix: Mix = "olmoe-mix",
    store: StoreOption = "data",
    workers: Annotated[int, typer.Option(min=1, help="Parallel readers.")] = os.cpu_count() or 1,
    remove: Annotated[bool, typer.Option("--remove", help="Remove what is damaged and what read it, for mix to make again.")] = False,
) -> None:
    """Reread everything that a mix rests on; name each thing that does not hold."""
    from pipeline.progress import Progress
    from pipeline.store import Store
    from pipeline.verify import remove_damaged
    from pipeline.verify import verify as find_problems

    opened, progress = Store(store), Progress()
    problems = find_problems(opened, mix, workers, progress)
    for problem in problems:
        print(visible(str(problem)))
    print(f"{mix}: {len(problems)} things do not hold" if problems else f"{mix}: everything holds")
    if remove and problems:
        for place in remove_damaged(opened, problems, progress):
            print(visible(f"removed {place}"))
        print(f"Next: make mix MIX={mix}, with the STORE, DATA and SOURCES that it was built with")
    raise typer.Exit(1 if problems else 0)


@app.command()
def gc(
    store: StoreOption = "data",
    remove: Annotated[bool, typer.Option("--remove", help="Remove it.")] = False,
    recipes: Annotated[Path | None, typer.Option(help="A folder of recipes of your own instead of mixes/.")] = None,
) -> None:
    """What the store holds that no mix, no run and no unfinished build needs any longer."""
    from pipeline.gc import collect, show, survey
    from pipeline.progress import Progress
    from pipeline.recipe import MIXES
    from pipeline.store import Store

    opened, folder = Store(store), recipes or MIXES
    show(collect(opened, folder, Progress()) if remove else survey(opened, folder), console(), removed=remove)


def main() -> None:
    run(app)


if __name__ == "__main__":
    main()
