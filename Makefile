# Everything a developer or a first user types. A second run is quick: stamp files in .venv remember what is done.
#   make serve ARGS="--port 8001"      options go to `quire serve`
#   make install TORCH="torch==2.11.0" another build of torch
#   make install PYTHON=python3.12     another interpreter

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
IS_NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c '$(IS_NEW_ENOUGH)' 2>/dev/null && echo $$p && break; done)
TORCH ?= torch==2.13.0
ARGS ?=
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# torch is installed by its own line, so that whatever build the machine has an index for is kept: its device
# libraries are not locked, everything else is.
UNLOCKED := torch triton cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas nvidia-cuda-cccl nvidia-cuda-cupti \
	nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile nvidia-curand \
	nvidia-cusolver nvidia-cusparse nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 \
	nvidia-nvtx
LOCK := $(BIN)/uv pip compile pyproject.toml --quiet --generate-hashes --universal --python-version 3.11 \
	--custom-compile-command "make lock" --no-annotate --extra build $(UNLOCKED:%=--no-emit-package %)

# mypy takes a core for most of a minute, and the first tests take one as well.
define tests_beside_types
echo "$(BIN)/mypy beside $(BIN)/python -m pytest $(1)"; \
	$(BIN)/mypy >$(VENV)/mypy.log 2>&1 & types=$$!; \
	$(BIN)/python -m pytest $(1); tests=$$?; \
	wait $$types; found=$$?; cat $(VENV)/mypy.log; \
	test $$tests -eq 0 -a $$found -eq 0
endef

.PHONY: help install install-test serve test test-all page test-page bench audit lock clean

help:
	@echo "make serve      serve the built-in model on http://127.0.0.1:8000 (installs first)"
	@echo "make test       lint, types and tests (installs first);  make test-all  the slow tests too"
	@echo "make bench      measure a running server;  make lock  renew the locked versions;  make clean"
	@echo "make page       build the page from ops/page (needs Node 20);  make test-page  try it in Chromium"
	@echo "make audit      ask the advisory databases about the locked versions (ARGS=--strict: a skip fails)"

install: $(VENV)/.installed

install-test: $(VENV)/.installed-test

serve: install
	@exec $(BIN)/quire serve $(ARGS)

bench: install
	@exec $(BIN)/quire bench $(ARGS)

audit: install
	@$(BIN)/python -m ops.audit --also "$(TORCH)" $(ARGS)

test: install-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(call tests_beside_types,-q $(ARGS))

test-all: install-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(call tests_beside_types,-q -m "slow or not slow" $(ARGS))

page:
	cd ops/page && npm ci --ignore-scripts --no-audit --no-fund && npm run --silent check && npm run --silent build

test-page: install-test
	$(PIP) install "playwright>=1.50"
	$(BIN)/python -m pytest -q -m page $(ARGS)

lock: $(BIN)/python
	$(PIP) install uv
	$(LOCK) --output-file requirements.lock
	$(LOCK) --extra test --constraint requirements.lock --output-file requirements-test.lock
	echo "triton==3.6.0 ; sys_platform == 'linux'" | $(BIN)/uv pip compile - --quiet --generate-hashes --universal \
		--python-version 3.11 --no-annotate --no-deps --custom-compile-command "make lock" \
		--output-file requirements-triton.lock

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Error: Quire needs Python 3.11 or later; none was found. Install one, or name \
	it: make install PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c '$(IS_NEW_ENOUGH)' || { echo "Error: $(PYTHON) is older than Python 3.11. Name a later one: \
	make install PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Making $(VENV) with $(PYTHON) ..."
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "Error: $(PYTHON) cannot make a virtual environment. \
	Install its venv module (on Debian: python3-venv)." >&2; exit 1; }

$(VENV)/.torch: $(BIN)/python requirements.lock
	@echo "Installing the locked packages ..."
	@$(PIP) install --require-hashes --no-deps --requirement requirements.lock
	@echo "Installing $(TORCH) ..."
	@$(PIP) install "$(TORCH)" || { echo "Error: $(TORCH) could not be installed. Quire needs torch 2.11 or later; \
	name a build that your package index has: make install TORCH='torch==2.11.0'" >&2; exit 1; }
	@touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@echo "Compiling the CPU kernels ..."
	@$(BIN)/python -m batching.warm_up
	@touch $@
	@echo "Installed: $(BIN)/quire"

$(VENV)/.installed-test: $(VENV)/.installed requirements-test.lock
	@echo "Installing the locked test packages ..."
	@$(PIP) install --require-hashes --no-deps --requirement requirements-test.lock
	@$(BIN)/python -c 'import triton' 2>/dev/null || \
		$(PIP) install --require-hashes --no-deps --requirement requirements-triton.lock || \
		echo "No Triton for this machine: the tests of the GPU kernels are skipped."
	@touch $@
