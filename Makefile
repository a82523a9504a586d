# `make demo` and `make test` create the environment .venv on the first call and reuse it afterwards.
#
#   make demo PYTHON=python3.12                     another interpreter
#   make test TORCH_INSTALL_ARGS="--index-url ..."  other builds of torch. On Linux the default build carries CUDA,
#                                                   several GB; pytorch.org's install page shows the
#                                                   address of the CPU builds, for machines without a GPU.
#   make test PYTEST_ARGS="-k bases"                more options for pytest

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
TORCH_INSTALL_ARGS ?=
PYTEST_ARGS ?=
# The lower bounds of pyproject.toml; change both together.
OLDEST = "scikit-learn==1.6.*" "torch==2.4.*" "numpy==1.26.*" "scipy==1.11.*" "joblib==1.3.*"

# `python -m` instead of the scripts in bin: it works in paths with spaces, too.
PY = "$(VENV)/bin/python"
PY_OLDEST = "$(VENV)-oldest/bin/python"
STAMP = $(VENV)/.installed
STAMP_DOC = $(VENV)/.installed-doc
STAMP_OLDEST = $(VENV)-oldest/.installed
PY_RELEASE = "$(VENV)-release/bin/python"
STAMP_RELEASE = $(VENV)-release/.installed

# What the fuzzer of `make test-all` begins with and how long it goes on; other seeds are other cases.
FUZZ_SEED ?= 100000
FUZZ_SECONDS ?= 600

# The tests of a file share fits, so one process runs them all.
PARALLEL = -n 2 --dist loadfile

# Every class fitted, predicted and saved, all that was saved before, and scikit-learn's checks of
# two classes: those whose names in test_checks begin with SparseGrid.
QUICK = tests/base/test_quick.py tests/base/test_portable.py tests/base/test_predict.py \
	tests/base/test_interoperability.py tests/golden tests/base/test_checks.py \
	-k "not test_checks or test_default[SparseGrid or test_quickest[SparseGrid"

# Two processes of tests share the cores; more threads in each would only get in each other's way.
export OMP_NUM_THREADS ?= 1
export MPLBACKEND ?= Agg
# Every process of tests, and every one that these start, would compile all files anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test lint format typecheck pytest test-gpu test-slow test-oldest test-oldest-quick venv-oldest test-all fuzz release-check doc benchmark clean FORCE

help:
	@echo "make demo               run examples/diode.py; it writes diode.png"
	@echo "make test               lint, types and tests"
	@echo "make lint               ruff, mypy and numpydoc alone"
	@echo "make format             put the sources into ruff's format"
	@echo "make test-slow          the tests marked slow"
	@echo "make test-gpu           the tests that need a CUDA device"
	@echo "make test-oldest        the tests with the oldest supported versions"
	@echo "make test-oldest-quick  three minutes of these: every class, and the checks of two"
	@echo "make fuzz               odd data for ten minutes: FUZZ_SECONDS, and FUZZ_SEED for other ones"
	@echo "make test-all           everything, for once a week: all of these tests, and the documentation"
	@echo "make release-check      the wheel in a clean environment: versions, README, models of before"
	@echo "make doc                the HTML documentation with the gallery, in doc/_build/html"
	@echo "make benchmark          the tables and figures of the papers"
	@echo "make clean              remove what was built, except the environments"

# Each stamp holds the folder that its environment was made in. One that came from elsewhere is made anew.
define create
	if [ -e "$(2)" ] && [ "$$(cat "$(2)")" != "$(CURDIR)" ]; then rm -rf "$(1)"; fi
	$(PYTHON) -m venv "$(1)"
endef
moved = $(if $(wildcard $(1)),$(shell [ "$$(cat '$(1)')" = "$(CURDIR)" ] || echo FORCE))

# torch first and with its exact version: left to the dependencies it would be the newest CUDA build.
$(STAMP): pyproject.toml $(call moved,$(STAMP))
	$(call create,$(VENV),$@)
	$(PY) -m pip install $(TORCH_INSTALL_ARGS) "$(TORCH)"
	$(PY) -m pip install -e ".[test]"
	@printf '%s\n' "$(CURDIR)" > "$@"

$(STAMP_DOC): $(STAMP)
	$(PY) -m pip install -e ".[doc]"
	@touch "$@"

# In one step: pip then sees all bounds at once. The default build of this old torch carries CUDA.
$(STAMP_OLDEST): pyproject.toml Makefile $(call moved,$(STAMP_OLDEST))
	$(call create,$(VENV)-oldest,$@)
	$(PY_OLDEST) -m pip install $(TORCH_INSTALL_ARGS) "torch==2.4.*" "numpy==1.26.*"
	$(PY_OLDEST) -m pip install -e ".[test]" $(OLDEST)
	@printf '%s\n' "$(CURDIR)" > "$@"

demo: $(STAMP)
	$(PY) examples/diode.py --output diode.png

test: lint pytest

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) doc/check_docstrings.py

format: $(STAMP)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

pytest: $(STAMP)
	$(PY) -m pytest $(PARALLEL) $(PYTEST_ARGS)

test-slow: $(STAMP)
	$(PY) -m pytest $(PARALLEL) -m slow $(PYTEST_ARGS)

test-gpu: $(STAMP)
	$(PY) -m pytest -m gpu $(PYTEST_ARGS)

venv-oldest: $(STAMP_OLDEST)

test-oldest: venv-oldest
	$(PY_OLDEST) -m pytest $(PARALLEL) $(PYTEST_ARGS)

test-oldest-quick: venv-oldest
	$(PY_OLDEST) -m pytest $(PARALLEL) $(QUICK) $(PYTEST_ARGS)

fuzz: $(STAMP)
	$(PY) -m tests.fuzz --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED) --jobs 2

# The snippets of the documentation are among the tests, the longer ones among those marked slow.
test-all: test test-slow test-oldest-quick fuzz doc

# Only torch stays from one check to the next: the wheel and its extras are installed anew.
$(STAMP_RELEASE): $(call moved,$(STAMP_RELEASE))
	$(call create,$(VENV)-release,$@)
	$(PY_RELEASE) -m pip install $(TORCH_INSTALL_ARGS) "$(TORCH)"
	@printf '%s\n' "$(CURDIR)" > "$@"

release-check: $(STAMP_RELEASE)
	rm -rf build dist
	$(PY_RELEASE) -m pip wheel --no-deps --wheel-dir dist .
	$(PY_RELEASE) -m pip uninstall --yes skpou
	set -- dist/skpou-*.whl && $(PY_RELEASE) -m pip install "$$1[io,plot]"
	$(PY_RELEASE) .ci/release_check.py

# Pages of before whose sources have moved would stay, and their links would be checked.
doc: $(STAMP_DOC)
	rm -rf doc/_build/html
	$(PY) -m sphinx -W --keep-going -b html doc doc/_build/html
	$(PY) doc/check_links.py doc/_build/html

benchmark: $(STAMP)
	$(PY) -m benchmarks

clean:
	rm -rf build dist doc/_build doc/generated doc/auto_examples doc/sg_execution_times.rst *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis diode.png
	find . -path './.venv*' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
