# Two commands: `make demo` (install, run the main job; needs no GPU) and `make test` (install, run every check). A third asks the
# engines themselves: `make test-engines` gives every launch command of a matrix of plans to the real parsers of vLLM and SGLang.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

ENGINES := .venv-engines
ENGINE_PYTHON := $(ENGINES)/bin/python
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-engines engines bench clean
.DEFAULT_GOAL := demo

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/planner probe 4x-rtx-3090-bridged
	$(BIN)/planner recommend llama-3.1-70b --topology 4x-rtx-3090-bridged --quant awq --top 3

test: $(VENV)/.tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/pytest

# vLLM and SGLang as far as their parsers reach without a GPU: about 4 GB and some minutes of network
$(ENGINES)/.installed: tests/engines/real/requirements.txt
	rm -rf $(ENGINES)
	$(PYTHON) -m venv $(ENGINES)
	$(ENGINE_PYTHON) $(PIP_INSTALL) --requirement $<
	$(ENGINE_PYTHON) $(PIP_INSTALL) --no-deps vllm==0.33.0 sglang==0.5.23 xgrammar==0.2.8
	touch $@

engines: $(ENGINES)/.installed

test-engines: $(VENV)/.tested $(ENGINES)/.installed
	PYTHONPATH=tests $(BIN)/python tests/engines/real/check.py $(ENGINE_PYTHON)

bench: $(VENV)/.installed
	$(BIN)/python scripts/benchmark.py

clean:
	rm -rf $(VENV) $(ENGINES) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build
