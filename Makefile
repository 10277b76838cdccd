# make run    installs into .venv and shows one message going through the relay
# make test   installs the tools for development too and runs every test
# make check  format, lint, types, the rules of the house
# make simulate SEEDS=1000   runs the delivery in simulated worlds; SEED=1234 runs one and tells its story
# make bench  measures; make fmt formats; make clean forgets
#
# PYTHON=python3.12      another interpreter (3.11 or newer)
# DEMO_ARGS=--once       ends after the first message
# TEST_ARGS="-k spool"   what pytest shall run
# WORKERS=0              how many processes run the tests; 0 is one after the other in this one
# HARNESS=DIR            where bench.py and peers.py are, for make bench
# BENCH_ARGS="..."       more for the comparison

PYTHON ?= python3
VENV ?= .venv
DEMO_ARGS ?=
TEST_ARGS ?=
# A few chosen tests are not worth the start of workers.
WORKERS ?= $(if $(TEST_ARGS),0,$(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1))
BENCH_ARGS ?=
SEEDS ?= 200
SEED ?=
HARNESS ?= ../shared/bench

# Some containers forbid it, and then each process that a test starts compiles the whole project again.
unexport PYTHONDONTWRITEBYTECODE

BIN := $(VENV)/bin
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help preflight run test check simulate bench fmt clean

help:
	@sed -n '/^#/!q;s/^# \{0,1\}//p' Makefile

# Says everything that is missing in one go, in the words of apt.
preflight:
	@missing=; \
	command -v make >/dev/null 2>&1 || missing="$$missing make"; \
	if ! command -v $(PYTHON) >/dev/null 2>&1; then missing="$$missing python3 python3-venv"; \
	elif ! $(PYTHON) -c 'import ensurepip, venv' >/dev/null 2>&1; then missing="$$missing python3-venv"; fi; \
	if [ -n "$$missing" ]; then \
	  echo "Missing. On Debian or Ubuntu: apt-get install$$missing" >&2; exit 69; fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is $$($(PYTHON) -V 2>&1); smarthost needs Python 3.11 or newer (make PYTHON=python3.12 ...)" >&2; exit 69; }

# Two stamps: the environment is made anew only when pyproject.toml has changed.
$(VENV)/.installed: pyproject.toml | preflight
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

# Compiled is what is used, when it is used: a tenth of it.
$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[dev]'
	@touch $@

run: $(VENV)/.installed
	$(BIN)/smarthost demo $(DEMO_ARGS)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(TEST_ARGS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_house.py

fmt: $(VENV)/.installed-dev
	$(BIN)/ruff format src tests benchmarks
	$(BIN)/ruff check --fix src tests benchmarks

# CONTRIBUTING.md says what it shows. SEED= runs one seed and tells its story, FIRST= begins with another one than 0.
simulate: $(VENV)/.installed-dev
	$(BIN)/python tests/simulation/simulate.py $(if $(SEED),one $(SEED),many $(SEEDS) $(FIRST))

# Measures the relay beside Postfix, and its memory; benchmarks/README.md says what that needs.
bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/run_peers.py --harness $(HARNESS) $(BENCH_ARGS)
	$(BIN)/python benchmarks/upstream_tls.py --harness $(HARNESS)
	$(BIN)/python benchmarks/memory.py

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
