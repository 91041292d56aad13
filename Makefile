# make mini    set up, then train, decode and score on the built-in corpus (stages 1-13)
# make test    set up, then lint, type-check and run the tests
# make checks  format, lint and type-check the working tree (for developers)
# make setup   create .venv and install
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RECIPE := egs2/smoe_asr_st/s2t1
INSTALLED := $(VENV)/.installed

.DELETE_ON_ERROR:
.PHONY: setup mini test lint checks

setup: $(INSTALLED)

# Installed anew only when what is to be installed changes.
$(INSTALLED): setup.py constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v <= (3, 12) else "Python 3.10 to 3.12 is needed, this is %d.%d; choose one: make PYTHON=python3.11" % v)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt "setuptools<74" wheel
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[mini,test]"
	touch $@

mini: setup
	cd $(RECIPE) && ./run.sh --stage 1 --stop_stage 13

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

checks: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/mypy
