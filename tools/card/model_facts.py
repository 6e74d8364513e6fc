"""What a run is, gathered for its card: from its record, its checkpoint, its metrics, and what was found out about it.

In: a run, trained or adapted. Out: ModelFacts. Cost: the checkpoint and the export are read once, for their hashes; of metrics `steps` and
`evals` whole, a fifth of a kilobyte a step. Not: nothing is evaluated and no weight is opened.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import catalog
from pipeline.config import shown
from pipeline.errors import ConfigError, PipelineError
from pipeline.files import sha256_of
from pipeline.lock import Lock
from pipeline.training_tables import ALL, table_folder
from trainer.adapt.recipe import Recipe
from trainer.checkpoint import find, read_record
from trainer.config import ModelConfig
from trainer.hf import config_from_hub
from trainer.metrics import EvalRow, TaskRow, read
from trainer.models import ADAPTED
from trainer.run import Plan, Run
from trainer.tasks.report import PART

ADAPTATION = "adapt.json"


@dataclass(frozen=True)
class Ancestor:
    """A model that came before this one: its run's name, and of which checkpoint; how the next one began from it."""

    name: str
    checkpoint: str
    became: str  # anneal, upcycled, sft, dpo, kto


@dataclass(frozen=True)
class MixUsed:
    """What a run trained on. lock: at the run's own sequence length; None for token files without one. books: the build manifest of that
    mix, None where the store has it no more, or another of its name."""

    name: str
    lock: Lock | None
    books: Mapping[str, Any] | None

    @property
    def repositories(self) -> list[str]:
        """On the hub: the release it was read from, or the published sources it was built from."""
        if self.books is None:
            return []
        if release := self.books.get("release"):
            return [release["repository"]]
        origins = [origin for source in self.books["sources"].values() for origin in source["origin"]]
        return sorted({origin.removeprefix("hf:").partition("@")[0] for origin in origins if origin.startswith("hf:")})


@dataclass(frozen=True)
class ModelFacts:
    """A run. plan: of a trained one; adapted: adapt.json of an adapted one. context: its longest input, in tokens. step, steps: taken and
    planned. tokens: trained on. files: name → sha256 of the weights as the run keeps them, and of its export, relative to its folder."""

    run: Run
    plan: Plan | None
    adapted: Mapping[str, Any] | None
    model: ModelConfig
    context: int
    step: int
    steps: int
    tokens: int
    processes: int | None
    ancestors: tuple[Ancestor, ...]
    mixes: tuple[MixUsed, ...]
    files: Mapping[str, str]
    export: Path | None
    metrics: pa.Table
    held_out: Sequence[EvalRow]
    tasks: Sequence[TaskRow]
    perplexity: Sequence[Mapping[str, Any]]

    @property
    def name(self) -> str:
        return self.run.name

    @property
    def code(self) -> str:
        return self.plan.code if self.plan else str((self.adapted or {})["code"])


def gather(run: Run) -> ModelFacts:
    """Raises ConfigError when there is no such run, or none of its checkpoints; PipelineError when what it left is damaged."""
    if not run.is_planned and (run.folder / ADAPTATION).exists():
        return _adapted(run)
    plan = run.plan
    checkpoint = find(run)
    record = read_record(checkpoint)
    step = record.progress.step
    hashes = {f"checkpoints/{checkpoint.name}/{name}": str(sha256) for name, (_, sha256) in record.files.items()}
    export = run.folder / "hf" / checkpoint.name
    evals = [EvalRow(**row) for row in read(run.folder, "evals").drop_columns("run").to_pylist()]
    lineage = tuple(_ancestors(run))
    return ModelFacts(
        run=run, plan=plan, adapted=None, model=plan.config.model, context=plan.config.train.sequence_length,
        step=step, steps=plan.config.steps, tokens=record.progress.tokens, processes=record.world,
        ancestors=lineage, mixes=(mix_of(run), *_mixes_of(run, lineage)),
        files={**hashes, **_hashes(run, export)}, export=export if export.is_dir() else None,
        metrics=read(run.folder, "steps"), held_out=[row for row in evals if row.step <= step],
        tasks=_tasks(run.folder, step), perplexity=_perplexity(run.folder, step),
    )  # fmt: skip


