# Every target does all the set-up it needs: `make demo` and `make test` work on a machine that has Python 3.10 to 3.13 and make.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
LOWEST := .venv-lowest
NEXT := .venv-next
FOREIGN := .venv-foreign
# The first interpreter of a list whose version is in a range, and that can make virtual environments: $(call first-python,LOWEST,HIGHEST,NAMES)
first-python = $(shell for p in $(3); do "$$p" -c "import sys, venv, ensurepip; sys.exit(not $(1) <= sys.version_info[1] <= $(2))" >/dev/null 2>&1 && { echo "$$p"; break; }; done)
# Name another one with `make PYTHON=/path/to/python setup`.
PYTHON ?= $(call first-python,10,13,python3 python3.13 python3.12 python3.11 python3.10 python)
# The lowest versions are those of Python 3.10, the newest Keras needs Python 3.11: `make PYTHON_LOWEST=/path/to/python3.10 test-lowest`.
PYTHON_LOWEST ?= $(call first-python,10,10,python3.10 python3 python $(wildcard $(HOME)/.pyenv/versions/3.10.*/bin/python))
PYTHON_NEXT ?= $(call first-python,11,13,python3.13 python3.12 python3.11 python3 python)

# Tests run in this many processes; each needs about 2 GiB, and up to 5 GiB for the slow ones.
WORKERS ?= 2
# Each process takes neighbouring tests, which share the models that a module builds, and in the end some of those that another has left.
PYTEST = -m pytest -n $(WORKERS) --dist worksteal

export TF_CPP_MIN_LOG_LEVEL ?= 3
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The tests' many processes read what the first of them compiled; each of them would compile all modules anew with this setting of many containers.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo test test-slow test-release test-lowest test-next quick zoo zoo-shrunk zoo-foreign zoo-foreign-shrunk mlperf-tiny integers adaround variants mixed-bits shrinking operations api kits lint format clean

# Fills a virtual environment: $(call fill,FOLDER,VARIABLE OF THE PYTHON,REQUIREMENTS,ITS VERSIONS)
define fill
	@test -n "$($(2))" || { echo "No Python $(4) with venv was found. Install one, or say which: make $(2)=/path/to/python" >&2; exit 1; }
	@test -x $(1)/bin/python || "$($(2))" -m venv $(1)
	@echo "Installing the packages of $(3) into $(1) (a few minutes the first time) ..."
	@$(1)/bin/python -m pip install --quiet --no-compile --requirement $(3)
	@$(1)/bin/python -m compileall -qq -j 0 $(1)/lib || true # pip takes one core for it; some packages carry files for other versions of Python
	@$(1)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
endef

setup: $(STAMP)

# The virtual environment is made beside the stamp's inputs only: nothing is installed again while these are unchanged.
$(STAMP): requirements.txt setup.py
	$(call fill,$(VENV),PYTHON,requirements.txt,3.10 to 3.13)
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/tfdistill demo

test: $(STAMP)
	$(BIN)/python $(PYTEST)

# They need packages of the system; `bash tests/install_system_packages.sh`, as root, installs those that are missing.
test-slow: $(STAMP)
	$(BIN)/python $(PYTEST) -m "slow and not release"

# What is too long for every change: the largest models, all kills, all damaged files, and the rows that tests/sampled.txt leaves out. Run before a release.
test-release: $(STAMP)
	$(BIN)/python $(PYTEST) -m release

# The fast tests with the lowest versions that setup.py allows. Old packages use what newer ones deprecate: such warnings are no failures here.
test-lowest: $(LOWEST)/.set-up
	$(LOWEST)/bin/python $(PYTEST) -W ignore::DeprecationWarning

$(LOWEST)/.set-up: requirements-lowest.txt setup.py
	$(call fill,$(LOWEST),PYTHON_LOWEST,requirements-lowest.txt,3.10)
	@touch $@

# The fast tests with the Keras of tomorrow and the newest LiteRT, fetched anew each time; the summary at the end lists what broke.
# keras-nightly has the files of keras, so it takes its place.
test-next:
	$(call fill,$(NEXT),PYTHON_NEXT,requirements.txt,3.11 to 3.13)
	@$(NEXT)/bin/python -m pip uninstall --quiet --yes keras keras-nightly
	@$(NEXT)/bin/python -m pip install --quiet --no-deps --pre keras-nightly
	@$(NEXT)/bin/python -m pip install --quiet --upgrade ai-edge-litert
	@$(NEXT)/bin/python -m pip list | grep -i -E "^(keras|tf_keras|tensorflow|ai-edge-litert|numpy)"
	$(NEXT)/bin/python $(PYTEST) --tb=line

