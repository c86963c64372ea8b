# Everything starts here. `make demo` and `make test` need only Python (3.11 or newer), pip and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# PyTorch first and pinned: left to the resolver it may become a build for another machine.
TORCH := $(shell grep '^torch==' constraints.txt)
# Page faults are slow on many virtual machines; keeping freed memory makes training several times faster there.
FAST_MALLOC := MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=1000000000000 MALLOC_TOP_PAD_=268435456
QUIET := HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 TRL_EXPERIMENTAL_SILENCE=1 TOKENIZERS_PARALLELISM=false

.PHONY: demo test test-all lint types format bench clean

demo: $(VENV)/.ready ## full against random against UDS on generated data, with a report
	$(FAST_MALLOC) $(QUIET) $(BIN)/uds demo

test: lint types ## lint, types and the fast tests
	$(QUIET) $(BIN)/python -m pytest -n auto -m "not slow"

test-all: lint types ## everything, the slow tests too
	$(QUIET) $(FAST_MALLOC) $(BIN)/python -m pytest -n auto

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.ready
	$(BIN)/python benchmarks/scoring.py

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[cli,trl,lightning]" --group test --group dev
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .coverage
