"""The program `tokenmill`: the commands of the pipeline, of the trainer and of tools in one. `tokenmill --help` lists them all.

make calls it. A command's imports are its own, so that `tokenmill --help` and completion take no time.
"""

import typer

from pipeline import cli as pipeline
from pipeline.terminal import run
from tools.report.command import report
from trainer import cli as trainer

app = typer.Typer(
    help="Raw corpora in, training tokens out, and a mixture-of-experts model trained on them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.registered_commands += [*pipeline.app.registered_commands, *trainer.app.registered_commands]
app.command()(report)


def main() -> None:
    run(app)


if __name__ == "__main__":
    main()
