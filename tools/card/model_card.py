"""README.md of a run: the hub's model card, front matter and all.

In: ModelFacts, and the licence that its maker chose. Out: Markdown whose front matter is huggingface_hub's ModelCardData with its model
index; in its body only what the run's record, tables and files say. Cost: the model once on the meta device, to count its parameters.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from tools.card import front_matter
from tools.card.markdown import bullets, code, fenced, number, percent, table, text
from tools.card.model_facts import Ancestor, MixUsed, ModelFacts
from tools.card.rebuild import place
from tools.card.training import again, settings
from trainer.model import flops_per_token, size
from trainer.tasks.report import standing

POINTS = 12  # of the loss curve
PICTURES = ("loss.png", "adapt.png")


def write(facts: ModelFacts, licence: str) -> bytes:
    """licence: one of the hub's names."""
    parts = [
        f"---\n{front_matter.of_model(facts, licence)}\n---", f"# {text(facts.name)}", *_summary(facts, licence),
        "## Training data", *_data(facts), "## Training", *_training(facts), "## Evaluation", *_evaluation(facts),
        "## Using it", *_using(facts), "## Training it again", *_again(facts), "## Hashes", *_hashes(facts),
        "## Limits", bullets(_limits(facts)),
    ]  # fmt: skip
    return ("\n\n".join(parts) + "\n").encode()


def _summary(facts: ModelFacts, licence: str) -> Iterator[str]:
    counted, model = size(facts.model), facts.model
    kind = "mixture-of-experts" if model.ffn == "moe" else "dense"
    description = facts.plan.config.description if facts.plan else facts.adapted["recipe"]["description"] if facts.adapted else ""
    yield f"{text(description)}." if description else f"A {kind} language model."
    rows = [
        ["architecture", f"{kind} transformer, {_names(facts)}"],
        ["parameters", f"{number(counted.total)}, of which a token uses {number(counted.active)}"],
        ["layers, width, heads", f"{model.layers}, {number(model.d_model)}, {model.heads}"],
        ["feed-forward", _feed_forward(facts)],
        ["vocabulary", f"{number(model.vocab_size)} ids, {number(model.padded_vocab)} rows"],
        ["context", f"{number(facts.context)} tokens"],
        ["trained", f"{number(facts.step)} of {number(facts.steps)} steps, {number(facts.tokens)} tokens{_flops(facts)}"],
        ["lineage", " ← ".join([code(facts.name), *map(_parent, facts.ancestors)])],
        ["licence", code(licence) if licence != "unknown" else "not chosen: whoever hands this on has to (`LICENCE=…`)"],
        ["made by", f"tokenmill {code(facts.code)}{_versions(facts)}"],
    ]
    yield table(["", ""], rows, left=2)


def _data(facts: ModelFacts) -> Iterator[str]:
    for source, counts in (facts.adapted or {"data": {}})["data"].items():
        declared = (facts.adapted or {})["recipe"]["sources"][source]
        origin = ", ".join(code(_public(origin)) for origin in counts["from"])
        yield (
            f"{text(declared['title'])} ({code(source)}; {text(declared['licence'])}), from {origin}: {number(counts['kept'])} of "
            f"{number(counts['rows'])} rows, {number(counts['tokens'])} tokens."
        )
    for number_of, mix in enumerate(facts.mixes):
        began = number_of > 0 or facts.adapted
        yield from _mix(mix, "What the model it began from read: the" if began else "The")


def _mix(mix: MixUsed, words: str) -> Iterator[str]:
    if mix.lock is None:
        yield f"{words} token files {code(place(mix.name))}."
        return
    released = mix.books and mix.books.get("release")
    where = f"[its card](https://huggingface.co/datasets/{mix.repositories[0]})" if released else f"its card: `make card MIX={mix.name}`"
    yield f"{words} mix {code(mix.name)}, at {number(mix.lock.sequence_length)} tokens, fingerprint {code(mix.lock.fingerprint)}; {where}."
    books = mix.books["sources"] if mix.books else {}
    rows = [
        [
            code(source.name), text(books.get(source.name, {}).get("title", "–")),
            "; ".join(text(licence) for licence in books.get(source.name, {}).get("licence", ())) or "–", percent(source.obtained_share),
            f"{source.repeats:.2f}", number(source.tokens),
        ]
        for source in mix.lock.sources
    ]  # fmt: skip
    yield table(["source", "what it is", "licence", "share of the mix", "repeats", "tokens in its shards"], rows, left=3)