def mix_of(run: Run) -> MixUsed:
    """What a trained run read, with the books of its mix, where the store has the same shards still."""
    if not run.lock.exists():
        return MixUsed(run.plan.mix, None, None)
    lock = Lock.read(run.lock)
    try:
        books = catalog.read_manifest(run.mixes, lock.mix)
        now = Lock.read(run.mixes.local(f"mixes/{lock.mix}.lock.json"))
    except (ConfigError, FileNotFoundError):
        return MixUsed(lock.mix, lock, None)
    same = [source.shards for source in now.sources] == [source.shards for source in lock.sources]
    return MixUsed(lock.mix, lock, books if same else None)


def _adapted(run: Run) -> ModelFacts:
    path = run.folder / ADAPTATION
    try:
        adapted = json.loads(path.read_bytes())
        Recipe.model_validate(adapted["recipe"])
        steps = int(adapted["steps"])
    except (ValueError, KeyError, TypeError) as error:
        raise PipelineError(f"{shown(path)}: is not an adaptation's record ({error}); remove {shown(run.folder)} and begin again") from None
    folder = run.folder / ADAPTED
    if not folder.is_dir():
        raise ConfigError(f"run {run.name} has no {ADAPTED} yet; go on with make {adapted['method']} RUN=… RESUME=1")
    config = json.loads((folder / "config.json").read_bytes())
    metrics = _table(run.folder, "adapt", "adaptation", None)
    step = int(pc.max(metrics["step"]).as_py() or 0)
    tokens = int(pc.max(metrics["tokens"]).as_py() or 0)
    lineage = tuple(_ancestors(run))
    return ModelFacts(
        run=run, plan=None, adapted=adapted, model=config_from_hub(config, shown(folder / "config.json")),
        context=int(config["max_position_embeddings"]), step=step, steps=steps, tokens=tokens, processes=None,
        ancestors=lineage, mixes=tuple(_mixes_of(run, lineage)), files=_hashes(run, folder), export=folder,
        metrics=metrics, held_out=(), tasks=_tasks(run.folder, 0), perplexity=_perplexity(run.folder, 0),
    )  # fmt: skip


def _ancestors(run: Run) -> Iterator[Ancestor]:
    """The nearest first. Of one whose run is not here any longer the name is known, and no more."""
    seen = {run.name}
    while True:
        if run.is_planned:
            plan = run.plan
            if plan.parent is None:
                return
            found = Ancestor(plan.parent.run, f"step-{plan.parent.step}", "upcycled" if plan.parent.upcycling else plan.kind)
        elif (run.folder / ADAPTATION).exists():
            adapted = json.loads((run.folder / ADAPTATION).read_bytes())
            found = Ancestor(adapted["parent"]["name"], adapted["parent"]["folder"], adapted["method"])
        else:
            return
        yield found
        if found.name in seen:
            return
        seen.add(found.name)
        run = Run(run.store, found.name)


def _mixes_of(run: Run, ancestors: Sequence[Ancestor]) -> Iterator[MixUsed]:
    for ancestor in ancestors:
        before = Run(run.store, ancestor.name)
        if before.is_planned:
            yield mix_of(before)


def _hashes(run: Run, folder: Path) -> dict[str, str]:
    """Of an export, but for the card itself."""
    if not folder.is_dir():
        return {}
    found = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix not in (".md", ".png"))
    return {path.relative_to(run.folder).as_posix(): sha256_of(path) for path in found}


def _tasks(folder: Path, step: int) -> list[TaskRow]:
    """Scores at the step: those of make eval, and of tasks that it was not asked for those taken while training."""
    rows = [*_table(folder, "metrics", "tasks", step).to_pylist(), *_table(folder, PART, "tasks", step).to_pylist()]
    return [TaskRow(**{name: value for name, value in row.items() if name != "run"}) for row in {row["task"]: row for row in rows}.values()]


def _perplexity(folder: Path, step: int) -> list[dict[str, Any]]:
    return _table(folder, PART, "perplexity", step).to_pylist()


def _table(folder: Path, part: str, name: str, step: int | None) -> pa.Table:
    """Rows of one step, or all. Raises PipelineError for a file that cannot be read."""
    schema = ALL[name]
    tables = [schema.empty_table()]
    for path in sorted(table_folder(folder, name, part).glob("*.parquet")):
        try:
            tables.append(pq.read_table(path, schema=schema, partitioning=None))
        except (OSError, pa.ArrowException) as error:
            raise PipelineError(f"{shown(path)}: cannot be read ({error}); remove it: only its rows are lost") from error
    rows = pa.concat_tables(tables)
    return rows if step is None else rows.filter(pc.equal(rows["step"], step))
