# Set-up is repeated in seconds: it runs again only when the lock or the package's definition changes.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/ready
BIN := $(VENV)/bin
# Where pip finds torch; for a CPU-only build: make TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

.PHONY: run test lint bench format clean-venv
.DEFAULT_GOAL := run

run: $(READY)  ## set-up, then the embedded experiment, to results/demo/verdict/verdict.md and report.html
	$(BIN)/snakemake --profile profiles/local
	@cat results/demo/verdict/verdict.md
	@echo "report: results/demo/report.html"

test: lint  ## set-up, linters, type check, tests
	$(BIN)/pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/mypy

bench: $(READY)  ## the short benchmarks
	$(BIN)/python benchmarks/gpu.py --shapes tiny

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/snakefmt Snakefile rules

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed: make PYTHON=..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

clean-venv:
	rm -rf $(VENV)
