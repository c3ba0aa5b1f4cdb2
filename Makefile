# make demo   sets up, then walks the whole road on generated tweets
# make test   sets up, then runs the tests
# make soak   long campaigns, whose last figures are in docs/reliability.md and docs/statistics.md
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.set-up

# What make lowest and make newest run, and the seconds that each step of making their environment may take.
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

# A worker per core; each holds torch and transformers twice (1.5 GB), hence no more than eight.
test: setup
	$(BIN)/python -m pytest -n auto --maxprocesses=8 --dist=loadscope --durations=10

# The versions that pyproject.toml declares as the lowest, or the newest there are. Each environment takes 5 to 8 GB
# in ~/.cache/bert_tweets; where it cannot be made, the tests are skipped with a message.
lowest newest: setup
	$(BIN)/python tests/environments.py $@ --within $(WITHIN) $(TESTS)

soak: setup
	$(BIN)/python -m pytest -m soak -s --timeout=3000

# Asks the registry of advisories, so it is no part of lint, which needs no network.
audit: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/pip-audit --skip-editable

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv demo .pytest_cache .mypy_cache .ruff_cache
