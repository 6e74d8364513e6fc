"""The program `tokenmill` as scripts, shells and terminals see it: exit statuses, plain output, completion, text that is not ours."""

import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.text import Text

from pipeline.errors import ConfigError, PipelineError
from pipeline.store import Store
from pipeline.terminal import UNSEEN, Screen, cut, exact, program, run, titled, visible
from tests.tools.test_inspect import terminal
from tools import cli
from trainer.run import Run

COMMANDS = [info.name or info.callback.__name__.replace("_", "-") for info in cli.app.registered_commands if info.callback]
DOCUMENTED = Path(__file__).parents[2].joinpath("docs", "command-line.md").read_text()


def called(capsys: pytest.CaptureFixture[str], *words: str, app: typer.Typer = cli.app) -> tuple[int, str, str]:
    """`tokenmill <words>` into a pipe: exit status, standard output, standard error."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run(app, words)
    out, said = capsys.readouterr()
    return int(ended.value.code or 0), out, said


def test_help_is_plain_in_a_pipe_and_says_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = called(capsys)
    assert status == 0 and all(re.search(rf"^  {command} ", out, re.MULTILINE) for command in COMMANDS)
    for command in ("mix", "inspect", "trace"):
        status, out, said = called(capsys, command, "--help")
        assert status == 0 and said == "" and out.startswith("Usage: ") and "--help" in out
        assert not re.search("[\x1b│╭─]", out), command


@pytest.mark.slow
def test_every_command_refuses_an_option_it_does_not_have_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        status, out, said = called(capsys, command, "--nonsense", "1")
        assert (status, out) == (2, "") and said.count("\n") == 1, command
        assert said.startswith("error: No such option: --nonsense")


def test_a_misspelt_command_or_option_is_refused_with_what_is_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert called(capsys, "sql", "--frmat", "csv")[::2] == (2, "error: No such option: --frmat (Possible options: --format)\n")
    assert called(capsys, "verfy")[::2] == (2, "error: No such command 'verfy'. Did you mean 'verify'?\n")
    assert called(capsys, "stats", "--mix")[::2] == (2, "error: Option '--mix' requires an argument.\n")


def failing(error: BaseException | None) -> typer.Typer:
    app = program("for tests")

    @app.command()
    def fail() -> None:
        if error:
            raise error

    @app.command()
    def other() -> None:
        pass

    return app


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (None, 0, ""),
        (PipelineError("the disk is full"), 1, "error: the disk is full\n"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            1,
            "error: [Errno 28] No space left on device; free some space and run the same command again\n",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "data/reports"), 1, "error: [Errno 13] Permission denied: 'data/reports'\n"),
        (ConfigError("no mix `x`"), 2, "error: no mix `x`\n"),
        (PipelineError("[red]not markup[/] :smile:"), 1, "error: [red]not markup[/] :smile:\n"),
        (PipelineError("file \x1b]0;owned\x07\udcff"), 1, "error: file ␛]0;owned␇<U+DCFF>\n"),
        (typer.Exit(1), 1, ""),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_what_went_wrong_is_said_in_a_line_and_by_the_exit_status(
    capsys: pytest.CaptureFixture[str], error: BaseException | None, status: int, said: str
) -> None:
    assert called(capsys, "fail", app=failing(error)) == (status, "", said)
    assert f"| {status} |" in DOCUMENTED


def test_a_fault_of_ours_has_a_traceback_that_does_no_harm() -> None:
    code = (
        "from pipeline.terminal import program, run\napp = program('x')\n"
        "@app.command()\ndef a(): raise KeyError('\\x1b[2J quoted')\n"
        "@app.command()\ndef b(): pass\n"
        "@app.command()\ndef c(): raise ValueError('\\x1b[2J')\nrun(app)\n"
    )
    result = subprocess.run([sys.executable, "-c", code, "c"], capture_output=True, text=True, timeout=60)
    assert result.returncode == 1 and result.stderr.startswith("Traceback") and result.stderr.endswith("ValueError: ␛[2J\n")
    assert "\x1b" not in result.stderr


@settings(max_examples=60, deadline=None)
@given(st.text())
def test_visible_text_steers_nothing_and_leaves_what_can_be_read(text: str) -> None:
    shown = visible(text)
    assert not UNSEEN.search(shown) and "\n" not in shown and "\t" not in shown
    assert visible(visible(text)) == shown
    assert (
        "".join(c for c in text if c.isalnum()) == "".join(c for c in re.sub(r"<U\+[0-9A-F]{4,6}>", "", shown) if c.isalnum())
        or "<U" in text
    )
    assert visible(text, lines=True).replace("\n", "␊").replace("\t", "␉") == shown


def test_every_control_character_has_a_symbol_of_its_own() -> None:
    controls = [chr(code) for code in (*range(32), *range(127, 160))] + list("\u202a\u202e\u2066\u2069\u200f\u2028\ufeff\U000e0041")
    symbols = [visible(control) for control in controls]
    assert len(set(symbols)) == len(symbols) and all(symbol.isprintable() for symbol in symbols)
    assert visible("\x1b[31m\x7f\x9b\u202e") == "␛[31m␡<U+009B><U+202E>"
    assert visible("Zürich, שלום, 水, 👩‍🚀 e\u0301") == "Zürich, שלום, 水, 👩‍🚀 e\u0301"  # with the joiner that the last but one needs


def test_a_screen_takes_text_as_text_wherever_it_stands() -> None:
    table = titled("a \x1b[31mtitle", "[bold]name", "value")
    table.add_row("[red]x[/red] :smile: [/nothing]", "\x1b]8;;http://x\x1b\\link\x9b")
    for forced in (False, True):
        screen = Screen(file=io.StringIO(), width=100, force_terminal=forced)
        screen.print(table)
        screen.print("[blue]\x07 message", Text("a text\x1b[31m \u202e"))
        text = screen.file.getvalue()  # type: ignore[attr-defined]
        plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
        assert not UNSEEN.search(plain) and (forced or plain == text)
        for expected in (
            "[red]x[/red] :smile: [/nothing]",
            "␛]8;;http://x␛\\link",
            "[bold]name",
            "[blue]␇ message",
            "a text␛[31m <U+202E>",
        ):
            assert expected in plain


def test_what_machines_read_is_exact_and_what_people_read_is_bounded(built: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert exact("\x1b[31m\u202e\n") == "\x1b[31m\u202e\n"
    assert cut("x" * 2_000) == "x" * 2_000 and cut("x" * 2_001).endswith("… (2,001 characters)")
    query = "SELECT chr(27) || '[31m' || chr(8238) AS a, repeat('x', 3000) AS b, '[/x] :smile:' AS c"
    place = ("--store", str(built.root))
    assert json.loads(called(capsys, "sql", query, "--format", "json", *place)[1]) == [
        {"a": "\x1b[31m\u202e", "b": "x" * 3000, "c": "[/x] :smile:"}
    ]
    assert called(capsys, "sql", query, "--format", "csv", *place)[1] == f"a,b,c\n\x1b[31m\u202e,{'x' * 3000},[/x] :smile:\n"
    status, table, _ = called(capsys, "sql", query, *place)
    assert status == 0 and "␛[31m<U+202E>" in table and "\x1b" not in table and "(3,000 characters)" in table.replace("\n", "")
    assert "[/x] :smile:" in table


WRONG = {  # for a command that does something else in a store where nothing is
    "mix": ["--mix", "nothing"],
    "ablation": ["--name", "nothing"],
    "classifier": ["--good", "/nowhere", "--bad", "/nowhere"],
    "preview": ["--source", "nothing", "--where", "words < 5"],
    "upcycle": ["--run", "nothing"],
    "trace": ["1", "--run", "nothing"],
    "inspect": ["--instance", "0"],
}


@pytest.mark.slow
def test_every_command_says_of_a_store_where_nothing_is_that_the_request_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in COMMANDS:
        words = [command, *WRONG.get(command, [])]
        place = [] if command == "classifier" else ["--store", str(tmp_path / "empty")]
        status, out, said = called(capsys, *words, *place)
        assert status == 2 and out == "" and said.splitlines()[-1].startswith("error: "), (command, said)
        assert not re.search("\x1b", out + said)


@pytest.mark.slow
def test_verify_tells_what_does_not_hold_from_what_cannot_be_asked(
    built: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(built.root, tmp_path / "store")
    place = ["--store", str(tmp_path / "store"), "--workers", "1"]
    assert called(capsys, "verify", "--mix", "small", *place)[0] == 0
    shard = next(tmp_path.glob("store/shards/web/*/train-00000.bin"))
    shard.write_bytes(shard.read_bytes()[:-2] + b"\7\0")
    status, out, _ = called(capsys, "verify", "--mix", "small", *place)
    assert status == 1 and shard.name in out
    assert called(capsys, "verify", "--mix", "smal", *place)[0] == 2


@pytest.mark.slow
def test_no_command_s_output_has_escapes_in_a_pipe_even_while_it_works(corpus: Path, recipes: Path, tmp_path: Path) -> None:
    place = ["--store", str(tmp_path / "store")]
    for words in (
        ["mix", "--mix", "small", "--data", str(corpus), "--recipes", str(recipes), "--scale", "--workers", "1"],
        ["stats", "--mix", "small"],
        ["verify", "--mix", "small", "--workers", "1"],
        ["gc", "--recipes", str(recipes)],
        ["preview", "--source", "web", "--where", "words < 50", "--recipes", str(recipes), "--workers", "1"],
        ["sql", "SELECT * FROM funnel"],
        ["inspect", "--mix", "small", "--instance", "3"],
    ):
        result = subprocess.run([sys.executable, "-m", "tools.cli", *words, *place], capture_output=True, timeout=120)
        assert result.returncode == 0, result.stderr
        assert result.stdout and b"\x1b" not in result.stdout + result.stderr and b"\r" not in result.stdout + result.stderr


@pytest.mark.slow
def test_no_color_leaves_no_colour_on_a_terminal_and_a_dumb_one_gets_text_alone(built: Store) -> None:
    colour = re.compile(rb"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|4[0-8]|9[0-7])(?:;[0-9;]*)?m")
    place = ["--store", str(built.root)]
    for words in (["stats", "--mix", "none"], ["--help"], ["inspect", "--mix", "small", "--instance", "3", *place]):
        coloured, quiet, dumb = (terminal(*words, PAGER="cat", **more)[1] for more in ({}, {"NO_COLOR": "1"}, {"TERM": "dumb"}))
        assert b"\x1b" in coloured and bool(colour.search(coloured)) == (words[0] != "inspect")  # which underlines
        assert not colour.search(quiet) and b"\x1b" not in dumb
    assert re.search(b"\x1b\\[4m", terminal("inspect", "--mix", "small", "--instance", "3", *place, PAGER="cat", NO_COLOR="1")[1])


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_a_command_without_a_word(built: Store) -> None:
    query = "SELECT repeat('x', 1000) FROM range(5000)"
    for format in ("csv", "json"):
        command = [sys.executable, "-m", "tools.cli", "sql", query, "--format", format, "--store", str(built.root)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout and process.stderr
            process.stdout.read(10)
            process.stdout.close()
            assert process.stderr.read() == b""
        assert process.returncode == 141


# Completion.


@pytest.fixture(scope="module")
def full(built: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a mix, runs, and names that a shell would run."""
    place = tmp_path_factory.mktemp("full")
    (place / "mixes").mkdir()
    for kind in ("lock", "build"):
        (place / f"mixes/small.{kind}.json").write_bytes(built.read(f"mixes/small.{kind}.json"))
    for name in ("$(touch owned)", "a b", "x;y", "`id`", "small\n2", "-rf", "'q", "\x1b[31m"):
        (place / f"mixes/{name}.lock.json").touch()
    for run_name, record in (("first", "run.json"), ("first-sft", "adapt.json"), ("$(id)", "run.json")):
        Run(place, "x").folder.parent.joinpath(run_name).mkdir(parents=True)
        (place / "models" / run_name / record).touch()
    for step in ("step-4", "step-12"):
        (place / "models/first/checkpoints" / step).mkdir(parents=True)
    return place


