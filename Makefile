# Everything is set up in .tools; see tools/setup.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long fuzz image lint lock clean

PYTEST_ARGS ?=
IMAGE_ARGS ?=
EXAMPLES ?= 2000
# 24 apoferritins whose orientations are not known, and whose places are known to 4 Angstrom.
DEMO_DATA ?= --structure apoferritin --particles 12 --noise 4.5 --random-angles --shift-error 4 \
	--pixel-size 2 --image-size 400 --thickness 160
ACTIVATE := source .tools/activate

help: ## Show the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: ## Provide Python packages, Nextflow and RELION 5 in .tools; what is installed is used
	@echo "== setup"
	@tools/setup

demo: setup ## Make a small data set and run the pipeline on it
	@echo "== demo data in .demo/data"
	@$(ACTIVATE); if [ ! -e .demo/data ]; then \
		rm -rf .demo/data.part; mkdir -p .demo; \
		bin/py2rely demo-data .demo/data.part $(DEMO_DATA); mv .demo/data.part .demo/data; fi
	@echo "== demo run"
	@$(ACTIVATE); tools/demo

test: ## Set up what tests need, too, and run them (PYTEST_ARGS="-k name" chooses)
	@echo "== setup"
	@tools/setup tests
	@tools/setup
	@echo "== tests"
	@$(ACTIVATE); python -m pytest -n 2 --dist worksteal -m "not long" $(PYTEST_ARGS)

test-long: ## Run the tests that take many minutes each, or are much like others
	@$(MAKE) test PYTEST_ARGS='-m long --timeout 3600 $(PYTEST_ARGS)'

fuzz: setup ## Try many broken files on every importer (EXAMPLES="2000" of each kind of file)
	@echo "== fuzz"
	@$(ACTIVATE); PY2RELY_FUZZ=$(EXAMPLES) python -m pytest tests/unit -k fuzz -n 2 --timeout 0 $(PYTEST_ARGS)

image: setup ## Build the Apptainer image with RELION (CPU) in .tools/images (IMAGE_ARGS="--output DIR")
	@echo "== image"
	@containers/build cpu $(IMAGE_ARGS)

lint: ## Check Python with ruff and import-linter, and the workflow with nextflow lint
	@echo "== setup"
	@tools/setup python-tests
	@tools/setup
	@echo "== ruff check"
	@$(ACTIVATE); ruff check .
	@echo "== ruff format"
	@$(ACTIVATE); ruff format --check .
	@echo "== imports"
	@$(ACTIVATE); lint-imports
	@echo "== nextflow lint"
	@$(ACTIVATE); NXF_ANSI_LOG=false nextflow lint .

lock: ## Pin the newest versions that pyproject.toml allows in requirements*.lock (needs a network)
	@echo "== requirements*.lock"
	@tools/lock

clean: ## Remove .tools, .demo and what runs and tests leave in the checkout
	rm -rf .tools .demo .nextflow .nextflow.log* work results .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist
