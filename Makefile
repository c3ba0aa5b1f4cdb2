# make demo   set up, then run the whole pipeline on generated tweets
# make test   set up, then run the tests
# make soak   run the long tests; docs/reliability.md and docs/statistics.md have their last results
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.set-up

# Tests run by make lowest and make newest, and the time limit in seconds for each step of making their environment.
TESTS ?= tests/model tests/data tests/engine
WITHIN ?= 1800

.PHONY: setup demo test lowest newest soak lint audit clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; make PYTHON=python3.12 …")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/bert-tweets demo output=demo

# One worker per core, at most eight, because each needs 1.5 GB: it loads torch and transformers twice.
test: setup
	$(BIN)/python -m pytest -n auto --maxprocesses=8 --dist=loadscope --durations=10

# Run tests with the lowest versions that pyproject.toml allows, or with the newest. Each environment takes 5 to 8 GB in
# ~/.cache/bert_tweets; if it cannot be made, the tests are skipped with a message.
lowest newest: setup
	$(BIN)/python tests/environments.py $@ --within $(WITHIN) $(TESTS)

soak: setup
	$(BIN)/python -m pytest -m soak -s --timeout=3000

# Not part of lint, because it queries a database of vulnerabilities over the network.
audit: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/pip-audit --skip-editable

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv demo .pytest_cache .mypy_cache .ruff_cache
