# Everything runs in a virtual environment of this checkout, made on first use and made good when
# pyproject.toml or constraints.txt change. Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# -qq: warnings about the places where pip looked in vain are no news to anybody here.
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMP) ## run a small study on the shipped data, with its report in out/demo
	@$(BIN)/modicum demo --out out/demo

test: $(STAMP) ## run the tests (some of them: make test ARGS="-k pool")
	@$(BIN)/python -m pytest $(ARGS)

lint: $(STAMP) ## check style, formatting and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(STAMP) ## measure everything anew, by every benchmarks/*.py: about a day
	@set -e; none=1; for file in benchmarks/*.py; do \
		if [ -f "$$file" ]; then none=; echo "== $$file"; $(BIN)/python "$$file"; fi; \
	done; [ -z "$$none" ] || echo "There is nothing to run: benchmarks/ holds no .py file."

clean: ## remove the environment, caches and build outputs; studies in out/ stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch goes first, alone and in its exact version, so that the build which is offered here is taken and
# no later requirement chooses another one.
$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: there is no '$(PYTHON)'; Modicum needs Python 3.11 or newer: make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "make: Modicum needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1): make PYTHON=/path/to/python"; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { rm -rf $(VENV); $(PYTHON) -m venv $(VENV); }
	@echo "Installing into $(VENV): a minute or two, once."
	@$(PIP) "$$(grep '^torch==' constraints.txt)"
	@$(PIP) -e '.[dev]'
	@touch $@
