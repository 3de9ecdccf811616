# make demo    synthetic singers -> train -> evaluate -> one table and three pictures (about 5 minutes on 2 cores)
# make check   lint, format, types, imports, and the tests that are not slow: under 90 seconds on 2 cores
# make test    everything that CI checks: lint, format, types, imports, all tests: under 8 minutes
# make fuzz    damaged files of every kind, about 2 minutes; FUZZ=1000 tries more of them
# make lowest  the tests that are not slow, with the lowest versions that pyproject.toml allows (Python 3.10 to 3.12)
# make docs    the documentation as a site, in site/; strict, and no page needs a network
# make newest  all tests with the newest versions that it allows
# make bench   every performance table, ours beside the plain baseline
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# Python 3.10 takes the newest versions that still support it: the pinned ones do not.
PINNED := $(shell $(PYTHON) -c 'import sys; print("--constraint constraints.txt" * (sys.version_info >= (3, 11)))')
PYTEST := -m pytest -n 2 --dist loadfile
EXTRAS := train,eval,export,search,shards,dask,hf,media,lancedb,qdrant,postgres,sqlite,serve
# Without transformers, which needs a newer huggingface_hub than ours does.
LOWEST := train,eval,export,search,shards,dask
RUNNER := pytest pytest-xdist pytest-timeout hypothesis hatchling

.PHONY: demo check test fuzz lint docs lowest newest bench clean

.venv/pip: constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(PINNED) torch
	touch $@

.venv/demo: .venv/pip
	$(BIN)/python -m pip install --quiet $(PINNED) --editable '.[train,eval]'
	touch $@

# Three packages are installed for their weights; their dependencies need other versions of numpy and are not used.
.venv/all: .venv/pip
	$(BIN)/python -m pip install --quiet $(PINNED) --editable '.[$(EXTRAS),dev,docs]'
	$(BIN)/python -m pip install --quiet $(PINNED) --no-deps resemblyzer aisfx musicnn
	touch $@

demo: .venv/demo
	$(BIN)/ssl-audio demo --output demo

lint: .venv/all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST) -m "not slow"

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST) --durations 15

FUZZ ?= 60
fuzz: .venv/all
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST) -m fuzz --fuzz $(FUZZ)

# Warnings of old versions are not ours to mend; those of new ones are.
lowest: .venv-lowest/all
	OMP_NUM_THREADS=1 .venv-lowest/bin/python $(PYTEST) -m "not slow" -W default

.venv-lowest/all: constraints-lowest.txt pyproject.toml
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --constraint constraints-lowest.txt --editable '.[$(LOWEST)]' $(RUNNER)
	touch $@

newest:
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --upgrade --editable '.[$(EXTRAS)]' $(RUNNER)
	OMP_NUM_THREADS=1 .venv-newest/bin/python $(PYTEST) -W default

docs: .venv/all
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: .venv/all
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv .venv-* build dist site
