# Everything starts here, on a machine with nothing but Python >= 3.11 and make.

.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
# Rewritten whenever the lock or pyproject.toml is newer: setting up again is a matter of seconds.
STAMP := $(VENV)/.remora-setup
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
UV_VERSION := 0.13.9

# The first Python that is new enough; `make setup PYTHON=…` chooses another.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$python; break; }; done)

# Compiled once, not by each of the processes that tests and apps start: it is a third of what one needs to start.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup demo up test test-slow chaos bench lint format lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv with everything in it (every other target does so by itself)

$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Remora needs Python 3.11 or newer: install it, or name it with PYTHON=…" >&2; exit 1; }
	@echo "Setting up $(VENV): a few minutes the first time."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP) ## fly the year: ARGS=--exit ends by itself, ARGS="--speed 1000" paces it
	$(BIN)/python -m entities.flights.demo $(ARGS)

APP ?= entities.account:app
up: $(STAMP) ## run an app: APP=entities.account:app
	$(BIN)/remora up $(APP) $(ARGS)

ALONE_TESTS := $(addprefix tests/,architecture conformance simulation flights crash typing)
# The chaos first: other clusters beside it, even idle ones, take from the two cores that its nodes share.
RAY_TESTS := $(addprefix tests/,chaos e2e integration docs)

# The unit tests come first and alone, so that their time stands in the output; those that start Ray clusters come last,
# one after the other: they share clusters, and two at once would measure each other.
# Exit status 5 is pytest's "nothing selected".
test: $(STAMP) ## every test that is not slow: ARGS="-k fence" narrows it down
	$(PYTEST) -m "not slow" -n 3 $(ARGS) tests/unit || [ $$? -eq 5 ]
	$(PYTEST) -m "not slow" -n 3 $(ARGS) $(ALONE_TESTS) || [ $$? -eq 5 ]
	$(PYTEST) -m "not slow" $(ARGS) $(RAY_TESTS) || [ $$? -eq 5 ]

test-slow: $(STAMP) ## the slow tests
	$(PYTEST) -m slow -n 2 $(ARGS) tests/unit $(ALONE_TESTS) || [ $$? -eq 5 ]
	$(PYTEST) -m slow $(ARGS) $(RAY_TESTS) || [ $$? -eq 5 ]

chaos: export RAY_AUTH_MODE := disabled
chaos: export RAY_USAGE_STATS_ENABLED := 0
chaos: $(STAMP) ## load, faults by a seeded plan and a judge: ARGS="--seed 7 --minutes 10"
	$(BIN)/python -m tests.chaos $(ARGS)

# Ray is told what the tests tell it too (tests/conftest.py): no token files, no reports.
bench: export RAY_AUTH_MODE := disabled
bench: export RAY_USAGE_STATS_ENABLED := 0
bench: $(STAMP) ## measure; prints and writes .bench/results.json: ONLY=commands.sqlite runs one
	$(BIN)/python -m tests.bench $(if $(ONLY),--only $(ONLY)) $(ARGS)

lint: export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1 # it would ask the network for a newer release
lint: $(STAMP) ## ruff, mypy, pyright, the import contracts, and what the shipped apps have written so far
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/remora schema check entities.account:app --file entities/schema/bank.json
	$(BIN)/remora schema check entities.counter:app --file entities/schema/counters.json
	$(BIN)/remora schema check entities.flights:app --file entities/schema/flights.json

format: $(STAMP) ## let ruff format and mend what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# One version of each package for every Python from 3.11 on; no index address, so that any mirror serves.
lock: $(STAMP) ## write requirements.lock anew from pyproject.toml: ARGS=--upgrade takes new releases
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --generate-hashes \
		--no-emit-index-url --no-emit-find-links --fork-strategy fewest --custom-compile-command "make lock" \
		$(ARGS) --output-file requirements.lock pyproject.toml

clean: ## remove .venv and what the tools left behind (not .remora, which holds your data)
	rm -rf $(VENV) .bench .chaos .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist
