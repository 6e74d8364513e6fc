"""The model card of a run: its figures by other means, its command by the trainer's own reader, its files by their bytes."""

import hashlib
import json
import re
import shlex
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import ModelCard

from pipeline.errors import ConfigError, PipelineError
from pipeline.lock import Lock
from pipeline.store import Store
from pipeline.training_tables import ALL, table_folder
from pipeline.unit import canonical
from tests.tools.test_card import Read
from tools.card import model_card
from tools.card.command import card_of_run
from tools.card.model_facts import gather
from tools.card.training import again
from trainer.adapt.recipe import load_recipe
from trainer.config import Config, annealing, apply, load_config, parse_overrides
from trainer.run import Parent, Plan, Run, Upcycling
from trainer.upcycle import with_experts

SMALL = {
    "model.d_model": "16", "model.layers": "1", "model.heads": "1", "model.vocab_size": "512", "model.padded_vocab": "512",
    "model.experts": "4", "model.top_k": "2", "model.expert_width": "8", "train.sequence_length": "32", "train.batch_tokens": "128",
    "train.tokens": "1280", "loss.micro_batch": "2", "optim.schedule.warmup_tokens": "128", "optim.eps": "1e-07",
    "train.held_out": "small,other", "train.checkpoint_kept_every": "none", "train.skip_spikes": "true",
}  # fmt: skip
HASHED = {"__0_0.distcp": b"weights", "tensors.json": b"{}"}


@pytest.fixture
def store(built: Store, tmp_path: Path) -> Path:
    """A store with the small mix, and no runs yet."""
    for name in ("mixes", "tokenizers", "shards"):
        (tmp_path / name).symlink_to(built.root / name)
    return tmp_path


def trained(store: Path, name: str, config: Config, kind: str = "pretrain", parent: Parent | None = None, steps: int = 4) -> Run:
    """A run as training leaves it, after `steps` steps, with numbers of our own."""
    run = Run(store, name)
    lock = Lock.read(store / "mixes" / "small.lock.json").with_sequence_length(config.train.sequence_length)
    identity: dict[str, str | int] = {"mix": "small", "fingerprint": lock.fingerprint, "eos": 0, "vocab_size": 500}
    run.create(Plan(name, kind, "small", config, identity, parent, "0.1.0-abc"))
    run.lock.write_bytes(lock.to_json())
    checkpoint = run.checkpoints / f"step-{steps}"
    checkpoint.mkdir(parents=True)
    for file, content in HASHED.items():
        (checkpoint / file).write_bytes(content)
    record: dict[str, Any] = {
        "progress": {"step": steps, "tokens": steps * 128, "learning_rate": 0.001, "spikes": {}}, "identity": identity,
        "config": config.model_dump(mode="json"), "code": "0.1.0-abc", "world": 2,
        "files": {file: [len(content), hashlib.sha256(content).hexdigest()] for file, content in HASHED.items()},
    }  # fmt: skip
    (checkpoint / "checkpoint.json").write_text(json.dumps({**record, "sha256": hashlib.sha256(canonical(record)).hexdigest()}))
    (run.checkpoints / "latest").write_text(f"step-{steps}\n")
    write(
        run, "metrics", "steps", [{"step": n, "tokens": n * 128, "loss": 7.0 - n, "learning_rate": n / 1000} for n in range(1, steps + 1)]
    )
    write(run, "metrics", "evals", [held_out(0, 6.5), held_out(steps, 3.25)])
    return run


def held_out(step: int, loss: float) -> dict[str, Any]:
    return {"step": step, "source": "web", "instances": 1, "tokens": 31, "bytes": 90, "loss": loss, "bits_per_byte": loss / 2}


def write(run: Run, part: str, table: str, rows: list[dict[str, Any]]) -> None:
    path = table_folder(run.folder, table, part) / f"{rows[0].get('step', 0):09d}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([{"run": run.name, **row} for row in rows], schema=ALL[table]), path)


