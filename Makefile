# Everything runs in .venv. Every target except help, gpu-check and clean first makes it, as `make setup` does.
PROFILE ?= demo
CORES   ?= all
PYTHON  ?= python3
VENV    ?= .venv
# Linux without a GPU: make setup TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
# make grid: rows of data/grid.csv, as globs separated by commas
ROWS    ?=
# make study: names of studies in data/studies.csv, separated by commas; all by default
STUDY   ?=
# make benchmark: cpu, cuda, cuda:1, ...
DEVICE  ?= cpu

BIN   := $(VENV)/bin
STAMP := $(VENV)/posebook-setup
SNAKEMAKE = $(BIN)/snakemake --cores $(CORES) --quiet rules host --resources gpu=1 --nolock --rerun-incomplete
# If a notebook fails, a second pass without it still builds the pages, which show the failure. A third pass also leaves out
# the tables that failed in the second one because they need its record.
REPORT = $(SNAKEMAKE) report --keep-going --config profile=$(PROFILE)
HEADLINE = $(BIN)/python -m posebook.report headline reports/executed reports/html/index.html
# One thread per test process: two processes that each use all cores slow each other down. The tests of a file stay in one
# process because they share expensive fixtures.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: help setup reproduce site grid compare study benchmark benchmark-archive gpu-check test test-slow test-pages lab lint format clean
.DEFAULT_GOAL := help

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  Settings: PROFILE=demo|fast|paper  CORES=$(CORES)  PYTHON=$(PYTHON)  VENV=$(VENV)  TORCH_INDEX=$(TORCH_INDEX)"
	@echo "            ROWS=... (grid)  STUDY=... (study)  DEVICE=$(DEVICE) (benchmark, gpu-check)  PEERS=... (benchmark-archive)  COVERAGE=90 (test)"

setup: $(STAMP) ## create .venv and install all pinned packages

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "posebook needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make setup PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "Could not create $(VENV) (on Debian: apt-get install python3-venv)"; exit 1; }
	$(BIN)/python -m pip install --no-deps $(addprefix --index-url ,$(TORCH_INDEX)) $$(grep '^torch==' constraints.txt)
	$(BIN)/python -m pip install -c constraints.txt -e '.[notebooks,test,cluster]'
	@touch $@

reproduce: setup ## build the report, reports/html/index.html
	@$(REPORT) || { $(REPORT) failed=1 || $(REPORT) failed=1; $(HEADLINE); exit 1; }
	@$(HEADLINE)

site: setup ## build the report with all lessons, and with a page that runs a model in the browser (needs npm)
	@$(REPORT) site=1 || { $(REPORT) site=1 failed=1 || $(REPORT) site=1 failed=1; $(HEADLINE); exit 1; }
	@$(HEADLINE)

test: setup ## the fast tests; make test COVERAGE=90: also measure line coverage, and fail below 90 %
	$(PYTEST) $(if $(COVERAGE),--cov --cov-report=term:skip-covered --cov-fail-under=$(COVERAGE))

test-slow: setup ## the slow tests: every lesson once, pages in a browser, resumed trainings
	$(PYTEST) -m slow

test-pages: setup ## after make reproduce: open every page in headless Chromium, and compute the verdicts again
	$(PYTEST) --dist load -m pages tests/pages

grid: setup ## the papers' ablations: make grid ROWS='lapx-*,amfacpose-3' PROFILE=paper; smaller on synthetic people without it
	@$(SNAKEMAKE) grid --keep-going --rerun-triggers mtime --config profile=$(PROFILE) rows='$(ROWS)'

compare: setup ## StarNet-Pose-T on photographs (data/lspet) from scratch and from synthetic weights, three seeds each
	@$(SNAKEMAKE) compare --keep-going --rerun-triggers mtime --config compare=1

study: setup ## small studies of the papers' claims, several seeds each: make study STUDY=dropout,pruning,priors
	@$(SNAKEMAKE) study --keep-going --rerun-triggers mtime --config study='$(STUDY)'

# In variables, because a backslash at the end of a line inside quotes in a recipe would become part of the parameters.
BENCHMARK_FULL = {model: all, profile: full, device: $(DEVICE), input_sizes: [[256, 192], [256, 256], [384, 288]], wanted: [all], \
  batches: [1, 8, 32], threads: [1, 0], seconds: 4}
BENCHMARK_ARCHIVE = {profile: cpu, published: true, batches: [1, 8], threads: [1, 2], seconds: 0.8, max_wait: 400, \
  model: "starnet-pose-t,starnet-pose-s,lapx,rtmpose-t,rtmpose-s,amfacpose-r18,amfacpose-r34", \
  wanted: [eager bf16, folded fp32, "folded fp32, channels last", ONNX Runtime fp32, OpenVINO fp32, OpenVINO int8], \
  peers: [$(PEERS)]}

benchmark: setup ## every model in every runtime, size, batch and number of threads: many hours, can be resumed
	@mkdir -p reports/executed
	$(BIN)/papermill notebooks/benchmark.ipynb reports/executed/benchmark-full.ipynb -k python3 -y '$(BENCHMARK_FULL)'

benchmark-archive: setup ## measure data/measured/benchmark-cpu.json again, with PEERS=a.tflite,b.tflite: idle machine, clean commit, can be resumed
	@test -z "$$(git status --porcelain -- lib notebooks)" || { echo "commit or undo the changes in lib/ and notebooks/ first"; exit 1; }
	@mkdir -p reports/executed
	$(BIN)/papermill notebooks/benchmark.ipynb reports/executed/benchmark-cpu.ipynb -k python3 -y '$(BENCHMARK_ARCHIVE)'
	$(BIN)/posebook records archive reports/records/benchmark-cpu.json

# Without `setup`, because a GPU machine may have no package index: PYTHON with PyTorch and NumPy is enough.
gpu-check: ## training speed, latency and energy of a GPU, against goals: ten minutes; needs only PyTorch and NumPy
	@PYTHONPATH=lib $(if $(wildcard $(STAMP)),$(BIN)/python,$(PYTHON)) -m posebook gpu-check --device $(if $(filter cpu,$(DEVICE)),cuda,$(DEVICE))

# Kernels run in the repository's root, as under papermill, so that data/ and reports/ are the same folders for both.
lab: setup ## JupyterLab on the notebooks
	$(BIN)/jupyter lab notebooks --AsyncMappingKernelManager.root_dir="$(CURDIR)"

lint: setup ## style (ruff, also for notebooks), types (mypy) and plain English
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python workflow/check_english.py

format: setup ## format the code with ruff
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove reports and the synthetic dataset; .venv stays
	find reports -mindepth 1 -maxdepth 1 ! -name README.md -exec rm -rf {} +
	rm -rf data/synthetic data/study .snakemake .pytest_cache .ruff_cache .mypy_cache .coverage