def _training(facts: ModelFacts) -> Iterator[str]:
    if facts.plan:
        config = facts.plan.config.model_dump(mode="json", include={"loss", "optim", "train"})
    else:
        config = (facts.adapted or {})["recipe"]["training"]
    rows = [[code(name), code("none" if value is None else value)] for name, value in settings(config).items()]
    yield table(["setting", "value"], rows, left=2)
    if len(facts.metrics):
        yield "### Loss"
        yield from _curve(facts)
    if facts.held_out:
        yield "Held-out text, nats per token:"
        yield from _held_out(facts)
    for picture in PICTURES:
        if (facts.run.folder / picture).exists():
            yield f"![loss against tokens]({picture})"


def _curve(facts: ModelFacts) -> Iterator[str]:
    """The training loss as means over equal parts of the run."""
    steps = facts.metrics
    losses, rates, tokens = (_column(steps, name) for name in (_loss_column(steps), "learning_rate", "tokens"))
    parts = [part for part in np.array_split(np.arange(len(steps)), min(POINTS, len(steps))) if len(part)]
    number_of = steps["step"].to_pylist()
    rows = [
        [f"{number_of[part[0]]:,} to {number_of[part[-1]]:,}", number(int(tokens[part[-1]])), f"{np.nanmean(losses[part]):.4f}",
         f"{rates[part[-1]]:.3g}"]
        for part in parts
    ]  # fmt: skip
    yield table(["steps", "tokens after them", "training loss, their mean", "learning rate after them"], rows)


def _held_out(facts: ModelFacts) -> Iterator[str]:
    first, last = facts.held_out[0].step, facts.held_out[-1].step
    before = {row.source: row for row in facts.held_out if row.step == first}
    rows = [
        [
            code(row.source), f"{before[row.source].loss:.3f}" if row.source in before else "–", f"{row.loss:.3f}",
            "–" if row.bits_per_byte is None else f"{row.bits_per_byte:.3f}", number(row.tokens),
        ]
        for row in facts.held_out
        if row.step == last
    ]  # fmt: skip
    yield table(["source", f"after step {first:,}", f"after step {last:,}", "bits per byte", "tokens"], rows)


def _evaluation(facts: ModelFacts) -> Iterator[str]:
    if facts.tasks:
        rows = [
            [
                code(row.task), text(row.formulation), text(row.shots), text(row.normalisation),
                f"{row.questions:,} of {row.all_questions:,}", percent(row.accuracy), percent(row.standard_error),
                percent(max(row.chance, row.constant or 0.0)), standing(row),
            ]
            for row in facts.tasks
        ]  # fmt: skip
        header = ["task", "formulation", "shots", "normalised", "questions", "accuracy", "standard error", "chance", ""]
        yield table(header, rows, left=4)
        yield f"Items from {', '.join(sorted({code(row.data) for row in facts.tasks}))}."
    if facts.perplexity:
        yield table(
            ["held-out text of", "source", "tokens", "loss", "perplexity", "bits per byte"],
            [
                [
                    code(row["mix"]), code(row["source"]), number(row["tokens"]), f"{row['loss']:.3f}", f"{row['perplexity']:,.1f}",
                    "–" if row["bits_per_byte"] is None else f"{row['bits_per_byte']:.3f}",
                ]
                for row in facts.perplexity
            ],
            left=2,
        )  # fmt: skip
    if not facts.tasks and not facts.perplexity:
        yield f"None{' but what is above' if facts.held_out else ''}. `make eval RUN={facts.name}` scores tasks and held-out text."


def _using(facts: ModelFacts) -> Iterator[str]:
    if facts.export is None:
        yield "As it is, with tokenmill; `make export` writes a folder for transformers, if the architecture is the published one."
        yield fenced("sh", f'make generate RUN={facts.name} PROMPT="The theorem"')
        return
    yield fenced(
        "python",
        "from transformers import AutoTokenizer, OlmoeForCausalLM\n\n"
        'model = OlmoeForCausalLM.from_pretrained(".")  # the folder that model.safetensors lies in\n'
        'tokenizer = AutoTokenizer.from_pretrained(".")',
    )


