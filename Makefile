# Everything runs from a virtual environment made here; only Python >= 3.11 and make are assumed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup lock demo test tests soak roll bench bench-engine honest detectors eval check lint types contracts hooks clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

setup: $(READY) ## virtual environment with the locked dependencies

# uv installs torch and its gigabytes three times as fast; pip, with its own settings, is there where uv finds no index.
$(READY): requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV): 6.5 GB when done, a few minutes, once" >&2
	@awk '/^[^ ]/ {on = /^uv==/} on' requirements.lock > $(VENV)/uv.lock
	$(BIN)/python -m pip install --quiet --require-hashes --requirement $(VENV)/uv.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --requirement requirements.lock \
		|| $(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

lock: setup ## the newest versions that pyproject.toml allows, with hashes and without addresses
	$(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --no-emit-index-url --no-annotate --no-header \
		--extra dev pyproject.toml --output-file requirements.lock

# Ctrl-C is how serving ends: make would call it an error
demo: setup ## the whole system here with traffic and a summary, then it keeps serving; ONCE=1 ends by itself
	@trap : INT; $(BIN)/sluice demo $(if $(ONCE),--once) $(ARGS); code=$$?; [ "$$code$(ONCE)" = 130 ] || exit $$code

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m deptry --no-ansi pipeline detectors inference dashboards
	$(BIN)/python -m deptry --no-ansi --ignore DEP002,DEP004 tests

types: setup
	$(BIN)/mypy

contracts: setup
	$(BIN)/lint-imports --no-cache

check: lint types contracts

hooks: setup ## run the checks before every commit
	$(BIN)/pre-commit install

# what takes seconds goes first; the types take one core for half a minute, so the tests begin beside them
test: lint contracts ## lint, types, import contracts, and every test
	@$(MAKE) --no-print-directory --jobs=2 types tests

tests: setup
	$(BIN)/python -m pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder

KILLS ?= 500
BROKERS ?= 1
STARVE ?= 1
soak: setup ## kill, stop and starve everything under load, then count: make soak KILLS=500 SEED=1 BROKERS=3 STARVE=0
	$(BIN)/python -m tests.faults.soak --kills $(KILLS) --brokers $(BROKERS) $(if $(SEED),--seed $(SEED)) \
		$(if $(KEEP),--keep $(KEEP)) $(if $(filter 0,$(STARVE)),--no-starve)

roll: setup ## roll a home of an older build to this one under load, then count: make roll FROM=COMMIT HOME_OF=FOLDER
	$(BIN)/python -m tests.faults.roll $(FROM) $(if $(HOME_OF),--home $(HOME_OF)) $(if $(KEEP),--keep $(KEEP))

bench: setup ## measure this machine against the goals of the design; one figure: make bench FIGURE=admit
	$(BIN)/python -m tests.bench $(FIGURE) --json $(or $(JSON),bench.json)

bench-engine: setup ## batches, watermark, prefix reuse and cold starts of the inference worker
	$(BIN)/python -m tests.bench inference --json $(or $(JSON),bench-engine.json)

HALF ?= closed
honest: setup ## what is refused and flagged of ordinary use, by this machine's files: make honest [PACKAGES=FOLDER] [DATA=FOLDER]
	$(BIN)/python -m tests.honest --half $(HALF) $(foreach folder,$(PACKAGES),--packages $(folder)) \
		$(if $(DATA),--data $(DATA)) $(ARGS)

# said before anything is set up
ifneq ($(filter detectors eval,$(MAKECMDGOALS)),)
ifeq ($(DATA),)
$(error give the folder of labelled rows that holds train.jsonl: make $(firstword $(MAKECMDGOALS)) DATA=FOLDER)
endif
endif

detectors: setup ## train the prompt scorer anew and print its tables: make detectors DATA=FOLDER [LABELS=FILE of labels]
	$(BIN)/python -m detectors.prompts.training $(if $(LABELS),--labels $(LABELS)) $(DATA)

eval: setup ## the bars of detection on labelled rows, on sources held out and on validation: make eval DATA=FOLDER
	$(BIN)/python -m detectors.prompts.training --tables $(DATA)
	$(BIN)/python -m detectors.evaluate $(DATA)
	$(BIN)/python -m detectors.pii.evaluate $(DATA)
	$(BIN)/python -m detectors.accounts.evaluate $(DATA)/extraction

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
