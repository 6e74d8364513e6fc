# The front door. `make` alone lists every target; make adds nothing but set-up to the programs `tokenmill` and `python -m trainer`.

MIX     ?= olmoe-mix
DATA    ?= sample
STORE   ?= data
TOKENS  ?=
WORKERS ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
SOURCES ?=
SCALE   ?=
STREAM  ?=
NODES   ?= 1
REMOVE  ?=
MINUTES ?= 10
SEED    ?= 0
NOISE   ?= 0
ADVISORIES ?=
FORMAT  ?= table
Q       ?=
SOURCE  ?= dclm
WHERE   ?=
INSTANCE ?=
DOC     ?=
DROPPED ?=
FILTERS ?=
GOOD    ?=
BAD     ?=
OUT     ?= quality.bin
NPROC   ?= 1
MODEL   ?=
RUN     ?= olmoe-small
STEPS   ?= 0
STEP    ?= 1
RESUME  ?=
SET     ?=
NAME    ?=
A       ?=
B       ?=
SEEDS   ?= 0
JOBS    ?= 1
PROMPT  ?= The
TEMPERATURE ?= 0.8
TEXTS   ?=
TASKS   ?=
LICENCE ?=
TO      ?=
ITEMS   ?= 0
CHECKPOINT ?= latest
ADJACENT ?=
PYTHON  ?= python3

VENV := .venv
BIN  := $(VENV)/bin
# Nothing is resolved, and no byte is taken that a lock does not list: docs/security.md.
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation
LOCKED := $(PIP) --require-hashes -r requirements
export OMP_WAIT_POLICY = PASSIVE

