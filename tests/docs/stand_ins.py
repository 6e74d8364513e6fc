"""What stands in for what this machine cannot be, or for an hour of its time. All else on the pages runs as it stands there.

Four tables, each line with its reason: the machine's ENVIRONMENT, SMALLER files of the checkout, what is done BEFORE a page, and STAND_INS
for words of commands (and of the files that pages write). A line that no page has any use for fails test_pages.py.
"""

import re
from dataclasses import dataclass
from typing import Any

COMMENT = re.compile(r"\s+# .*$", re.M)


@dataclass(frozen=True)
class StandIn:
    """says: words of a command, found where no other word goes on before or after them. runs: what runs instead. page: of this one alone.
    first: a command that runs before the first one that says so."""

    says: str
    runs: str
    because: str
    page: str = ""
    first: str = ""

    def is_for(self, page: str, text: str) -> bool:
        return self.page in ("", page) and self._pattern.search(COMMENT.sub("", text)) is not None

    def put_in(self, text: str) -> str:
        return self._pattern.sub(lambda _: self.runs, COMMENT.sub("", text))

    @property
    def _pattern(self) -> re.Pattern[str]:
        end = r"(?![\w/-])" if self.says[-1].isalnum() else ""  # `NAME=` goes on
        return re.compile(rf"(?<![\w./-]){re.escape(self.says)}{end}")


@dataclass(frozen=True)
class Smaller:
    """Keys of a YAML file, dotted, and what they become."""

    file: str
    keys: dict[str, Any]
    because: str

    def applied(self, content: dict[str, Any]) -> dict[str, Any]:
        """`content`, changed. Raises KeyError for a section that is not there; a key that is none is refused by the program."""
        for key, value in self.keys.items():
            *folders, last = key.split(".")
            place = content
            for folder in folders:
                place = place[folder]
            place[last] = value
        return content


@dataclass(frozen=True)
class Before:
    """What is done before a page is read."""

    page: str
    runs: str
    because: str


def stood_in(page: str, text: str) -> str:
    """A command, or a file, with its stand-ins put in, in the table's order."""
    for each in STAND_INS:
        if each.is_for(page, text):
            text = each.put_in(text)
    return text


ENVIRONMENT = {
    "HOME": ("{home}", "what commands leave there is the machine's"),
    "XDG_CACHE_HOME": ("{cache}", "kernels that were compiled stay so: a minute"),
    "HF_HOME": ("{home}/huggingface", "the user's token and files stay out"),
    "HF_ENDPOINT": ("{hub}", "the hub is one on loopback, with made-up text in the repositories that recipes name (pretend_hub.py)"),
    "HF_TOKEN": ("{token}", "its terms are accepted"),
    "AWS_ENDPOINT_URL": ("{s3}", "object storage is a server of its protocol on loopback (tools/s3_server.py), with a bucket of that name"),
    "HUB": ("{files}", "where its files lie"),
    "A_PORT": ("{a_port}", "of a cluster that is there; free, since 6379 may be another's"),
    "B_PORT": ("{b_port}", "of one that a page starts"),
    "PATH": ("{programs}:{path}", "Slurm, Kubernetes, Docker and lm_eval are programs of ours that do it here (programs/)"),
}  # fmt: skip

