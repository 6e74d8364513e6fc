# The front door. `make` alone lists every target; make adds nothing but set-up to the program `tokenmill`.

MIX     ?= olmoe-mix
DATA    ?= sample
STORE   ?= data
TOKENS  ?=
WORKERS ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
SOURCES ?=
SCALE   ?=
FORMAT  ?= table
Q       ?=
PYTHON  ?= python3

VENV := .venv
BIN  := $(VENV)/bin
PIP  := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
export OMP_WAIT_POLICY = PASSIVE

.DEFAULT_GOAL := help
.PHONY: help setup mix stats sql verify bench test test-all lint clean

help: ## list every target
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "Variables: MIX=$(MIX) DATA=sample|hub|<folder> STORE=$(STORE) TOKENS=50M WORKERS=$(WORKERS) SOURCES=a,b SCALE=1 FORMAT=table|csv|json"

setup: $(VENV)/.ready ## create .venv with everything that the pipeline needs

mix: $(VENV)/.ready ## build a mix: MIX= DATA= STORE= TOKENS= WORKERS= SOURCES= SCALE=1
	@$(BIN)/tokenmill mix --mix "$(MIX)" --data "$(DATA)" --store "$(STORE)" --tokens "$(TOKENS)" --workers "$(WORKERS)" \
	  --sources "$(SOURCES)" $(if $(SCALE),--scale)

stats: $(VENV)/.ready ## what a mix holds, what was dropped and why, what each stage cost: MIX= STORE=
	@$(BIN)/tokenmill stats --mix "$(MIX)" --store "$(STORE)"

sql: export TOKENMILL_QUERY = $(value Q)
sql: $(VENV)/.ready ## query the catalog, or open a DuckDB shell on it: Q="SELECT …" FORMAT=table|csv|json
	@$(BIN)/tokenmill sql --mix "$(MIX)" --store "$(STORE)" --format "$(FORMAT)" -- "$$TOKENMILL_QUERY"

verify: $(VENV)/.ready ## reread everything that a mix rests on and name what does not hold: MIX= STORE=
	@$(BIN)/tokenmill verify --mix "$(MIX)" --store "$(STORE)" --workers "$(WORKERS)"

bench: $(VENV)/.dev ## measure the pipeline on 250 MB of real text, beside dolma tokens
	@$(BIN)/python -m tools.bench --workers "$(WORKERS)"

test: $(VENV)/.dev ## run the quick tests
	@$(BIN)/python -m pytest -q -m "not slow"

test-all: $(VENV)/.dev ## run all tests, the slow ones too
	@$(BIN)/python -m pytest -q

lint: $(VENV)/.dev ## check style and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

clean: ## remove the default store, data/ (downloads included); .venv stays
	rm -rf data

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Python 3.11 to 3.13 is needed, $$($(PYTHON) --version 2>&1) was found; run make PYTHON=/path/to/python3.12 …"; exit 1; }
	@echo "creating $(VENV) (once, about a minute)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.ready: $(VENV)/bin/python pyproject.toml constraints.txt
	@$(PIP) -e . && touch $@

$(VENV)/.dev: $(VENV)/.ready
	@$(PIP) -e ".[trainer,dev]" && touch $@