# All models of tests/zoo, about two hours on two cores: records in runs/zoo, the table in docs/coverage.md. A run that was interrupted: make zoo ZOO=--resume
zoo: $(STAMP)
	$(BIN)/python tests/zoo/run_zoo.py $(ZOO)

# The same models with fewer channels, and thin layers in place of whole ones: records in runs/zoo_shrunk, a table of its own in docs/coverage.md.
# A run that was interrupted: make zoo-shrunk ZOO=--resume
zoo-shrunk: $(STAMP)
	$(BIN)/python tests/zoo/run_shrunk.py $(ZOO)

# Models that others wrote, of keras-hub, kimm and keras.io, in an environment of their own: about an hour and a half on two cores; records in runs/zoo_foreign,
# the second table in docs/coverage.md.
zoo-foreign: $(FOREIGN)/.set-up
	$(FOREIGN)/bin/python tests/zoo_foreign/run_foreign.py

# The same models opened, with fewer channels and smaller ranks, about 20 minutes: records in runs/zoo_foreign_shrunk, a table of its own in docs/coverage.md.
zoo-foreign-shrunk: $(FOREIGN)/.set-up
	$(FOREIGN)/bin/python tests/zoo_foreign/run_foreign_shrunk.py $(ZOO)

$(FOREIGN)/.set-up: requirements.txt requirements-foreign.txt setup.py
	$(call fill,$(FOREIGN),PYTHON_NEXT,requirements.txt,3.11 to 3.13)
	@$(FOREIGN)/bin/python -m pip install --quiet --no-deps --requirement requirements-foreign.txt
	@touch $@

# What XNNPACK, the interpreter's own kernels and tflite-micro take, and which versions of operations tflite-runtime 2.14 and tflite-micro open:
# tfdistill/runtime/operation_tables and operation_versions.
operations: $(STAMP)
	PYTHONPATH=tests/runtime $(BIN)/python tests/runtime/measure_operations.py
	PYTHONPATH=tests:tests/runtime $(BIN)/python tests/runtime/measure_versions.py

# The trained nets of MLPerf Tiny against their own int8 files: docs/mlperf_tiny.md. The folder with the nets: make mlperf-tiny TFDISTILL_MLPERF_TINY=folder
mlperf-tiny: $(STAMP)
	$(BIN)/python benchmarks/mlperf_tiny.py

# Accuracy of int8 files on Fashion-MNIST, by calibration and by training, and recurrent layers as integer files: docs/integers.md, docs/recurrent.md.
# What was interrupted goes on; records in runs/.
integers: $(STAMP)
	$(BIN)/python benchmarks/recurrent.py
	$(BIN)/python benchmarks/integers.py

# Bytes against accuracy of int8 files with weights of 4 bits in some layers, on Fashion-MNIST: docs/mixed_bits.md. Records and trained nets in runs/mixed_bits.
mixed-bits: $(STAMP)
	$(BIN)/python benchmarks/mixed_bits.py

# Accuracy of int8 files with weights of 4 bits, rounded to nearest and as AdaRound learns: docs/adaround.md. What was interrupted goes on; records in runs/adaround.
adaround: $(STAMP)
	TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 $(BIN)/python benchmarks/adaround.py

# Accuracy of pruned channels and low-rank factorizations on Fashion-MNIST, on one core: docs/shrinking.md. What was interrupted goes on; records in runs/shrinking.
shrinking: $(STAMP)
	TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 $(BIN)/python benchmarks/shrinking.py

# Size, error, agreement and latency of every variant of six nets, on one core: docs/variants.md. What was interrupted goes on; records in runs/variants.
variants: $(STAMP)
	TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 $(BIN)/python benchmarks/variants.py

# The fast tests of one room, without those that tests/thorough.txt lists, in about a minute: make quick ROOM=losses
quick: $(STAMP)
	@test -n "$(ROOM)" -a -d "tests/$(ROOM)" || { echo "Say which room: make quick ROOM=losses (bridge, compress, distill, runtime, tflite, ...)" >&2; exit 1; }
	$(BIN)/python $(PYTEST) -m "not slow and not thorough and not release" tests/$(ROOM)

# What is made from the list of public names: docs/api.md, and the stubs that editors and type checkers read.
api: $(STAMP)
	$(BIN)/python docs/make_api.py

# The modules that the kit of boards shares with the package: copies in export/raspberry_pi.
kits: $(STAMP)
	$(BIN)/python docs/make_kits.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(LOWEST) $(NEXT) $(FOREIGN) build dist *.egg-info
