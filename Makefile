# make demo   synthetic singers -> train -> evaluate -> one table and three pictures (about 5 minutes on 2 cores)
# make test   everything that CI checks: lint, format, types, tests
# make bench  every performance table, ours beside the plain baseline
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: demo test lint bench clean

.venv/pip: constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	touch $@

.venv/demo: .venv/pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,eval]'
	touch $@

# Three packages are installed for their weights; their dependencies need other versions of numpy and are not used.
.venv/all: .venv/pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,eval,export,search,shards,dask,hf,media,dev]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps resemblyzer aisfx musicnn
	touch $@

demo: .venv/demo
	$(BIN)/ssl-audio demo --output demo

lint: .venv/all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --durations 15

bench: .venv/all
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv build dist
