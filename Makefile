# `make run` and `make test` do all the set-up on a fresh machine; `make help` lists the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# First and by its exact version, so that nothing pulls another build: PyPI's for Linux brings CUDA,
# several gigabytes that nothing here uses. So it comes from PyTorch's index of CPU builds, unless
# pip was given an index of somebody's own, or that one can't be reached: then it is what pip finds.
TORCH ?= torch==2.13.0
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

RECIPE := $(shell cat pyproject.toml constraints.txt Makefile | cksum | cut -d ' ' -f 1)
RUN_STAMP := $(VENV)/.run-$(RECIPE)
DEV_STAMP := $(VENV)/.dev-$(RECIPE)
# For a comparison only, in an environment of its own: nothing of ttcl imports it.
LITELLM := litellm[proxy]==1.108.7
LITELLM_VENV := .venv-litellm
ROUTER := vllm-router==0.1.17
ROUTER_VENV := .venv-router
ROUTER_STAMP := $(ROUTER_VENV)/.recipe-$(firstword $(shell echo '$(ROUTER)' | cksum))
LITELLM_STAMP := $(LITELLM_VENV)/.recipe-$(firstword $(shell echo '$(LITELLM)' | cksum))
# Processes that share the tests; each may load an embedder and a model server, a gigabyte or two.
WORKERS ?= 2
CLIENTS_VENV := .venv-clients
CLIENTS_STAMP := $(CLIENTS_VENV)/.recipe-$(firstword $(shell cat requirements-clients.txt tests/clients/matrix/js/package.json | cksum))
LM_EVAL_VENV := .venv-lm-eval
LM_EVAL_STAMP := $(LM_EVAL_VENV)/.recipe-$(firstword $(shell cksum requirements-lm-eval.txt))

# Install a package of Debian's or Ubuntu's, as root or with sudo.
apt = (APT=$$(test $$(id -u) = 0 || echo sudo); $$APT apt-get update -qq && \
	DEBIAN_FRONTEND=noninteractive $$APT apt-get install -qq -y --no-install-recommends $(1))

export HF_HUB_OFFLINE ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup run demo test test-clients test-hostile browser postgres compose lm-eval litellm router test-vllm lint format release bench-serving bench-check clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

# The stamps are named by the checksum of what they install, and written last.
$(RUN_STAMP):
	@echo "Setting up $(VENV): about three minutes and 2 GB, once"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip config list | grep index-url > /dev/null || $(BIN)/pip install --quiet --retries 0 \
		--timeout 15 --index-url $(TORCH_INDEX) --no-deps $(TORCH) 2> /dev/null \
		|| echo "$(TORCH_INDEX) can't be reached: torch may come with CUDA (several gigabytes more)"
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[local]'
	$(BIN)/ttcl engine --fetch > /dev/null
# The embedder for OpenVINO; what can't be made here is made, or reported, at the first start.
	-$(BIN)/python -W ignore -m app.upstream.exported_model > /dev/null
	touch $@

$(DEV_STAMP): $(RUN_STAMP)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[local,postgres,otel,bench,dev]'
	touch $@

setup: $(DEV_STAMP) ## Install all that running, testing and measuring need

run: $(RUN_STAMP) ## Start the embedded model and the gateway, ask a first question, keep serving
	$(BIN)/ttcl serve --first-question

demo: $(RUN_STAMP) ## Sixty tickets with and without experience, and a curve (DATA=file.jsonl for your own)
	$(BIN)/ttcl demo $(if $(DATA),--data $(DATA))

test: $(DEV_STAMP) ## Every test that needs no extra server (WORKERS=1: one after another)
	$(BIN)/python -m pytest -m 'not vllm' -n $(WORKERS) --dist loadfile --no-loadscope-reorder

$(CLIENTS_STAMP):
	$(PYTHON) -m venv --clear $(CLIENTS_VENV)
	$(CLIENTS_VENV)/bin/pip install --quiet --no-compile --no-deps -r requirements-clients.txt
	cd tests/clients/matrix/js && npm install --no-audit --no-fund --no-package-lock --silent
	touch $@

test-clients: $(DEV_STAMP) $(CLIENTS_STAMP) lm-eval ## Real clients of many kinds against a gateway, and a table (by hand; needs Node 20)
	$(BIN)/python -m tests.clients.matrix.run

browser: ## Install the Chromium that the console's tests drive (Debian, Ubuntu; as root or with sudo)
	command -v chromium || $(call apt,chromium)

postgres: ## Install the PostgreSQL that the store's tests start (Debian, Ubuntu; as root or with sudo)
	command -v pg_ctl || ls /usr/lib/postgresql/*/bin/pg_ctl || $(call apt,postgresql)

compose: ## Install what checks docker-compose.yml and nginx.conf (Debian, Ubuntu; as root or with sudo)
	docker compose version || command -v docker-compose || $(call apt,docker-compose)
	command -v nginx || $(call apt,nginx-light)

$(LM_EVAL_STAMP): requirements-lm-eval.txt
	$(PYTHON) -m venv --clear $(LM_EVAL_VENV)
	$(LM_EVAL_VENV)/bin/pip install --quiet --no-compile --no-deps -r $<
	touch $@

$(LITELLM_STAMP):
	$(PYTHON) -m venv --clear $(LITELLM_VENV)
	$(LITELLM_VENV)/bin/pip install --quiet '$(LITELLM)'
	touch $@

$(ROUTER_STAMP):
	$(PYTHON) -m venv --clear $(ROUTER_VENV)
	$(ROUTER_VENV)/bin/pip install --quiet '$(ROUTER)'
	touch $@

router: $(ROUTER_STAMP) ## Install the compiled router that benchmarks.serving.proxy compares with (100 MB)

litellm: $(LITELLM_STAMP) ## Install the proxy that benchmarks.serving.proxy compares with (750 MB)

lm-eval: $(LM_EVAL_STAMP) ## Install lm-eval for its tests, in .venv-lm-eval (half a minute, 700 MB)

test-vllm: $(DEV_STAMP) engine-vllm ## The end-to-end tests against a real vLLM server
	TTCL_TEST_VLLM=1 $(BIN)/python -m pytest -m vllm

test-hostile: $(DEV_STAMP) ## Floods by one client, and what another one notices (ten minutes at most)
	$(BIN)/python -m benchmarks.safety.hostile

lint: $(DEV_STAMP) ## ruff, mypy, import-linter (which way imports point) and hadolint (the Dockerfile)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

release: $(DEV_STAMP) ## Build wheel and source archive, and try both in fresh environments (3 minutes, 2 GB)
	$(BIN)/pip install --quiet -c constraints.txt build
	$(BIN)/python -m tests.release --torch '$(TORCH)'

bench-serving: $(DEV_STAMP) ## Added latency of off and steer against an instant upstream
	$(BIN)/python -m benchmarks.serving.latency

bench-check: $(DEV_STAMP) ## Compare a short run with the checked-in ratios (two minutes)
	$(BIN)/python -m benchmarks.serving.check

clean: ## Remove the environments and all that the service has stored here
	rm -rf $(VENV) .venv-vllm $(LM_EVAL_VENV) $(LITELLM_VENV) $(ROUTER_VENV) $(CLIENTS_VENV) tests/clients/js/node_modules tests/clients/matrix/js/node_modules .ttcl build dist *.egg-info

engine-vllm: $(RUN_STAMP)
include Makefile.engine.mk