def offered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, shell: str = "bash") -> list[str]:
    """What a shell is given for the last word of a line."""
    variables = {"bash": {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}, "zsh": {"_TYPER_COMPLETE_ARGS": line}}
    variables["fish"] = variables["zsh"] | {"_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    for name, value in variables[shell].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("_TOKENMILL_COMPLETE", f"complete_{shell}")
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.app(prog_name="tokenmill")
    assert not ended.value.code
    out, said = capsys.readouterr()
    assert said == ""
    return out.split("\n")[:-1] if out != "\n" else []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("stat", ["stats"]),
        ("stats --mi", ["--mix"]),
        ("stats --store {store} --mix ", ["small"]),
        ("inspect --store {store} --source w", ["web", "wiki"]),
        ("inspect --store {store} --mix small --source code --dropped f", ["few_stars"]),
        ("inspect --store {store} --mix nothing --source ", []),
        ("trace --store {store} --run ", ["first", "first-sft"]),
        ("eval --store {store} --run first --checkpoint step-1", ["step-12"]),
        ("eval --tasks piqa,in_", ["piqa,in_loop"]),
        ("mix --mix olmoe-a", ["olmoe-anneal"]),
        ("mix --mix olmoe-mix --sources wiki,dc", ["wiki,dclm"]),
        ("preview --filters english,fineweb-", ["english,fineweb-edu"]),
        ("pretrain --model dense-", ["dense-1b", "dense-small"]),
        ("pretrain --set optim.l", ["optim.lr"]),
        ("ablation --name qk", ["qk-norm"]),
        ("sft --mix small-s", ["small-sft"]),
        ("sql --format j", ["json"]),
        ("stats --store s3://bucket/x --mix ", []),
        ("stats --store /nowhere --mix ", []),
    ],
)
def test_completion_goes_on_with_what_there_is(
    full: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, expected: list[str]
) -> None:
    assert offered(monkeypatch, capsys, f"tokenmill {line}".format(store=full)) == expected


