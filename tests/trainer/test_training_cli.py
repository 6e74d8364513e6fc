"""The trainer as a person meets it: what it says, where it refuses, how it exits, what it leaves to use."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer
from torch.distributed.run import get_args_parser

from pipeline.reader import MixReader
from pipeline.store import Store
from tests.trainer import tiny
from tests.trainer.tiny import ENVIRONMENT, ROOT, anneal, latest, pretrain, tensors
from trainer import cli
from trainer.checkpoint import find, load_weights
from trainer.parallel import prepare
from trainer.run import Run


@pytest.fixture(scope="module")
def store(built: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.store_of(built, tmp_path_factory.mktemp("cli"))


@pytest.fixture(scope="module")
def trained(store: Path) -> Run:
    return pretrain(store, "trained")


def call(store: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`python -m trainer …`"""
    command = [sys.executable, "-m", "trainer", *words, "--store", str(store)]
    return subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True, timeout=120, cwd=store)


def called(store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str, str]:
    """The same in this process, a second sooner: (exit code, stdout, stderr)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(sys, "argv", ["trainer", *words, "--store", str(store)])
    capsys.readouterr()
    try:
        cli.main()
    except SystemExit as done:
        return int(done.code or 0), *capsys.readouterr()
    finally:
        torch.set_num_threads(threads)
    raise AssertionError("main always exits")


def test_a_run_from_the_shell_shows_itself_and_ends_with_a_table_a_plot_and_the_next_command(store: Path) -> None:
    result = call(store, "pretrain", "--model", "tiny.yaml", "--mix", "small", "--run", "shown", "--steps", "4", "--set", "optim.lr=1e-3")
    assert result.returncode == 0, result.stderr
    assert re.search(r"^step 1/4  loss 6\.\d+ .* tok/s .* left$", result.stderr, re.MULTILINE)
    assert "held-out loss  web 6." in result.stderr and "Traceback" not in result.stderr
    assert "web" in result.stdout and "bits per byte" in result.stdout
    assert re.search(r"^Stopped after step 4 of 12\. Next: make pretrain RUN=shown RESUME=1$", result.stdout, re.MULTILINE)
    run = Run(store, "shown")
    assert (run.folder / "loss.png").read_bytes().startswith(b"\x89PNG") and "loss.png" in result.stdout
    assert list((run.folder / "tensorboard").iterdir())
    assert max(map(len, result.stderr.splitlines())) <= 120


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        ("pretrain --model olmoe-smal --mix small", 2, "unknown model `olmoe-smal`; did you mean `olmoe-small`"),
        ("pretrain --model {tiny} --mix smal", 2, "did you mean `small`? (built are: small); build it with `make mix MIX=smal`"),
        ("pretrain --model {tiny} --mix small --set model.expert=8", 2, "model.expert: unknown key `expert`; did you mean `experts`?"),
        ("pretrain --model {tiny} --mix small --set model.experts=many", 2, "model.experts: "),
        ("pretrain --model {tiny} --mix small --set optim.lr", 2, "'optim.lr' is not key=value"),
        ("pretrain --model {tiny} --mix small --tokens plenty", 2, "TOKENS"),
        ("pretrain --model {tiny} --mix small --tokens 5T", 2, "small: holds 698 instances of 64 tokens"),
        ("pretrain --model {tiny} --mix small --run ../x", 2, "RUN=../x: a run is a folder's name"),
        ("pretrain --model {tiny} --mix small --run trained", 2, "run trained is there already"),
        ("pretrain --model {tiny} --mix small --set train.sequence_length=48", 2, "48"),
        ("pretrain --model {tiny} --mix small --set model.vocab_size=400", 2, "its tokenizer tiny has 500 ids"),
        ("pretrain --model {tiny} --mix ./nothing/", 2, "no token files there"),
        ("pretrain --run trained --mix small --resume 1 --set model.top_k=3", 2, "model.top_k: 2 → 3"),
        ("pretrain --run trained --mix small --resume step-5", 2, "no checkpoint `step-5`; there are: step-4, step-8, step-12"),
        ("anneal --run traned --mix small", 2, "no run `traned` under"),
        ("anneal --run trained --mix dolmino", 2, "make mix MIX=dolmino"),
        ("export --run traned", 2, "did you mean `trained`"),
        ("generate --run traned", 2, "no run `traned` under"),
        ("trace 3 --run traned", 2, "did you mean `trained`"),
        ("trace 13 --run trained", 2, "steps 1 to 12"),
    ],
)
def test_a_wrong_request_is_answered_in_one_line(
    store: Path, trained: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: str, code: int, expected: str
) -> None:
    before = sorted(path.name for path in (store / "models").iterdir())
    found, out, said = called(store, capsys, monkeypatch, *words.format(tiny=store / "tiny.yaml").split())
    assert found == code and said.startswith("error: ") and expected in said
    assert said.count("\n") == 1 and out == ""
    assert sorted(path.name for path in (store / "models").iterdir()) == before  # no run of it is left


def test_what_is_broken_exits_otherwise_than_what_is_wrong(
    built: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tiny.store_of(built, tmp_path)
    run = pretrain(store, "run", steps=1)
    file = find(run) / "__0_0.distcp"
    file.write_bytes(file.read_bytes()[:100])
    for command in ("export", "generate", "anneal"):
        words = [command, "--run", "run", *(["--mix", "small"] if command == "anneal" else [])]
        code, _, said = called(store, capsys, monkeypatch, *words)
        assert code == 1 and "__0_0.distcp has 100 bytes" in said and said.count("\n") == 1
    for shard in (store / "shards").rglob("*.bin"):
        shard.write_bytes(shard.read_bytes()[:-2])
    code, _, said = called(store, capsys, monkeypatch, "pretrain", "--model", str(store / "tiny.yaml"), "--mix", "small", "--run", "other")
    assert code == 1 and ".bin" in said


def test_from_the_shell_an_error_is_a_line_and_a_code(store: Path) -> None:
    result = call(store, "export", "--run", "nobody")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: no run `nobody` under") and result.stderr.count("\n") == 1


def test_a_run_longer_than_its_mix_by_a_step_is_refused_before_it_begins(
    store: Path, trained: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """698 instances are 87 steps of 8 and 2 more; 45,056 tokens are 88 steps."""
    words = ["pretrain", "--model", str(store / "tiny.yaml"), "--mix", "small", "--run", "long", "--tokens", "45056"]
    code, _, said = called(store, capsys, monkeypatch, *words)
    assert code == 2 and "small: holds 698 instances of 64 tokens" in said
    assert not Run(store, "long").folder.exists()


def test_export_is_the_trained_model_for_transformers(
    store: Path, trained: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = called(store, capsys, monkeypatch, "export", "--run", "trained")
    folder = trained.folder / "hf" / "step-12"
    assert code == 0 and "from_pretrained" in out
    assert called(store, capsys, monkeypatch, "export", "--run", "trained")[0] == 0  # again: it is there
    theirs = transformers.OlmoeForCausalLM.from_pretrained(folder).eval()
    tokens = torch.from_numpy(MixReader(trained.lock, store).batch(range(400, 404)).astype("int64"))
    with tiny.alone_in_the_world() as world, torch.no_grad():
        ours = prepare(trained.plan.config, world)
        load_weights(find(trained), ours)
        logits = ours.head(ours(tokens).hidden_BSD)
        assert (theirs(tokens).logits - logits).abs().max() <= 1e-5 * logits.abs().max()
    assert torch.equal(tensors(find(trained))["model.head.weight"], theirs.lm_head.weight)
    words = transformers.AutoTokenizer.from_pretrained(folder)
    assert words.decode(words("the water was")["input_ids"]) == "the water was"
    assert theirs.config.eos_token_id == trained.plan.identity["eos"] and theirs.config.max_position_embeddings == 64


def test_generate_continues_a_text_with_the_trained_model(
    store: Path, trained: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["generate", "--run", "trained", "--tokens", "12", "--temperature", "0", "the water was"]
    code, out, _ = called(store, capsys, monkeypatch, *words)
    assert code == 0 and out.startswith("the water was") and out.endswith("\n") and len(out) > len("the water was\n")
    called(store, capsys, monkeypatch, "export", "--run", "trained")
    theirs = transformers.OlmoeForCausalLM.from_pretrained(trained.folder / "hf" / "step-12").eval()
    tokenizer = Tokenizer.from_file(str(trained.folder / "hf" / "step-12" / "tokenizer.json"))
    ids = torch.tensor([tokenizer.encode("the water was").ids])
    expected = theirs.generate(ids, max_new_tokens=12, do_sample=False)[0].tolist()
    assert out.rstrip("\n") == tokenizer.decode(expected, skip_special_tokens=False).rstrip("\n") or expected[-1] == 0
    drawn = [called(store, capsys, monkeypatch, *words[:5], "--seed", seed, "the")[1] for seed in ("1", "1", "2")]
    assert drawn[0] == drawn[1] != drawn[2]


def test_trace_lists_the_documents_of_a_step(
    store: Path, trained: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = called(store, capsys, monkeypatch, "trace", "5", "--run", "trained")
    assert code == 0
    reader = MixReader(trained.lock, store)
    for index in range(4 * 8, 5 * 8):
        for document in reader.documents(index):
            assert document.id in out and f"{document.file}#{document.row}" in out


def test_an_annealed_run_says_how_to_go_on_with_it(store: Path, trained: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run = anneal(store, "trained", steps=2)
    found = re.search(r"Next: make anneal RUN=(\S+) MIX=(\S+) RESUME=1", capsys.readouterr().out)
    assert found is not None and run.name == "trained-small"
    assert latest(anneal(store, found[1], mix=found[2], resume="1")) == "step-5"
    assert "Next: make export RUN=trained-small " in capsys.readouterr().out


def test_make_starts_several_processes_with_arguments_that_torchrun_leaves_alone() -> None:
    """torchrun takes an abbreviation of an option of its own (`--run`: `--run-path`) out of the program's arguments."""
    target = ["make", "-n", "pretrain", "NPROC=2", "RUN=mine", "MIX=small", "STEPS=3", "RESUME=1", "SET=optim.lr=1e-3 model.experts=16"]
    printed = subprocess.run(target, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (line,) = [line for line in printed.splitlines() if "torchrun" in line and "trainer" in line]
    words = shlex.split(line)
    start = next(number for number, word in enumerate(words) if word.endswith("torchrun"))
    parsed = get_args_parser().parse_args(words[start + 1 :])
    assert (parsed.training_script, parsed.module, parsed.nproc_per_node) == ("trainer", True, "2")
    given = parsed.training_script_args
    assert given[0] == "pretrain" and given[given.index("--run") + 1] == "mine"
    assert given[given.index("--set") + 1] == "optim.lr=1e-3 model.experts=16"