def task(name: str, accuracy: float, error: float | None, questions: int = 100) -> dict[str, Any]:
    return {
        "step": 4, "task": name, "formulation": "completion", "shots": "0", "normalisation": "none", "questions": questions,
        "all_questions": 100, "cut": 0, "accuracy": accuracy, "standard_error": error, "chance": 0.25, "constant": None, "acc": accuracy,
        "acc_per_char": 0.0, "acc_per_token": 0.0, "acc_pmi": None, "bits_per_byte": 1.5, "cross_entropy": 2.0, "data": "here==1",
    }  # fmt: skip


def small() -> Config:
    return apply(load_config("olmoe-small"), SMALL)


def card(run: Run, licence: str = "") -> tuple[dict[str, Any], Read, str]:
    """Front matter, body, and the whole."""
    content = card_of_run(gather(run), licence)[run.folder / "README.md"].decode()
    return ModelCard(content).data.to_dict(), Read(content.split("\n---\n", 1)[1]), content


def command(content: str) -> list[str]:
    """The lines of the block that trains the run again."""
    return content.split("## Training it again")[1].split("```sh\n")[1].split("\n```")[0].splitlines()


def variables(line: str) -> dict[str, str]:
    return dict(word.split("=", 1) for word in shlex.split(line)[2:])


def test_its_figures_are_those_of_the_tables(store: Path) -> None:
    run = trained(store, "one", small())
    write(run, "evaluation", "tasks", [task("good", 0.9, 0.03), task("guessed", 0.26, 0.04, questions=10), task("single", 1.0, None, 1)])
    write(run, "metrics", "tasks", [task("good", 0.1, 0.03), task("watched", 0.5, 0.05)])
    perplexity = {"step": 4, "mix": "small", "source": "web", "instances": 1, "tokens": 31, "bytes": 90, "loss": 3.0, "bits_per_byte": 1.5}
    write(run, "evaluation", "perplexity", [{**perplexity, "perplexity": 20.0855}])
    data, page, _ = card(run, "apache-2.0")
    results = {entry["dataset"]["type"]: {m["type"]: m["value"] for m in entry["metrics"]} for entry in data["model-index"][0]["results"]}
    assert results["good"] == {"accuracy": 0.9, "accuracy_stderr": 0.03, "chance": 0.25}  # make eval's, not the one while training
    assert results["single"] == {"accuracy": 1.0, "chance": 0.25} and results["watched"]["accuracy"] == 0.5
    assert results["small/web"] == {"perplexity": 20.0855, "bits_per_byte": 1.5}
    assert data["license"] == "apache-2.0" and "base_model" not in data and "datasets" not in data
    facts = dict(row for row in page.tables[0][1:])
    d, experts, width, vocabulary = 16, 4, 8, 512
    total = 2 * vocabulary * d + 4 * d * d + 2 * d + experts * d + experts * 3 * d * width + 3 * d
    assert facts["parameters"] == f"{total:,}, of which a token uses {total - 2 * 3 * d * width:,}"
    assert facts["trained"].startswith("4 of 10 steps, 512 tokens")
    assert [row[2] for row in page.table("steps", "tokens after them")] == [f"{7.0 - n:.4f}" for n in (1, 2, 3, 4)]
    assert page.table("source", "after step 0") == [["web", "6.500", "3.250", "1.625", "31"]]
    assert "Of 4 tasks 2 are not above what guessing gives: guessed, single." in page.text
    assert [row[0] for row in page.table("source", "what it is")] == ["web", "code", "wiki"] and "test web" in page.text


def test_the_training_loss_is_a_mean_over_equal_parts_of_the_run(store: Path) -> None:
    run = trained(store, "long", small())
    losses = np.random.default_rng(0).uniform(2, 5, 100)
    write(run, "metrics", "steps", [{"step": n + 1, "tokens": n, "loss": loss, "learning_rate": 0.1} for n, loss in enumerate(losses)])
    rows = card(run)[1].table("steps", "tokens after them")
    assert len(rows) == model_card.POINTS and rows[0][0] == "1 to 9" and rows[-1][0].endswith("to 100")
    assert float(rows[0][2]) == pytest.approx(losses[:9].mean(), abs=1e-4)
    assert np.mean([float(row[2]) for row in rows]) == pytest.approx(losses.mean(), abs=0.02)


def test_the_command_gives_the_runs_own_configuration(store: Path) -> None:
    (line,) = command(card(trained(store, "one", small()))[2])
    given = variables(line)
    assert line.startswith("make pretrain ") and given["NPROC"] == "2" and given["STEPS"] == "4" and given["MIX"] == "small"
    assert apply(load_config(given["MODEL"]), parse_overrides(given["SET"].split())) == small()


def test_an_annealed_runs_command_gives_its_configuration_and_names_its_parent(store: Path) -> None:
    config = small()
    parent = trained(store, "one", config)
    longer = apply(config, {"anneal.tokens": "256"})
    annealed = apply(annealing(longer, 0.002), {"optim.clip": "0.5"})
    run = trained(store, "one-small", annealed, "anneal", Parent("one", 4, 512, 0.002), steps=2)
    data, page, content = card(run)
    (line,) = command(content)
    given = variables(line)
    overrides = parse_overrides(given["SET"].split())
    base = apply(parent.plan.config, {name: value for name, value in overrides.items() if name.startswith("anneal.")})
    assert apply(annealing(base, 0.002), overrides) == annealed and given["RUN"] == "one" and "STEPS" not in given
    assert data["base_model"] == "one" and "anneal of one, step-4" in page.text


def test_an_upcycled_runs_commands_give_its_configuration(store: Path) -> None:
    dense = {name: value for name, value in SMALL.items() if name not in ("model.experts", "model.top_k", "model.expert_width")}
    before = trained(store, "dense", apply(load_config("dense-small"), dense))
    config = apply(with_experts(before.plan.config), {"optim.lr": "0.5"})
    run = trained(store, "dense-upcycled", config, "pretrain", Parent("dense", 4, 512, 0.1, Upcycling(0.5, 3)))
    first, second = command(card(run)[2])
    given = variables(first)
    assert (given["NOISE"], given["SEED"], given["RUN"]) == ("0.5", "3", "dense") and "RESUME=1" in second
    assert apply(with_experts(before.plan.config), parse_overrides(given["SET"].split())) == config


def test_every_hash_is_of_the_file_and_an_export_has_the_card_too(store: Path) -> None:
    run = trained(store, "one", small())
    export = run.folder / "hf" / "step-4"
    export.mkdir(parents=True)
    (export / "model.safetensors").write_bytes(b"exported")
    (run.folder / "loss.png").write_bytes(b"png")
    files = card_of_run(gather(run))
    assert files[export / "README.md"] == files[run.folder / "README.md"] and files[export / "loss.png"] == b"png"
    assert ModelCard(files[export / "README.md"].decode()).data.library_name == "transformers"
    hashes = re.findall(r"\| `((?:checkpoints|hf)/[^`]+)` \| `(\w{64})` \|", files[run.folder / "README.md"].decode())
    assert len(hashes) == 3 and all(hashlib.sha256((run.folder / name).read_bytes()).hexdigest() == value for name, value in hashes)
    for path, content in files.items():
        path.write_bytes(content)
    assert card_of_run(gather(run)) == files  # the card is no file of the model


