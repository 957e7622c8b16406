# Set-up is repeated in seconds: it runs again only when the lock or the package's definition changes.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/ready
BIN := $(VENV)/bin
# Where pip finds torch; for a CPU-only build: make TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

# Snakemake, matplotlib and the hub's client keep caches at home; if that can't be written, here.
ifeq ($(shell test -w "$$HOME" && echo writable),)
export XDG_CACHE_HOME ?= $(CURDIR)/.cache
endif

# The real model's base: the PyPI wheel, or the hub (not quantised: another model, with results of its own).
BASE ?= wheel
# Where SQuAD v1.1 comes from: the hub, or a folder with the official train-v1.1*.json and dev-v1.1*.json.
SQUAD ?= hub
READER := smollm2-135m$(if $(filter hub,$(BASE)),-hub)-squad
REAL_CONFIG := config/smollm2.yaml $(if $(filter hub,$(BASE)),config/smollm2-hub.yaml)
# Which codecs "make frontier" compares: config/smollm2-frontier.yaml, further ones (config/smollm2-further.yaml), or trained
# ones with random errors of their size (config/smollm2-noise.yaml).
FRONTIER ?= frontier
# How long "make campaign" tries.
MINUTES ?= 60

.PHONY: run real real-quick frontier error reader check test test-slurm test-real campaign lint bench settings format clean-venv
.DEFAULT_GOAL := run

run: $(READY)  ## set-up, then the embedded experiment, to results/demo/verdict/verdict.md and report.html
	$(BIN)/snakemake --profile profiles/local
	@$(BIN)/python workflow/scripts/summarise.py --verdict results/demo/verdict/verdict.json

real: reader  ## the experiment on a real model and real text: 2.5 hours on two cores; continues after any stop
	$(BIN)/python workflow/scripts/follow.py --root results/$(READER) --durations resources/$(READER)/durations.tsv \
	  -- $(BIN)/snakemake --profile profiles/local --configfile $(REAL_CONFIG)
	@$(BIN)/python workflow/scripts/summarise.py --verdict results/$(READER)/verdict/verdict.json

real-quick: reader  ## every arm and ratio with one question per article and one seed: 20 minutes
	$(BIN)/python workflow/scripts/follow.py --root results/$(READER)-quick \
	  --durations resources/$(READER)/durations-quick.tsv \
	  -- $(BIN)/snakemake --profile profiles/local --configfile $(REAL_CONFIG) config/smollm2-quick.yaml \
	  --config experiment=$(READER)-quick
	@$(BIN)/python workflow/scripts/summarise.py --verdict results/$(READER)-quick/verdict/verdict.json

frontier: reader  ## how few bits per table parameter: quantisers in use beside the plan's codec, on the real model
	$(BIN)/python workflow/scripts/follow.py --root results/$(READER)-$(FRONTIER) \
	  --durations resources/$(READER)/durations-$(FRONTIER).tsv \
	  -- $(BIN)/snakemake --profile profiles/local \
	  --configfile $(REAL_CONFIG) config/smollm2-quick.yaml config/smollm2-$(FRONTIER).yaml \
	  --config experiment=$(READER)-$(FRONTIER)
	@$(BIN)/python workflow/scripts/frontier.py --root results/$(READER)-$(FRONTIER)
	@$(BIN)/python workflow/scripts/findings.py --root results/$(READER)-$(FRONTIER)

error: reader  ## what makes a codec's error harmful, and what training adds, on the real model: two hours
	$(BIN)/python workflow/scripts/follow.py --root results/$(READER)-error \
	  --durations resources/$(READER)/durations-error.tsv \
	  -- $(BIN)/snakemake --profile profiles/local \
	  --configfile $(REAL_CONFIG) config/smollm2-error.yaml --config experiment=$(READER)-error
	@$(BIN)/python workflow/scripts/frontier.py --root results/$(READER)-error

reader: $(READY)  ## the real model's directory and the SQuAD files that it is tuned and evaluated on
	$(BIN)/python workflow/scripts/gather_squad.py --source $(SQUAD) \
	  --articles resources/smollm2-135m-squad/articles.json --output data/squad
	$(BIN)/python workflow/scripts/make_reader.py --source $(BASE) --lora resources/smollm2-135m-squad \
	  --output models/$(READER)

check: lint  ## linters, type check and the fast tests: a minute on two cores
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/unit -m "not slow" --numprocesses 2 --dist loadfile --quiet

# Folders in the order of their files' length, so that the last to run are short.
test: lint  ## set-up, linters, type check, tests; those on a Slurm cluster if one can be started, or why not
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/programs tests/workflow tests/unit --numprocesses 2 --dist loadfile \
	  --no-loadscope-reorder
	$(BIN)/pytest tests/slurm tests/demo --numprocesses 2 --dist loadfile

test-slurm: $(READY)  ## the tests on a Slurm cluster of this machine's own; fails if none can be started
	LATENTWIRE_REQUIRE_SLURM=1 $(BIN)/pytest tests/slurm

test-real: $(READY)  ## the real model's tests; skipped, with the reason, if its wheel can't be had
	$(BIN)/pytest tests/real

campaign: $(READY)  ## kills, damage, faults, fuzz and whole experiments for MINUTES (60); continues in results/campaign after any stop
	OMP_NUM_THREADS=1 nice -n 10 $(BIN)/python tests/campaign --minutes $(MINUTES)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/mypy

settings: $(READY)  ## config.yaml, its schema and docs/configuration.md from src/latentwire/settings.py
	$(BIN)/python workflow/scripts/write_settings.py

bench: $(READY)  ## the short benchmarks, on the embedded default: minutes
	$(BIN)/python benchmarks/gpu.py --shapes tiny
	$(BIN)/python benchmarks/data_preparation.py --samples 2000
	$(BIN)/python benchmarks/codecs.py
	$(BIN)/python benchmarks/pca.py --k 16 --sizes 8192 80000
	$(BIN)/python benchmarks/phase1.py --k 16
	$(BIN)/python benchmarks/head_loss.py --tokens 200 --vocab 4096
	$(BIN)/python benchmarks/token_counts.py --occurrences 20000000 --width 256
	$(BIN)/python benchmarks/evaluation.py --repeats 1
	$(BIN)/python benchmarks/dry_run.py --runs 2 10 --repeats 1

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/snakefmt Snakefile rules

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed: make PYTHON=..." >&2; exit 1; }
	@echo "Set-up: torch, transformers, Snakemake and what they need, into $(VENV): 2 GB, several more with CUDA; repeated, seconds."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@# Where a checkout's path has spaces, pip starts programs through a shell, which expands a "$$" in that path.
	@grep -lI "^'''exec'" $(BIN)/* | xargs -r sed -i "2s|^'''exec' \".*/python[0-9.]*\" |'''exec' \"\$${0%/*}/python\" |"
	touch $@

clean-venv:
	rm -rf $(VENV)
