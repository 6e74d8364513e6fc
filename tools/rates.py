"""What the pipeline costs per byte and document, as measured: the inputs of plan.py and scale.py.

In: a built store, whose journals say what each stage took and whose records say what it wrote; or a rates file, which `make bench`
writes (`.bench/rates.json`) and of which one is committed (tools/rates.json). Out: Rates by kind of text (code or prose, which
differ) and by source. A store's own journals count for a source of which it computed `ENOUGH` bytes: below that, starting is what was
measured.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipeline import catalog
from pipeline.errors import ConfigError
from pipeline.stages import read, tokenize
from pipeline.stats import open_catalog
from pipeline.store import Store
from pipeline.unit import Json

ROOT = Path(__file__).resolve().parents[1]
COMMITTED = ROOT / "tools" / "rates.json"
BENCHED = ROOT / ".bench" / "rates.json"
ENOUGH = 100_000_000  # bytes of text
CODE = frozenset({"starcoder", "algebraic-stack"})
SAMPLED = 100  # records of a stage, to know what its units write


@dataclass(frozen=True)
class StageRate:
    """A stage's units: how many, their seconds of wall and CPU time, the files that they read of the store, the files that they wrote, of
    these the bytes of token ids and of everything else."""

    units: int
    seconds: float
    cpu_seconds: float
    inputs: int = 0
    outputs: int = 0
    token_bytes: int = 0
    table_bytes: int = 0


@dataclass(frozen=True)
class Rates:
    """What a source's stages cost. bytes: of text as read; tokens: of it, before anything is dropped."""

    bytes: int
    documents: int
    tokens: int
    stages: Mapping[str, StageRate] = field(default_factory=dict)

    @property
    def wall_per_cpu(self) -> float:
        """Seconds that a worker needs for a second of CPU time: it waits for the disk, and its neighbours for it."""
        stages = self.stages.values()
        return sum(stage.seconds for stage in stages) / sum(stage.cpu_seconds for stage in stages)

    @classmethod
    def from_json(cls, fields: Mapping[str, Json]) -> "Rates":
        return cls(**{**fields, "stages": {name: StageRate(**stage) for name, stage in fields["stages"].items()}})


@dataclass(frozen=True)
class Bench:
    """A rates file. kinds: code and prose. large: what tools/large.py found. machine: where that was. path: the file."""

    kinds: Mapping[str, Rates]
    large: Mapping[str, Json]
    machine: Mapping[str, Json]
    path: Path

    def of(self, source: str) -> Rates:
        return self.kinds[kind(source)]


def kind(source: str) -> str:
    """What a source's text is most like, of the two kinds that the benchmark has."""
    return "code" if source in CODE else "prose"


def newest() -> Bench:
    """This machine's own benchmark, or the committed one."""
    return load(BENCHED if BENCHED.exists() else COMMITTED)


def load(path: Path = COMMITTED) -> Bench:
    """Raises ConfigError when it is no rates file of this version."""
    try:
        fields = json.loads(path.read_bytes())
        kinds = {name: Rates.from_json(rates) for name, rates in fields["kinds"].items()}
        return Bench(kinds, fields["large"], fields["machine"], path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: no rates can be read from it ({error!r}); run make bench, or restore it") from error


def save(path: Path, kinds: Mapping[str, Rates], large: Mapping[str, Json], machine: Mapping[str, Json]) -> None:
    content = {"kinds": {name: asdict(rates) for name, rates in kinds.items()}, "large": large, "machine": machine}
    path.write_text(json.dumps(_rounded(content), indent=1) + "\n")


def _rounded(value: Json) -> Json:
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def of_store(store: Store, mix: str | None = None, enough: int = ENOUGH) -> dict[str, Rates]:
    """By source, what the store's journals say of those of which it computed enough text; {} where nothing was built."""
    if not catalog.is_current(store):
        return {}
    with open_catalog(store) as connection:
        found = connection.execute(
            "SELECT source, documents, bytes, tokens FROM funnel WHERE stage = 'read' AND reason = 'read'"
        ).fetchall()
        runs = connection.execute("SELECT source, stage, units, seconds, cpu_seconds, bytes FROM runs WHERE cpu_seconds > 0").fetchall()
    built, stages = catalog.sources(store, mix), {stage.name: stage.output for stage in catalog.STAGES}
    rates = {}
    for source, documents, size, tokens in found:
        mine = [row for row in runs if row[0] == source]
        if size >= enough and any(computed >= 0.9 * size for _, stage, *_, computed in mine if stage == tokenize.STAGE.name):
            rates[source] = Rates(
                size, documents, tokens,
                {
                    stage: StageRate(units, seconds, cpu, *_files(store, built[source]["units"][stages[stage]]))
                    for _, stage, units, seconds, cpu, _ in mine
                },
            )  # fmt: skip
    return rates


def download_speed(store: Store) -> float | None:
    """MB/s of one download while as many ran as the store's runs had workers; None where too little was downloaded to tell."""
    size, seconds = 0, 0.0
    for journal in store.files("runs"):
        for text in store.read(journal).splitlines():
            if text.startswith(b'{"stage": "raw"') and text.endswith(b"}"):  # the last line of a killed run may be cut
                line = json.loads(text)
                size, seconds = size + line["bytes"], seconds + line["seconds"]
    return size / 1e6 / seconds if size >= ENOUGH else None


def _files(store: Store, folders: list[str]) -> tuple[int, int, int, int]:
    """What StageRate says of files, from the records of some of these units."""
    chosen = folders[:: max(1, len(folders) // SAMPLED)]
    records = [store.record(folder) for folder in chosen]
    outputs = [artifact for record in records for artifact in record.outputs]
    inputs = sum(len(record.unit.inputs) for record in records if record.unit.stage != read.STAGE.output)
    ids = sum(artifact.bytes for artifact in outputs if artifact.path.endswith(".bin"))
    counted = (inputs, len(outputs), ids, sum(artifact.bytes for artifact in outputs) - ids)
    return tuple(round(count * len(folders) / len(chosen)) for count in counted)  # type: ignore[return-value]
