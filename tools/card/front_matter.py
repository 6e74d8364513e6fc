"""The YAML in front of a card: what the hub shows of a mix or a model, and searches it by.

In: facts. Out: YAML by huggingface_hub's own classes. Fields and their values are those of huggingface/hub-docs, datasetcard.md and
modelcard.md. Not: the hub's own check needs the network, and comes with a push.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from huggingface_hub import DatasetCardData, EvalResult, ModelCardData

from tools.card import licences
from tools.card.mix_facts import Facts

if TYPE_CHECKING:
    from tools.card.model_facts import ModelFacts  # which needs torch, where a mix's card does not

SIZES = ("n<1K 1K<n<10K 10K<n<100K 100K<n<1M 1M<n<10M 10M<n<100M 100M<n<1B 1B<n<10B 10B<n<100B 100B<n<1T n>1T").split()


def of_mix(facts: Facts) -> str:
    names = licences.identifiers(licence for source in facts.sources for licence in source.built["licence"])
    other = licences.OTHER in names
    published = [source.declared.source.hub for source in facts.sources if source.declared and facts.manifest["data"] == "hub"]
    english = all(source.declared and any(name.startswith("english") for name in source.declared.filters) for source in facts.sources)
    splits = [split for split in ("train", "validation") if any(f"/{split}-" in file.path for file in facts.files)]
    placed = [{"split": split, "path": f"shards/*/*/{split}-*.parquet"} for split in splits]
    data = DatasetCardData(
        pretty_name=facts.name,
        license=names if len(names) > 1 else names[0],
        license_name="each-source-its-own" if other else None,
        license_link="LICENSE.md" if other else None,
        language=["en"] if english else None,
        size_categories=[size_category(facts.documents)],
        source_datasets=sorted({hub.repo for hub in published if hub}) or None,
        task_categories=["text-generation"],
        task_ids=["language-modeling"],
        tags=["tokenized", "pretraining", "tokenmill", "croissant"],
        configs=[
            {"config_name": "placed", "default": True, "data_files": placed},
            {"config_name": "documents", "data_files": "shards/*/*/ledger.parquet"},
        ],
    )
    return str(data.to_yaml())


def size_category(documents: int) -> str:
    """The hub's name for so many rows."""
    return SIZES[min(max(len(str(documents)) - 3, 0), len(SIZES) - 1)]


def of_model(facts: "ModelFacts", licence: str) -> str:
    """licence: as the hub names it."""
    parent = facts.ancestors[0] if facts.ancestors else None
    exported = facts.export is not None
    results = [*_tasks(facts), *_perplexity(facts)]
    data = ModelCardData(
        license=licence,
        library_name="transformers" if exported else "tokenmill",
        pipeline_tag="text-generation",
        datasets=sorted({*(name for mix in facts.mixes for name in mix.repositories), *_adapted_on(facts)}) or None,
        base_model=parent.name if parent else None,
        base_model_relation="finetune" if parent else None,
        tags=["tokenmill", *(["olmoe"] if exported else []), *(["moe"] if facts.model.ffn == "moe" else [])],
        model_name=facts.name if results else None,
        eval_results=results or None,
    )
    return str(data.to_yaml())


def _tasks(facts: "ModelFacts") -> Iterator[EvalResult]:
    """Of each task the accuracy, its standard error, and what guessing gives: a score says little without them."""
    for row in facts.tasks:
        values = {"accuracy": row.accuracy, "accuracy_stderr": row.standard_error, "chance": max(row.chance, row.constant or 0.0)}
        for metric, value in values.items():
            if value is not None:
                yield EvalResult(
                    task_type="text-generation", dataset_type=row.task, dataset_name=row.task, metric_type=metric, metric_value=value,
                    dataset_args={"questions": row.questions, "formulation": row.formulation, "shots": row.shots},
                    metric_name=f"{metric} ({row.normalisation})" if metric == "accuracy" else None,
                )  # fmt: skip


def _perplexity(facts: "ModelFacts") -> Iterator[EvalResult]:
    for row in facts.perplexity:
        for metric in ("perplexity", "bits_per_byte"):
            if row[metric] is not None:
                name = f"{row['mix']}/{row['source']}"
                yield EvalResult(
                    task_type="text-generation", dataset_type=name, dataset_name=f"{name}, held out", dataset_split="validation",
                    metric_type=metric, metric_value=row[metric],
                )  # fmt: skip


def _adapted_on(facts: "ModelFacts") -> list[str]:
    """The hub's data sets that an adapted run learned from."""
    origins = [place for source in (facts.adapted or {"data": {}})["data"].values() for place in source["from"]]
    return [place.partition("@")[0] for place in origins if "@" in place and "/" in place and not place.startswith(("pypi:", "npm:"))]
