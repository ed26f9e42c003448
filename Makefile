# Everything runs in .venv, which `make setup` makes and every other target depends on.
PROFILE ?= demo
CORES   ?= all
PYTHON  ?= python3
VENV    ?= .venv
# Linux without a GPU: make setup TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
# make grid: which rows of data/grid.csv, as globs with commas between them
ROWS    ?=
# make benchmark: cpu, cuda, cuda:1, ...
DEVICE  ?= cpu

BIN   := $(VENV)/bin
STAMP := $(VENV)/posebook-setup
SNAKEMAKE = $(BIN)/snakemake --cores $(CORES) --quiet rules host --resources gpu=1 --nolock --rerun-incomplete
# What fails is left out of a second pass, so that there are pages, which say what stopped; a third, where a table of the
# second fails for want of it.
REPORT = $(SNAKEMAKE) report --keep-going --config profile=$(PROFILE)
HEADLINE = $(BIN)/python -m posebook.report headline reports/executed reports/html/index.html
# One thread a test process: two of them, each with every core, would wait for each other. A file's tests stay
# together, for they share what is costly to make.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: help setup reproduce site grid compare benchmark test test-slow test-pages lab lint format clean
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  Settings: PROFILE=demo|fast|paper  CORES=$(CORES)  PYTHON=$(PYTHON)  TORCH_INDEX=$(TORCH_INDEX)  ROWS=$(ROWS)"

setup: $(STAMP) ## make .venv and install everything pinned

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "posebook needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make setup PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "Could not make $(VENV) (on Debian: apt-get install python3-venv)"; exit 1; }
	$(BIN)/python -m pip install --no-deps $(addprefix --index-url ,$(TORCH_INDEX)) $$(grep '^torch==' constraints.txt)
	$(BIN)/python -m pip install -c constraints.txt -e '.[notebooks,test,cluster]'
	@touch $@

reproduce: setup ## the report, in profile demo from a fresh clone, at reports/html/index.html
	@$(REPORT) || { $(REPORT) failed=1 || $(REPORT) failed=1; $(HEADLINE); exit 1; }
	@$(HEADLINE)

site: setup ## the report and every lesson of notebooks/learn
	@$(REPORT) site=1 || { $(REPORT) site=1 failed=1 || $(REPORT) site=1 failed=1; $(HEADLINE); exit 1; }
	@$(HEADLINE)

test: setup ## the fast tests; make test COVERAGE=90: also measure line coverage, and fail below 90 %
	$(PYTEST) $(if $(COVERAGE),--cov --cov-report=term:skip-covered --cov-fail-under=$(COVERAGE))

test-slow: setup ## the slow tests: every lesson once, pages in a browser, resumed trainings
	$(PYTEST) -m slow

test-pages: setup ## open every page of the built report in headless Chromium
	$(PYTEST) --dist load -m pages tests/pages

grid: setup ## the papers' ablations: make grid ROWS='lapx-*,amfacpose-3' PROFILE=paper, or smaller on embedded data
	@$(SNAKEMAKE) grid --keep-going --rerun-triggers mtime --config profile=$(PROFILE) rows='$(ROWS)'

compare: setup ## the papers' nets side by side on real photographs (data/lspet), three seeds each, then `make reproduce`
	@$(SNAKEMAKE) compare --keep-going --rerun-triggers mtime --config compare=1

benchmark: setup ## every net in every form, size, batch, number of threads: many hours, stopped it goes on
	@mkdir -p reports/executed
	$(BIN)/papermill notebooks/benchmark.ipynb reports/executed/benchmark-full.ipynb -k python3 -y '{model: all, \
	  profile: full, device: $(DEVICE), input_sizes: [[256, 192], [256, 256], [384, 288]], wanted: all, \
	  batches: [1, 8, 32], threads: [1, 0], seconds: 4}'

# Kernels run in the root, as under papermill: data/ and reports/ are the same folders for both.
lab: setup ## JupyterLab on the notebooks
	$(BIN)/jupyter lab notebooks --AsyncMappingKernelManager.root_dir="$(CURDIR)"

lint: setup ## ruff (also for notebooks) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## put the code into ruff's form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove what was made here: reports and the embedded dataset; .venv stays
	find reports -mindepth 1 -maxdepth 1 ! -name README.md -exec rm -rf {} +
	rm -rf data/synthetic .snakemake .pytest_cache .ruff_cache .mypy_cache .coverage
