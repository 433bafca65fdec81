# Everything that people and machines run. Only python3 (3.11 or newer) with its venv module and make are needed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCAL_STAMP := $(VENV)/.cpm-local
DEV_STAMP := $(VENV)/.cpm-dev
CLIENT_STAMP := .venv-client/.cpm-client
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
UV ?= uv
COMPILE := $(UV) pip compile -q --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
	--no-annotate --no-header --python-version 3.11 --allow-unsafe

.PHONY: help venv venv-dev venv-client demo up test contract chaos bench lint requirements clean
.DEFAULT_GOAL := help

help:
	@echo "make demo          set up, run the main job on simulated AWS, prove the recovery, stop"
	@echo "make up            run everything on this machine until Ctrl-C (simulated AWS)"
	@echo "make test          lint, types, import rules, migrations and every test"
	@echo "make contract      how much of the API contract is implemented"
	@echo "make chaos bench   the long crash tests (CPM_CHAOS=long) and the measurements"
	@echo "make venv          only the environment, with the cpm command in $(BIN)"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "CPM needs Python 3.11 or newer; say which with: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "This Python has no venv module. On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The project itself is installed in place, without looking for anything on the network.
$(LOCAL_STAMP): requirements/local.txt pyproject.toml | $(BIN)/python
	@test -e $(DEV_STAMP) || $(PIP) install --require-hashes -r requirements/local.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV_STAMP): requirements/dev.txt pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes -r requirements/dev.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@ $(LOCAL_STAMP)

# The generator of API clients has its own environment: its pins would hold back those of the server.
$(CLIENT_STAMP): requirements/client.txt | $(BIN)/python
	$(BIN)/python -m venv .venv-client
	.venv-client/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r requirements/client.txt
	@touch $@

venv: $(LOCAL_STAMP)

venv-dev: $(DEV_STAMP)

venv-client: $(CLIENT_STAMP)

demo: venv
	$(BIN)/cpm demo

up: venv
	$(BIN)/cpm up --simulated-aws

lint: venv-dev
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test: lint venv-client
	$(BIN)/python -m tests.check_migrations
	$(BIN)/python -m pytest

contract: venv-dev
	$(BIN)/python -m tests.contract.report

chaos: venv-dev
	CPM_CHAOS=long $(BIN)/python -m pytest -m chaos -n 0 -rA

bench: venv-dev
	$(BIN)/python -m tests.benchmarks

requirements:
	$(COMPILE) pyproject.toml -o requirements/base.txt
	$(COMPILE) --extra local pyproject.toml -o requirements/local.txt
	$(COMPILE) --extra local --extra dev pyproject.toml -o requirements/dev.txt
	$(COMPILE) requirements/client.in -o requirements/client.txt

clean:
	rm -rf $(VENV) .venv-client build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
