# Everything runs from a virtual environment made here; only Python >= 3.11 and make are assumed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup lint types contracts check test bench clean

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

bench: setup ## measure this machine against the goals of the design; one figure: make bench FIGURE=admit
	$(BIN)/python -m tests.bench $(FIGURE) --json $(or $(JSON),bench.json)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