def test_an_adapted_run_tells_its_lineage_its_data_and_their_licences(store: Path) -> None:
    trained(store, "one", small())
    recipe = load_recipe("small-sft", "sft", {"epochs": "2", "seed": "7"})
    rows = {"from": ["pypi:chitchat-dataset==0.9.0"], "files": {}, "rows": 20, "kept": 10, "tokens": 900, "learned": 300, "dropped": {}}
    for name, parent in (("one-sft", {"name": "one", "folder": "step-4"}), ("one-sft-sft", {"name": "one-sft", "folder": "final"})):
        run = Run(store, name)
        final = run.folder / "hf" / "final"
        final.mkdir(parents=True)
        values = {
            "model_type": "olmoe", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 512, "num_experts": 4,
            "num_experts_per_tok": 2, "intermediate_size": 8, "rms_norm_eps": 1e-5, "max_position_embeddings": 32,
        }  # fmt: skip
        (final / "config.json").write_text(json.dumps(values))
        record = {
            "name": name, "method": "sft", "recipe": recipe.model_dump(mode="json"), "data": {"chitchat": rows}, "parent": parent,
            "steps": 3, "code": "0.1.0-abc", "versions": {"trl": "1"},
        }  # fmt: skip
        (run.folder / "adapt.json").write_text(json.dumps(record))
        row = {"method": "sft", "tokens": 900, "loss": 9.0, "loss_per_token": 2.5, "learning_rate": 0.1}
        write(run, "adapt", "adaptation", [{"step": 1, **row}, {"step": 2, **row}, {"step": 3, **row}])
    data, page, content = card(run)
    assert "sft of one-sft, final ← sft of one, step-4" in page.text and data["base_model"] == "one-sft"
    assert "BYU Chit-Chat" in page.text and "; MIT), from pypi:chitchat-dataset==0.9.0: 10 of 20 rows" in page.text
    assert [row[2] for row in page.table("steps", "tokens after them")] == ["2.5000"] * 3  # per token, not TRL's sum
    given = variables(command(content)[0])
    assert load_recipe(given["MIX"], "sft", parse_overrides(given["SET"].split())) == recipe and "DATA" not in given
    assert "test web" in page.text  # what the model that it came from read


def test_what_the_hub_would_be_told_wrongly_is_refused_and_what_is_not_known_is_said(store: Path) -> None:
    run = trained(store, "one", small())
    with pytest.raises(ConfigError, match="LICENCE=apache: the hub's cards know no such licence"):
        card(run, "apache")
    data, page, _ = card(run)
    assert data["license"] == "unknown" and "not chosen: whoever hands this on has to" in page.text
    with pytest.raises(ConfigError, match="no run `two`"):
        gather(Run(store, "two"))
    (run.checkpoints / "step-4" / "tensors.json").write_bytes(b"[]")
    with pytest.raises(PipelineError, match=r"tensors\.json"):
        gather(run)


def test_the_mix_is_taken_for_another_when_its_shards_are(store: Path, tmp_path: Path) -> None:
    run = trained(store, "one", small())
    values = json.loads(run.lock.read_bytes())
    assert gather(run).mixes[0].books is not None
    values["sources"][0]["shards"][0]["sha256"] = "0" * 64
    lock = Lock.model_validate(values)
    run.lock.write_bytes(lock.model_copy(update={"fingerprint": lock.order_hash()}).to_json())
    assert gather(run).mixes[0].books is None
    assert "licences are not known here" in card(run)[1].text


def test_a_run_whose_parent_is_gone_says_so(store: Path) -> None:
    run = trained(store, "late", small(), "anneal", Parent("gone", 4, 512, 0.002))
    assert again(gather(run)) == ("", ["the run it began from, gone, is not in this store any longer"])
    assert "gone, step-4" in card(run)[1].text and asdict(run.plan)["parent"]["run"] == "gone"


@pytest.mark.slow
def test_the_command_writes_the_card_and_asks_for_a_licence(store: Path) -> None:
    run = trained(store, "one", small())
    words = [sys.executable, "-m", "tools.cli", "model-card", "--run", "one", "--store", str(store)]
    told = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert "LICENCE=apache-2.0" in told and ModelCard.load(run.folder / "README.md").data.license == "unknown"
    refused = subprocess.run([*words, "--licence", "mitt"], check=False, capture_output=True, text=True)
    assert refused.returncode == 2 and "did you mean `mit`" in refused.stderr
