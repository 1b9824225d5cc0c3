# Everything is make, pip and one virtual environment in .venv.
#
#   make demo              install what is needed and run `paligemma demo`
#   make test              install the test extra and run the tests
#   make lint types bench  ruff, pyright, the speed table
#
# PYTHON=python3.12        another interpreter (3.11 or newer)
# TORCH=cpu                on Linux without a GPU: PyTorch's CPU build, a tenth of the download (elsewhere the default is right)

PYTHON ?= python3
VENV   ?= .venv
TORCH  ?=

BIN = $(VENV)/bin
TORCH_INDEX_cpu = --extra-index-url https://download.pytorch.org/whl/cpu
PIP = $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt
SOURCES = src tests bench examples

.PHONY: demo test lint types bench dev clean

demo: $(VENV)/.with-core
	$(BIN)/paligemma demo

test: $(VENV)/.with-test
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 $(ARGS)

lint: $(VENV)/.with-dev
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

types: $(VENV)/.with-dev
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(VENV)/.with-test
	$(BIN)/python -m bench $(ARGS)

dev: $(VENV)/.with-dev

# torch goes first and by itself, so that nothing else can choose another build of it.
$(VENV)/.with-core: pyproject.toml constraints.txt setup.py $(wildcard src/paligemma/edge/kernels/*)
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and "Python 3.11 or newer is needed, this is %d.%d. Try: make PYTHON=python3.12" % v[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH_INDEX_$(TORCH)) torch numpy
	$(PIP) -e '.[torch]'
	@touch $@

$(VENV)/.with-%: $(VENV)/.with-core
	$(PIP) -e '.[$*]'
	@touch $@

clean:
	rm -rf $(VENV) build dist paligemma-demo src/*.egg-info
