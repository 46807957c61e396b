# `make` prints what there is to do. Everything is installed into .venv; nothing outside this directory is touched.

PORT ?= 8000
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do $$p services/stack/machine.py 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
UV := UV_PYTHON_DOWNLOADS=never $(BIN)/uv
COMPILE := $(UV) pip compile --quiet --generate-hashes --python-version 3.11 --python-platform x86_64-manylinux_2_35 \
	--no-header --no-annotate --no-emit-index-url --no-emit-package vilix --no-emit-package vilix-proto
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help run test lint format proto proto-release lock system-deps clean
.DELETE_ON_ERROR:

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(INSTALLED) ## Start the whole system on 127.0.0.1:8000 (PORT=8001 for another port); Ctrl-C stops it
	@$(BIN)/vilix up --port $(PORT)

test: $(INSTALLED) ## Run all tests; T="-k name" passes arguments to pytest
	@$(BIN)/pytest $(T)

lint: $(INSTALLED) ## Check format, lint rules, types, imports and protos
	@$(BIN)/ruff format --check --quiet . || { echo "error: run make format"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports
	@$(BIN)/buf lint

format: $(INSTALLED) ## Format the code and apply safe fixes
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format --quiet .

proto: $(INSTALLED) ## Check the protos against the released ones and generate the stubs in proto/gen
	@$(BIN)/buf lint
	@$(BIN)/buf breaking --against proto/baseline.binpb
	@$(BIN)/python proto/generate.py proto/gen

proto-release: $(INSTALLED) ## Make today's protos the baseline that later changes must not break
	@$(BIN)/buf build -o proto/baseline.binpb

lock: $(INSTALLED) ## Resolve pyproject.toml again and write requirements/*.txt (newest versions, with hashes)
	@$(COMPILE) --upgrade pyproject.toml --extra local --extra dev --output-file requirements/local.txt >/dev/null
	@echo uv | $(COMPILE) --upgrade - --output-file requirements/uv.txt >/dev/null
	@git --no-pager diff --stat -- requirements 2>/dev/null || true

# Runlevel 1 keeps the packages from starting their services.
system-deps: ## Install the Debian packages that some tests use (needs root); without them those tests are skipped
	apt-get update -qq
	RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nginx-light redis-server

clean: ## Remove everything that was installed, prepared or written here
	rm -rf $(VENV) .cache .run .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist

# A sync is exact: what is not in the lock is removed. The packages of this repository are installed after it, editable.
$(INSTALLED): requirements/local.txt requirements/uv.txt pyproject.toml proto/pyproject.toml
	@test -n "$(PYTHON)" || { command -v python3 >/dev/null || { echo "error: python3 is missing; install Python 3.11 or 3.12" >&2; exit 1; }; \
		python3 services/stack/machine.py; exit 1; }
	@test -z "$(PYTHON)" || $(PYTHON) services/stack/machine.py
	@echo "Installing into $(VENV) with $$($(PYTHON) --version) (about 900 MB; half a minute with a fast connection) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@$(UV) pip sync --quiet --require-hashes --python $(BIN)/python requirements/local.txt
	@$(UV) pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python --editable . --editable proto
	@touch $@
