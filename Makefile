# Set-up is repeated in seconds: it runs again only when the lock or the package's definition changes.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/ready
BIN := $(VENV)/bin
# Where pip finds torch; for a CPU-only build: make TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

.PHONY: run test test-slurm lint bench format clean-venv
.DEFAULT_GOAL := run

run: $(READY)  ## set-up, then the embedded experiment, to results/demo/verdict/verdict.md and report.html
	$(BIN)/snakemake --profile profiles/local
	@cat results/demo/verdict/verdict.md
	@echo "report: results/demo/report.html"

test: lint  ## set-up, linters, type check, tests; those on a Slurm cluster where one can be started, or why not
	$(BIN)/pytest

test-slurm: $(READY)  ## the tests on a Slurm cluster of this machine's own; fails where none can be started
	LATENTWIRE_REQUIRE_SLURM=1 $(BIN)/pytest tests/slurm

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/mypy

bench: $(READY)  ## the short benchmarks, on the embedded default: minutes
	$(BIN)/python benchmarks/gpu.py --shapes tiny
	$(BIN)/python benchmarks/data_preparation.py --samples 2000
	$(BIN)/python benchmarks/pca.py --k 16 --sizes 8192 80000
	$(BIN)/python benchmarks/phase1.py --k 16
	$(BIN)/python benchmarks/token_counts.py --occurrences 20000000 --width 256
	$(BIN)/python benchmarks/evaluation.py --repeats 1
	$(BIN)/python benchmarks/dry_run.py --runs 2 10 --repeats 1

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
