# Everything runs from a virtual environment made here; only Python >= 3.11 and make are assumed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup lint types contracts check test soak clean

setup: $(READY) ## virtual environment with the locked dependencies

$(READY): requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

lint: setup
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

contracts: setup
	$(BIN)/lint-imports --no-cache

check: lint types contracts

test: check ## lint, types, import contracts, then every test
	$(BIN)/python -m pytest

KILLS ?= 500
BROKERS ?= 1
soak: setup ## kill every process at random under load, then count: make soak KILLS=500 SEED=1 BROKERS=3
	PYTHONPATH=. $(BIN)/python tests/faults/soak.py --kills $(KILLS) --brokers $(BROKERS) $(if $(SEED),--seed $(SEED))

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
