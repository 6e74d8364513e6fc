"""`make report MIX=… [RUN=…]`, or two of either side by side, `A=… B=…`: one file of HTML under `<store>/reports`.

Cost: queries on the catalog, some over every document's row: seconds per million documents; the texts of a few hundred documents are read.
"""

from datetime import UTC, datetime
from typing import Annotated

import typer

from pipeline.errors import ConfigError

Place = Annotated[str, typer.Option("--store", help="Where the mix and the run are: a folder, or a URL such as s3://bucket/prefix.")]


def report(
    mix: Annotated[str, typer.Option(help="A mix that was built in the store. Default: the run's, or olmoe-mix.")] = "",
    run: Annotated[str, typer.Option(help="A run whose model the page shows too.")] = "",
    a: Annotated[str, typer.Option(help="With --b: a mix or a run to show beside another.")] = "",
    b: Annotated[str, typer.Option(help="The other one.")] = "",
    store: Place = "data",
) -> None:
    """Write a page that shows a mix, documents from both sides of every rule, and a run's model; or two of them side by side."""
    from pipeline.progress import Progress
    from pipeline.stats import open_catalog
    from pipeline.store import Store
    from tools.report.compare import side_by_side
    from tools.report.contents import of_mix, of_name, of_run
    from tools.report.page import LARGEST, render
    from tools.report.vega import scripts

    if bool(a) != bool(b) or (a and (mix or run)):
        raise ConfigError("a report is of a mix and a run, MIX= and RUN=, or of two mixes or two runs, A= and B=")
    opened, progress = Store(store), Progress()
    drawing = scripts(progress)
    with open_catalog(opened) as connection:
        if a:
            title, name = f"{a} beside {b}", f"{a}-beside-{b}"
            parts = side_by_side(a, b, of_name(opened, connection, a), of_name(opened, connection, b))
        elif run:
            title = name = run
            parts = of_run(opened, connection, run, mix)
        else:
            title = name = mix or "olmoe-mix"
            parts = of_mix(opened, connection, title)
    page = render(title, parts, drawing, f"Made by tokenmill on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC from {opened.place}.")
    if len(page) > LARGEST:
        progress.say(f"the page has {len(page) / 1e6:.1f} MB, more than the {LARGEST / 1e6:.0f} MB that open at once")
    path = f"reports/{name}.html"
    opened.write(path, page)
    print(f"{opened.url(path)} ({len(page) / 1e6:.1f} MB): open it in a browser")
