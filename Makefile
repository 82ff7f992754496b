PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST ?= $(BIN)/python -m pytest
# Most tests wait for a database: three processes keep two cores busy. A module's tests stay together.
SIDE_BY_SIDE ?= -n 3 --dist loadfile

.PHONY: help demo test lint types unit chaos bench clean

help:
	@echo "make demo   run the order example: it fails, is killed, resumes, and is audited"
	@echo "make test   lint, types and the whole suite, on SQLite and PostgreSQL"
	@echo "make chaos  every kill at every point (long)"
	@echo "make bench  the benchmarks"

# Rebuilt when the dependencies change.
$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.ready-test: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test]"
	@touch $@

demo: $(VENV)/.ready
	$(BIN)/python -m examples.order_fulfillment

test: lint types
	$(PYTEST) $(SIDE_BY_SIDE)

lint: $(VENV)/.ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.ready-test
	$(BIN)/mypy
	$(BIN)/pyright

unit: $(VENV)/.ready-test
	$(PYTEST) tests/unit

chaos: $(VENV)/.ready-test
	SAGAS_CHAOS=all $(PYTEST) $(SIDE_BY_SIDE) tests/acceptance tests/properties

bench: $(VENV)/.ready-test
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