TINY = {
    "model.d_model": 16, "model.layers": 2, "model.heads": 2,
    "train.sequence_length": 128, "train.batch_tokens": 256, "train.tokens": 102_400, "loss.micro_batch": 1,
    "optim.schedule.warmup_tokens": 4096, "anneal.tokens": 10_240,
}  # fmt: skip
FIFTY = TINY | {"train.tokens": 12_800}
LARGE = {"train.compile": False, "train.tasks": "none", "train.evaluate_instances": 2}
PUBLISHED = {"model.expert_width": 8, "train.tokens": 2_560, "optim.schedule.end_tokens": 2_560, "optim.schedule.warmup_tokens": 512}
ABLATION = {
    "model.d_model": 16, "train.sequence_length": 16, "train.batch_tokens": 256, "train.tokens": 128_000, "train.evaluate_instances": 2,
    "optim.schedule.warmup_tokens": 512, "anneal.tokens": 12_800,
}  # fmt: skip
CONVERSATIONS = {"training.max_length": 128, "sources.chitchat.fraction": 0.001, "sources.chatterbot.fraction": 0.02}
ANSWERS = {"training.max_length": 128, "training.epochs": 1} | dict.fromkeys(
    (f"sources.{name}.fraction" for name in ("piqa", "openbookqa", "arc-easy", "arc-challenge")), 0.003
)
PUBLISHED_SFT = {"training.batch": 16, "training.epochs": 1, "training.max_length": 128} | dict.fromkeys(
    (f"sources.{name}.fraction" for name in ("tulu-v2", "no-robots", "codefeedback", "metamathqa", "daring-anteater")), 0.1
)
SMALLER = (
    Smaller("trainer/configs/olmoe-small.yaml", TINY | {"model.expert_width": 8, "train.evaluate_instances": 2, "loss.micro_batch": 2},
            "ten minutes of training: 400 steps still, with the same checkpoints, of a model an eighth as wide"),
    Smaller("trainer/configs/dense-small.yaml", FIFTY | {"train.evaluate_instances": 2}, "the same, of 50 steps"),
    Smaller("trainer/configs/olmoe-mid.yaml", FIFTY | LARGE | {"model.expert_width": 8}, "a day: a small model"),
    Smaller("trainer/configs/olmoe-1b-7b.yaml", TINY | LARGE | PUBLISHED, "days of 256 GPUs: ten steps of a small model"),
    Smaller("trainer/configs/ablation.yaml", ABLATION, "two minutes a run: 500 steps of as many instances, short ones"),
    Smaller("mixes/adaptation/small-sft.yaml", CONVERSATIONS, "minutes: a twentieth of the conversations, short ones"),
    Smaller("mixes/adaptation/small-dpo.yaml", ANSWERS, "minutes: few and short answers, read once"),
    Smaller("mixes/adaptation/small-kto.yaml", ANSWERS, "the same"),
    Smaller("mixes/adaptation/olmoe-sft.yaml", PUBLISHED_SFT, "days: short rows, which are made up, and few of them"),
)  # fmt: skip

BEFORE = (
    Before("docs/window.md", "make mix MIX=olmoe-mix", "its reader has not built README's mix"),
    Before("docs/formats.md", "make card MIX=olmoe-mix", "nor made its card"),
)

