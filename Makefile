# make demo | test | check | format | bench | tables | clean.  PYTHON=python3.12 and VENV=path choose another interpreter and place.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SEED ?= 0

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format bench tables clean

help:
	@echo "make demo    set up, make a small CK+-like release, build shards, fine-tune both streams, test, fuse (SEED=$(SEED))"
	@echo "make test    set up and run all tests"
	@echo "make check   format, lint, types and tests, warnings as errors"
	@echo "make format  rewrite the code the way make check wants it"
	@echo "make bench   install the peers and compare the loaders with them: bench-results/loaders.json (about a quarter of an hour)"
	@echo "make tables  write the measured tables and figures of README and docs from docs/results"
	@echo "make clean   remove the demo and the caches; VENV=$(VENV) stays"

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "Installing into $(VENV): torch with CUDA and DALI take about 7 GB and some minutes, once."
	$(PYTHON) -m venv $(VENV) || { echo "No venv module: install your system's python3-venv package, or pass PYTHON=..."; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

# The peers of make bench. FFCV is compiled: it needs pkg-config, libopencv-dev and libturbojpeg0-dev, and is left out without them.
$(VENV)/.bench-installed: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,bench]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps \
	  'mosaicml-streaming>=0.13' 'litdata>=0.2.76' 'boto3>=1.40' 'botocore>=1.40' 's3transfer>=0.14'
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	  numba assertpy fastargs imgcat terminaltables pytorch-pfn-extras && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps 'ffcv>=1.0.2'
	@touch $@

demo: setup
	$(BIN)/python -m bench.demo demo --seed $(SEED)

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.bench-installed
	mkdir -p bench-results
	$(BIN)/python -m bench.loaders --repeats 7 --json bench-results/loaders.json

tables: setup
	$(BIN)/python -m bench.tables

clean:
	rm -rf demo .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
