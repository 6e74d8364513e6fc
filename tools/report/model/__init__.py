"""The model: what a run is, how it went, what its experts do, and how it scores.

In: a run of the store, finished or not, pretrained, annealed, upcycled or adapted. Out: a Part. What the run recorded is read, and
nothing is computed by the model: where `make eval` or `make analyze` was not run, the section says so. Cost: the table of steps is read
a few times, that of routers twice: for 100,000 steps of 16 layers of 64 experts 5.4 seconds of a core and 650 MB, besides PyTorch's start.
"""

from pipeline.store import Store
from tools.report.blocks import Part, Section, Text
from tools.report.model.trained import open_run

ID, TITLE = "model", "The model"


def part(store: Store, run: str) -> Part:
    """Raises ConfigError when there is no such run, PipelineError when what it left is damaged."""
    # These import PyTorch, which a report of a mix alone does without.
    from tools.report.model import about, adaptation, experts, routing, scores, training

    with open_run(store, run) as trained:
        after = [*scores.sections(trained), *routing.sections(trained)]
        if trained.plan is None:
            return Part(ID, TITLE, [*adaptation.sections(trained), *after], adaptation.intro(trained))
        loss = [Section("model-loss", "Loss", [Text(f"{run} has not taken a step yet.", warning=True)])]
        course = [*training.sections(trained), *experts.sections(trained)] if trained.last_step else loss
        return Part(ID, TITLE, [*about.sections(trained), *course, *after], about.intro(trained))
