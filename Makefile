# make help lists what there is. PYTHON and ARGS can be given: make run PYTHON=python3.11 ARGS="algo=rlpd seed=1"

PYTHON ?= $(shell for name in python3.12 python3.11 python3; do \
	"$$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1 \
	&& echo "$$name" && break; done)
VENV ?= .venv
CLAIM ?= wsrl
ARGS ?=
STAMP := $(VENV)/.installed
BIN := $(VENV)/bin

.PHONY: run test test-slow lint claims clean help
.DEFAULT_GOAL := help

run: $(STAMP)  ## set everything up and train the default: WSRL on the embedded maze (ARGS="algo=... seed=...")
	$(BIN)/python -m experiments.run algo=wsrl $(ARGS)

test: $(STAMP) lint  ## the fast tests, style and types
	$(BIN)/python -m pytest -q -n 2 --dist loadfile $(ARGS)

test-slow: $(STAMP)  ## the tests that need minutes each
	$(BIN)/python -m pytest -q -m slow $(ARGS)

lint: $(STAMP)  ## style and types only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

claims: $(STAMP)  ## re-check a paper's central claim at CPU scale (CLAIM=wsrl)
	$(BIN)/python -m experiments.claims $(CLAIM) $(ARGS)

clean:  ## remove the virtual environment, caches and build outputs; runs stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or 3.12 found; give one: make run PYTHON=/path/to/python" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[envs,mjx,figures,sweep,dev]' -c constraints.txt
	@touch $@