CORPUS = ".venv/bin/python -m tests.docs.own_corpus"
MINE = f"{CORPUS} mine talks && gunzip mine/talks/* && sed -i 40q mine/talks/*"
MODEL = "cp -r data/models/olmoe-small/hf/step-400 OLMoE-1B-7B-0924"
TOKENIZER = (
    "mkdir -p $HUB/allenai/gpt-neox-olmo-dolma-v1_5 && cp data/tokenizers/9ad3*.json $HUB/allenai/gpt-neox-olmo-dolma-v1_5/tokenizer.json"
)
CLUSTER = (
    "RAY_AUTH_MODE=token .venv/bin/ray start --head --port $A_PORT --num-cpus 2 --object-store-memory 100000000 --include-dashboard=false"
)
STAND_INS = (
    # A reader's own things.
    StandIn("DATA=corpus SOURCES=dclm,wiki,arxiv TOKENS=2B", "DATA=corpus SOURCES=dclm,wiki,arxiv TOKENS=40K",
            "a corpus of a few hundred documents", first=f"{CORPUS} corpus dclm wiki arxiv"),
    StandIn("/big/disk", "../big-disk", "this machine has one disk"),
    StandIn("./OLMoE-1B-7B-0924", "./OLMoE-1B-7B-0924", "13 GB: the small model, exported, under that name", first=MODEL),
    StandIn("../OLMoE-1B-7B-0924/ MIX=olmoe-mix", "./OLMoE-1B-7B-0924/ MIX=olmoe-mix STORE=../from-hub", "the same, on little text",
            first=MODEL),
    StandIn("DATA=mine", "DATA=mine", "a reader's conversations are made up", first=MINE),
    StandIn("max_length: 512, precision", "max_length: 128, precision", "of a small model", page="docs/adaptation.md"),
    StandIn("TEXTS=texts/", "TEXTS=texts/", "a reader's texts are two of our pages",
            first="mkdir texts && cp README.md texts/readme.txt && cp docs/formats.md texts/formats.txt"),
    # Hours and money.
    StandIn("DATA=hub", "DATA=hub", "the tokenizer's bytes are stated: they come out of the sample", first=TOKENIZER),
    StandIn("TOKENS=10B DATA=hub", "TOKENS=40K STORE=../from-hub DATA=hub", "terabytes: what is made up, in a store apart"),
    StandIn('"$here:$port" make mix MIX=olmoe-mix DATA=hub STORE=/shared/store',
            '"$here:$port" make mix MIX=olmoe-mix TOKENS=40K DATA=hub STORE=../nodes/job', "the same, where nothing is done yet"),
    StandIn("make mix MIX=olmoe-mix DATA=hub", "make mix MIX=olmoe-mix TOKENS=40K DATA=hub", "the same"),
    StandIn("tokenmill mix --mix olmoe-mix --data hub", "tokenmill mix --mix olmoe-mix --data hub --tokens 40K", "the same"),
    StandIn("make mix STORE=s3://bucket/prefix", "make mix SOURCES=wiki STORE=s3://bucket/prefix", "minutes: one source"),
    StandIn("make mix STORE=/shared/store", "make mix SOURCES=wiki,arxiv STORE=/shared/store", "minutes: small sources"),
    StandIn("make mix MIX=olmoe-mix STORE=/tmp/rehearsal", "make mix SOURCES=wiki,arxiv STORE=/tmp/rehearsal", "the same"),
    StandIn("make test", "make test PYTEST_ADDOPTS='--collect-only tests/docs/test_pages.py'", "CI runs the tests beside this"),
    StandIn("make chaos", "make -n chaos && .venv/bin/python -m tools.chaos --help", "minutes: tests/tools/test_chaos.py plays its rounds"),
    StandIn("make fuzz", "make -n fuzz && .venv/bin/python -m tools.fuzz --help", "minutes: tests/fuzz/ runs it"),
    StandIn("make bench", "make -n bench && .venv/bin/python -m tools.bench --help", "a quarter of an hour on a quiet machine"),
    StandIn("make bench-train", "make -n bench-train && .venv/bin/python -m tools.bench_train --help", "the same"),
    StandIn("make bench-curation", "make -n bench-curation && .venv/bin/python -m tools.bench_curation --help", "the same"),
    StandIn("NAME=all", "NAME=qk-norm", "69 runs of minutes: two"),
    StandIn("A=python B=manuals TOKENS=200K", "A=python B=manuals", "a minute each"),
    StandIn("make ablation NAME=", "make ablation SEEDS=1 TOKENS=8K JOBS=2 NAME=", "minutes: 31 steps of one seed"),
    StandIn('RUN=two SET="optim.lr=1e-3 model.experts=16 model.top_k=2"',
            'RUN=two STEPS=20 SET="optim.lr=1e-3 model.experts=16 model.top_k=2 loss.micro_batch=1"',
            "a minute; and the small batch is dealt to two processes in smaller parts"),
    StandIn("ITEMS=100", "ITEMS=1", "minutes: one question of each task"),
    StandIn("make eval", "make eval ITEMS=1", "the same"),
    StandIn('RUN=watched SET="train.tasks=in_loop train.task_items=100"',
            'STEPS=50 RUN=watched SET="train.tasks=in_loop train.task_items=1"', "the same, twice in the run"),
    StandIn("make sft RUN=olmoe-small STEPS=40", "make sft RUN=olmoe-small STEPS=2", "there are four"),
    StandIn("make analyze", "make analyze TOKENS=4K", "a minute: 4,000 tokens of each source"),
    StandIn("TOKENS=50K", "", "the same"),
    StandIn("TOKENS=500M", "TOKENS=12800 STEPS=10", "a day: ten steps"),
    # Other machines.
    StandIn("STORE=/shared/data DATA=hub", "STORE=/shared/data DATA=hub TOKENS=28672 STEPS=10", "what the made-up hub holds"),
    StandIn("STORE=/shared/data RESUME=1", "STORE=/shared/data RESUME=1 STEPS=20", "ten steps more"),
    StandIn("NPROC=8", "NPROC=2", "two cores instead of eight GPUs"),
    StandIn('"--nnodes 32 --rdzv-id 1 --rdzv-backend c10d --rdzv-endpoint node0:29500"',
            '"--nnodes 1 --rdzv-id 1 --rdzv-backend c10d --rdzv-endpoint localhost:0"', "32 nodes are this one"),
    StandIn("/shared/store", "../nodes/store", "a folder that all nodes share, of one node"),
    StandIn("/shared/data", "../nodes/data", "the same"),
    StandIn("/tmp/rehearsal", "../rehearsal", "what the machine leaves lies in its own folder"),
    StandIn("10.0.0.1:6379", "127.0.0.1:$A_PORT", "a cluster of one node, on loopback", first=CLUSTER),
    StandIn("10.0.0.7:6379", "127.0.0.1:$A_PORT", "the same", first=CLUSTER),
    StandIn("--port 6379", "--port $B_PORT", "another Ray may have this port here"),
    StandIn("127.0.0.1:6379", "127.0.0.1:$B_PORT", "the same"),
    StandIn(".venv/bin/ray stop", ".venv/bin/python -m tests.docs.leftovers", "ends this machine's Rays, not all of this user's"),
)  # fmt: skip
