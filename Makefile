# Every target does all the set-up it needs: `make demo` and `make test` work on a machine that has Python 3.10 to 3.13 and make.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
WORKS := import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))
# The first interpreter that fits; name another one with `make PYTHON=/path/to/python setup`.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10 python; do \
	"$$p" -c "$(WORKS)" >/dev/null 2>&1 && { echo "$$p"; break; }; done)

# Tests run in this many processes; each needs about 2 GiB.
WORKERS ?= 2

export TF_CPP_MIN_LOG_LEVEL ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: setup demo test test-slow quick zoo api lint format clean

setup: $(STAMP)

# The virtual environment is made beside the stamp's inputs only: nothing is installed again while these are unchanged.
$(STAMP): requirements.txt setup.py
	@test -n "$(PYTHON)" || { echo "No Python 3.10 to 3.13 with venv was found. Install one, or say: make PYTHON=/path/to/python3.11 setup" >&2; exit 1; }
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@echo "Installing the packages of requirements.txt into $(VENV) (a few minutes the first time) ..."
	@$(BIN)/python -m pip install --quiet --requirement requirements.txt
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/tfdistill demo

test: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS)

test-slow: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) -m slow

# All models of tests/zoo, 40 minutes to an hour on two cores: records in runs/zoo, the table in docs/coverage.md.
zoo: $(STAMP)
	$(BIN)/python tests/zoo/run_zoo.py

# The fast tests of one room: make quick ROOM=losses
quick: $(STAMP)
	@test -n "$(ROOM)" -a -d "tests/$(ROOM)" || { echo "Say which room: make quick ROOM=losses (bridge, compress, distill, runtime, tflite, ...)" >&2; exit 1; }
	$(BIN)/python -m pytest -n $(WORKERS) tests/$(ROOM)

# What is made from the list of public names: docs/api.md, and the stubs that editors and type checkers read.
api: $(STAMP)
	$(BIN)/python docs/make_api.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info
