"""The program `tokenmill`: the commands of the pipeline, of the trainer and of tools in one. `tokenmill --help` lists them all.

make calls it. A command's imports are its own, so that `tokenmill --help` and completion take no time.
"""

from pipeline import cli as pipeline
from pipeline.terminal import program, run
from tools.card.command import card, model_card
from tools.inspect.command import inspect
from tools.push.command import push
from tools.report.command import report
from trainer import cli as trainer

app = program("Raw corpora in, training tokens out, and a mixture-of-experts model trained on them.", completion=True)
app.registered_commands += [*pipeline.app.registered_commands, *trainer.app.registered_commands]
app.command()(card)
app.command()(inspect)
app.command()(model_card)
app.command()(push)
app.command()(report)


def main() -> None:
    run(app)


if __name__ == "__main__":
    main()
