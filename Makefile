# SPDX-License-Identifier: Apache-2.0
# Needs python3 (3.11 or newer) with venv, and make; everything else is installed into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SOURCES := src tests bench examples
# How many processes run tests, and which tests `make test` runs: the fast ones.
WORKERS := 2
TESTS := not slow and not alone and not gpu

.PHONY: demo test test-all check format protos gpu clean

# Two commands for a newcomer -----------------------------------------------------------------------------------------

demo: $(VENV)/.build
	$(BIN)/python examples/digits/generate.py --out .demo/digits --train 240 --val 100
	$(BIN)/shipsight build examples/digits/digits.onnx --data .demo/digits/data.yaml --out .demo/digits.bundle --force
	$(BIN)/shipsight verify .demo/digits.bundle
	$(BIN)/shipsight predict .demo/digits.bundle '.demo/digits/images/val/0000*.jpg' --draw .demo/drawn
	@echo
	@echo "The report, for a browser: $(CURDIR)/.demo/digits.bundle/report.html"

test: $(VENV)/.dev
	$(BIN)/python -m pytest -m "$(TESTS)" -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# For contributors ----------------------------------------------------------------------------------------------------

test-all: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not gpu"

check: $(VENV)/.dev
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

# What gRPC speaks, from its description; a test tells when this was forgotten.
protos: $(VENV)/.dev
	$(BIN)/python -m grpc_tools.protoc --proto_path=src/shipsight/serve/grpc \
		--descriptor_set_out=src/shipsight/serve/grpc/open_inference.binpb open_inference.proto

gpu: $(VENV)/.dev
	$(BIN)/python -m pytest -m gpu tests/gpu

clean:
	rm -rf .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Environments --------------------------------------------------------------------------------------------------------

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "shipsight needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.build: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --editable '.[build,sample]'
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --editable '.[dev]'
	touch $@ $(VENV)/.build