def test_zsh_and_fish_are_given_the_same_names(full: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"tokenmill trace --store {full} --run "
    assert offered(monkeypatch, capsys, line, "fish") == ["first", "first-sft"]
    assert " ".join(offered(monkeypatch, capsys, line, "zsh")) == """_arguments '*: :(("first" "first-sft"))'"""


@pytest.mark.slow
def test_bash_completes_in_a_shell_and_runs_nothing_of_it(full: Path, tmp_path: Path) -> None:
    tokenmill = tmp_path / "tokenmill"
    tokenmill.write_text(f"#!{sys.executable}\nfrom tools.cli import main\nmain()\n")
    tokenmill.chmod(0o755)
    script = (
        'eval "$(tokenmill --show-completion bash 2>/dev/null || tokenmill --show-completion)"\n'
        f"COMP_WORDS=(tokenmill stats --store {full} --mix '')\nCOMP_CWORD=5\n_tokenmill_completion tokenmill\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "HOME": str(tmp_path),
    }
    result = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=60)
    assert result.stdout.split() == ["small"], result.stderr
    assert not (tmp_path / "owned").exists()
    installed = subprocess.run(
        ["bash", "-c", "tokenmill --install-completion; true"], capture_output=True, text=True, env=environment, timeout=60
    )
    assert "bash completion installed" in installed.stdout, installed.stderr
    assert "tokenmill" in "".join(path.read_text() for path in tmp_path.rglob("*.sh"))