# Several processes are torchrun's; for several nodes, TORCHRUN="--nnodes 4 --rdzv-backend c10d --rdzv-endpoint host:29500".
TORCHRUN ?= --standalone
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT ?= 600
# After --, or torchrun would take --run for a beginning of its own --run-path.
TRAIN = $(if $(and $(filter 1,$(NPROC)),$(filter --standalone,$(TORCHRUN))),$(BIN)/python -m,$(BIN)/torchrun $(TORCHRUN) --nproc-per-node $(NPROC) -m --) trainer
# s3:// URLs need a client of their own.
S3    := $(if $(findstring s3://,$(STORE) $(DATA)),$(VENV)/.s3)
READY := $(VENV)/.ready $(S3)
given = $(if $(filter file undefined,$(origin $(1))),,$($(1)))
adapt = --store "$(STORE)" --mix "$(call given,MIX)" --data "$(DATA)" --steps $(STEPS) --resume "$(RESUME)" --set '$(SET)'
loop  = --store "$(STORE)" --mix "$(call given,MIX)" --steps $(STEPS) --tokens "$(TOKENS)" --resume "$(RESUME)" --set '$(SET)'

.DEFAULT_GOAL := help
.PHONY: help setup mix plan stats sql preview inspect report report-picture card model-card push classifier verify gc pretrain anneal upcycle ablation eval export generate trace analyze sft dpo kto
.PHONY: bench bench-train bench-curation chaos fuzz test test-browser test-docs test-all docs lint lock audit clean

help: ## list every target
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "Variables: MIX=$(MIX) DATA=sample|hub|<folder>|<url>|<owner>/<name> STORE=$(STORE)|<url> TOKENS=50M WORKERS=$(WORKERS) SOURCES=a,b SCALE=1 FORMAT=table|csv|json"
	@echo "Training:  MODEL=olmoe-small|olmoe-mid|olmoe-1b-7b|dense-small|dense-1b RUN=<name> NPROC=$(NPROC) STEPS=100 RESUME=1 SET=\"optim.lr=1e-3\""

setup: $(READY) ## create .venv with everything that the pipeline needs

mix: $(READY) ## build a mix: MIX= DATA= STORE= TOKENS= WORKERS= SOURCES= SCALE=1
	@$(BIN)/tokenmill mix --mix "$(MIX)" --data "$(DATA)" --store "$(STORE)" --tokens "$(TOKENS)" --workers "$(WORKERS)" \
	  --sources "$(SOURCES)" $(if $(SCALE),--scale) $(if $(STREAM),--stream)

stats: $(READY) ## what a mix holds, what was dropped and why, what each stage cost: MIX= STORE=
	@$(BIN)/tokenmill stats --mix "$(MIX)" --store "$(STORE)"

sql: export TOKENMILL_QUERY = $(value Q)
sql: $(READY) ## query the catalog, or open a DuckDB shell on it: Q="SELECT …" FORMAT=table|csv|json
	@$(BIN)/tokenmill sql --mix "$(MIX)" --store "$(STORE)" --format "$(FORMAT)" -- "$$TOKENMILL_QUERY"

preview: export TOKENMILL_WHERE = $(value WHERE)
preview: $(READY) ## what rules would drop from a built source, before anything runs again: SOURCE= WHERE="…" FILTERS=a,b
	@$(BIN)/tokenmill preview --source "$(SOURCE)" --where "$$TOKENMILL_WHERE" --filters "$(FILTERS)" --store "$(STORE)" --workers "$(WORKERS)"

inspect: export TOKENMILL_DOCUMENT = $(value DOC)
inspect: $(READY) ## read what a mix holds, on a terminal: MIX= or RUN=, INSTANCE=n | DOC=<id> | SOURCE= DROPPED=<reason>
	@$(BIN)/tokenmill inspect --mix "$(call given,MIX)" --run "$(call given,RUN)" --store "$(STORE)" --instance "$(INSTANCE)" \
	  --doc "$$TOKENMILL_DOCUMENT" --source "$(call given,SOURCE)" --dropped "$(DROPPED)"

report: $(READY) $(if $(call given,RUN)$(A),$(VENV)/.trainer) ## write a page that shows a mix, documents from both sides of each rule, a model: MIX= RUN= or A= B= STORE=
	@$(BIN)/tokenmill report --mix "$(call given,MIX)" --run "$(call given,RUN)" --a "$(A)" --b "$(B)" --store "$(STORE)"

card: $(VENV)/.share $(S3) ## write a mix's data card, its Croissant metadata, licences and recipes, for those who get it: MIX= STORE=
	@$(BIN)/tokenmill card --mix "$(MIX)" --store "$(STORE)"

model-card: $(VENV)/.trainer $(S3) ## write a run's model card, beside it and beside its export: RUN= LICENCE=apache-2.0 STORE=
	@$(BIN)/tokenmill model-card --run "$(RUN)" --licence "$(LICENCE)" --store "$(STORE)"

push: $(VENV)/.share $(S3) ## release a built mix on the hub, for others' DATA=<owner>/<name>: MIX= TO=<owner>/<name> STORE= (and HF_TOKEN)
	@$(BIN)/tokenmill push --mix "$(MIX)" --to "$(TO)" --store "$(STORE)"

classifier: $(READY) ## train a quality classifier from two folders of text: GOOD= BAD= OUT=quality.bin
	@$(BIN)/tokenmill classifier --good "$(GOOD)" --bad "$(BAD)" --out "$(OUT)"

verify: $(READY) ## reread everything that a mix rests on and name what does not hold: MIX= STORE= REMOVE=1
	@$(BIN)/tokenmill verify --mix "$(MIX)" --store "$(STORE)" --workers "$(WORKERS)" $(if $(REMOVE),--remove)

gc: $(READY) ## show what the store holds that nothing needs any longer; REMOVE=1 removes it: STORE=
	@$(BIN)/tokenmill gc --store "$(STORE)" $(if $(REMOVE),--remove)

plan: $(READY) ## what a mix from the hub would take, before anything is downloaded: MIX= TOKENS=10B NODES= WORKERS= STORE=
	@$(BIN)/python -m tools.plan --mix "$(MIX)" --tokens "$(TOKENS)" --nodes "$(NODES)" --workers "$(WORKERS)" --store "$(STORE)"

pretrain: $(VENV)/.trainer $(S3) ## train a model: MODEL= MIX= RUN= NPROC= TOKENS= STEPS= RESUME=1 SET="optim.lr=1e-3 …"
	@$(call built,$(MIX))
	@$(TRAIN) pretrain --model "$(MODEL)" --run "$(call given,RUN)" $(loop)

anneal: $(VENV)/.trainer $(S3) ## decay a run's learning rate to zero on MIX=olmoe-anneal or dolmino-100b: RUN= and as pretrain
	@$(call built,$(or $(call given,MIX),olmoe-anneal))
	@$(TRAIN) anneal --run "$(RUN)" $(loop)

upcycle: $(VENV)/.trainer $(S3) ## make a dense run the beginning of a mixture of experts: RUN=dense-small MODEL= NOISE=0.5 SEED= SET="…"
	@$(BIN)/python -m trainer upcycle --run "$(or $(call given,RUN),dense-small)" --model "$(MODEL)" --noise $(NOISE) --seed $(SEED) --store "$(STORE)" \
	  --mix "$(call given,MIX)" --tokens "$(TOKENS)" --set '$(SET)'

eval: $(VENV)/.trainer $(S3) ## score a model on tasks and held-out text: RUN=<run or folder> TASKS=in_loop|olmes|none|piqa,… ITEMS=200 MIX= CHECKPOINT=
	@$(BIN)/python -m trainer eval --run "$(RUN)" --tasks "$(TASKS)" --items $(ITEMS) --mix "$(call given,MIX)" --data "$(DATA)" \
	  --checkpoint "$(CHECKPOINT)" --store "$(STORE)"

ablation: $(VENV)/.trainer ## repeat an experiment of the paper: NAME= (none: list them; all; mix with A= B=) SEEDS= TOKENS= JOBS= TASKS=
	@$(BIN)/python -m trainer ablation --name "$(NAME)" --a "$(A)" --b "$(B)" --seeds $(SEEDS) --tokens "$(TOKENS)" --jobs $(JOBS) \
	  --tasks "$(TASKS)" --items $(ITEMS) --data "$(DATA)" --store "$(STORE)"

export: $(VENV)/.trainer $(S3) ## write a run's last checkpoint for transformers: RUN=
	@$(BIN)/python -m trainer export --run "$(RUN)" --store "$(STORE)"

generate: export TOKENMILL_PROMPT = $(value PROMPT)
generate: $(VENV)/.trainer $(S3) ## continue a text with a run's last checkpoint: RUN= PROMPT="…" TEMPERATURE=0
	@$(BIN)/python -m trainer generate --run "$(RUN)" --store "$(STORE)" --temperature $(TEMPERATURE) -- "$$TOKENMILL_PROMPT"

trace: $(VENV)/.trainer $(S3) ## list the documents that a step trained on: RUN= STEP=
	@$(BIN)/python -m trainer trace --run "$(RUN)" --store "$(STORE)" "$(STEP)"

analyze: $(VENV)/.trainer $(S3) ## what a model's routers do, tables and figures: RUN=<run or folder> MIX= TEXTS=<folder> TOKENS= CHECKPOINT= ADJACENT=1
	@$(BIN)/python -m trainer analyze --run "$(RUN)" --mix "$(call given,MIX)" --texts "$(TEXTS)" --tokens "$(TOKENS)" \
	  --checkpoint "$(CHECKPOINT)" --store "$(STORE)" $(if $(ADJACENT),--adjacent)

sft: $(VENV)/.adapt ## teach a run, or a Hugging Face folder, to answer: RUN= MIX=<recipe> DATA=sample|hub|<folder> STEPS= RESUME=1 SET="learning_rate=1e-4"
	@$(TRAIN) sft --run "$(RUN)" $(adapt)

dpo: $(VENV)/.adapt ## teach an adapted run which of two answers is preferred: RUN=olmoe-small-sft and as sft
	@$(TRAIN) dpo --run "$(or $(call given,RUN),olmoe-small-sft)" $(adapt)

kto: $(VENV)/.adapt ## teach an adapted run which answers are good: RUN=olmoe-small-sft and as sft
	@$(TRAIN) kto --run "$(or $(call given,RUN),olmoe-small-sft)" $(adapt)

report-picture: $(VENV)/.dev ## draw docs/report.png, README's picture, from the report on a mix: MIX= STORE=
	@$(BIN)/python -m tools.report_picture --mix "$(MIX)" --store "$(STORE)"

bench-train: $(VENV)/.dev ## measure a training step beside transformers and a dense model
	@$(BIN)/python -m tools.bench_train

bench: $(VENV)/.dev ## measure the pipeline on 250 MB of real text, beside dolma tokens
	@$(BIN)/python -m tools.bench --workers "$(WORKERS)"

bench-curation: $(VENV)/.dev ## measure filters, dedupe and their agreement beside datatrove and Dolma
	@$(BIN)/python -m tools.bench_curation

test: $(VENV)/.dev ## run the quick tests
	@$(BIN)/python -m pytest -q -m "not slow"

chaos: $(VENV)/.dev ## kill, fill the disk, flip bits, cut files, fail storage; nothing may be lost: MINUTES= SEED=
	@$(BIN)/python -m tools.chaos --minutes "$(MINUTES)" --seed "$(SEED)"

fuzz: $(VENV)/.dev ## feed damaged files to every reader and loader: MINUTES= SEED=
	@$(BIN)/python -m tools.fuzz --minutes "$(MINUTES)" --seed "$(SEED)" --workers "$(WORKERS)"

test-browser: $(VENV)/.dev ## run the tests that look at pages in Chromium; they leave screenshots/
	@$(BIN)/python -m pytest -q -m browser

test-docs: $(VENV)/.dev ## run every command of README and docs
	@$(BIN)/python -m pytest -q tests/docs

test-all: $(VENV)/.dev ## run all tests, the slow ones too
	@$(BIN)/python -m pytest -q

docs: $(VENV)/.docs ## build these pages as a site that needs no network: build/docs/index.html
	@$(BIN)/python -m sphinx -q --fail-on-warning --fresh-env --builder html docs build/docs && echo "build/docs/index.html"

lock: $(VENV)/.dev ## write requirements/*.lock anew from constraints.txt and the package index
	@$(BIN)/python -m tools.lock

audit: $(VENV)/.dev ## ask whether a locked package has known vulnerabilities: ADVISORIES=<checkout of pypa/advisory-database>
	@$(BIN)/python -m tools.audit $(if $(ADVISORIES),--advisories "$(ADVISORIES)")

lint: $(VENV)/.dev ## check style and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

clean: ## remove the default store, data/ (downloads included); .venv stays
	rm -rf data

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Python 3.11 to 3.13 is needed, $$($(PYTHON) --version 2>&1) was found; run make PYTHON=/path/to/python3.12 …"; exit 1; }
	@echo "creating $(VENV) (once, about a minute)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.ready: $(VENV)/bin/python pyproject.toml requirements/install.lock requirements/pipeline.lock
	@$(LOCKED)/install.lock && $(LOCKED)/pipeline.lock && PYTHONWARNINGS=ignore $(PIP) --no-index -e . && touch $@

$(VENV)/.s3: $(VENV)/.ready requirements/s3.lock
	@$(LOCKED)/s3.lock && touch $@

# torch's CPU build, where pip is told of an index or a folder that has it; else PyPI's, on Linux with CUDA's libraries.
$(VENV)/.trainer: $(VENV)/.ready requirements/torch-cpu.lock requirements/torch.lock requirements/trainer.lock
	@echo "installing what the trainer needs (once)"
	@$(LOCKED)/torch-cpu.lock 2>/dev/null || $(LOCKED)/torch.lock
	@$(LOCKED)/trainer.lock && touch $@

$(VENV)/.adapt: $(VENV)/.trainer requirements/adapt.lock
	@echo "installing what adaptation needs (once)"
	@$(LOCKED)/adapt.lock && touch $@

$(VENV)/.share: $(VENV)/.ready requirements/share.lock
	@$(LOCKED)/share.lock && touch $@

$(VENV)/.docs: $(VENV)/.ready requirements/docs.lock
	@$(LOCKED)/docs.lock && touch $@

$(VENV)/.dev: $(VENV)/.adapt $(VENV)/.share $(VENV)/.docs requirements/dev.lock
	@$(LOCKED)/dev.lock && touch $@

# A mix that is not there is built first; its length is the run's, unless it comes from the small sample.
# At a URL the trainer itself says what is missing.
built = case "$(STORE)" in *://*) ;; *) test -f "$(STORE)/mixes/$(1).lock.json" || case "$(1)" in */*|*\**|*\?*) ;; *) \
	  $(MAKE) --no-print-directory mix MIX="$(1)" TOKENS="$(if $(filter sample,$(DATA)),,$(TOKENS))" ;; esac ;; esac