def _again(facts: ModelFacts) -> Iterator[str]:
    command, doubts = again(facts)
    if command:
        yield fenced("sh", command)
    same = "on the same files" if facts.adapted else f"on a mix of the same fingerprint, on as many processes ({facts.processes})"
    yield (
        f"With tokenmill {code(facts.code)}, {same}. On another machine, or with other libraries, losses agree within rounding, not to "
        "the bit."
    )
    if doubts:
        yield bullets(f"{text(doubt[:1].upper() + doubt[1:])}." for doubt in doubts)


def _hashes(facts: ModelFacts) -> Iterator[str]:
    yield table(["file of the run", "sha256"], [[code(name), code(sha256)] for name, sha256 in facts.files.items()], left=2)


def _limits(facts: ModelFacts) -> Iterator[str]:
    counted = size(facts.model)
    if facts.step < facts.steps:
        yield f"It was stopped after {facts.step:,} of {facts.steps:,} steps, before its learning rate had come to its end."
    if facts.plan and not facts.ancestors:
        yield f"{facts.tokens / counted.active:.3g} tokens of training per active parameter. The published OLMoE-1B-7B had about 4,000."
    guesses = [row for row in facts.tasks if standing(row) != "above chance"]
    if guesses:
        names = ", ".join(code(row.task) for row in guesses)
        yield f"Of {len(facts.tasks)} tasks {len(guesses)} are not above what guessing gives: {names}."
    if not facts.tasks:
        yield "It was scored on no task."
    if few := [row for row in facts.tasks if row.questions < row.all_questions]:
        yield f"Of {len(facts.tasks)} tasks {len(few)} were scored on their first questions only, as said above."
    if spikes := _spikes(facts):
        yield f"{spikes} steps had a loss or a gradient beyond bounds."
    if facts.adapted is None:
        yield "It continues text. It was not taught to answer, nor to refuse."
    yield f"Inputs longer than {facts.context:,} tokens were never seen in training."
    yield "Nothing was measured of bias, of truth, of what it may repeat from its training data, or of misuse."
    gone = [mix.name for mix in facts.mixes if mix.lock and mix.books is None]
    if gone:
        yield f"The store has the mix {', '.join(map(code, gone))} no longer as it was trained on: licences are not known here."


def _public(origin: str) -> str:
    """Of a folder its name; packages and repositories as they are."""
    return origin if origin.startswith(("pypi:", "npm:")) or "@" in origin else place(origin)


def _names(facts: ModelFacts) -> str:
    return "OlmoeForCausalLM" if facts.export else code(facts.plan.config.name) if facts.plan else "OlmoeForCausalLM"


def _feed_forward(facts: ModelFacts) -> str:
    model = facts.model
    if model.ffn == "dense":
        return f"dense, {number(model.ffn_width)} wide"
    shared = ", and a shared one" if model.shared_expert else ""
    chosen = "each token chooses" if model.routing == "token_choice" else "experts choose tokens; a token has on average"
    return f"{model.experts} experts, {number(model.expert_width)} wide; {chosen} {model.top_k}{shared}"


def _flops(facts: ModelFacts) -> str:
    return f", {flops_per_token(facts.model, facts.context) * facts.tokens:.3g} floating-point operations" if facts.plan else ""


def _parent(ancestor: Ancestor) -> str:
    """How it became what stands before it, and its name."""
    return f"{ancestor.became} of {code(ancestor.name)}, {text(ancestor.checkpoint)}"


def _versions(facts: ModelFacts) -> str:
    found = (facts.adapted or {}).get("versions", {})
    return ", with " + ", ".join(code(f"{name} {value}") for name, value in found.items()) if found else ""


def _spikes(facts: ModelFacts) -> int:
    return len(facts.metrics) - facts.metrics["spike"].null_count if "spike" in facts.metrics.column_names else 0


def _loss_column(steps: pa.Table) -> str:
    """Of sft per token, for TRL's own loss is a sum over a micro-batch."""
    has_own = "loss_per_token" in steps.column_names and steps["loss_per_token"].null_count < len(steps)
    return "loss_per_token" if has_own else "loss"


def _column(steps: pa.Table, name: str) -> np.ndarray:
    return np.asarray(steps[name].to_numpy(), dtype=np.float64)
