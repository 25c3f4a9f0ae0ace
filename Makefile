# Every target does its own set-up: the first one makes .venv from setup.py and constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SOURCES := pipelines transforms model
# A test run of its own, for example: make test PYTEST="tests/transforms -k topk"
PYTEST ?= tests

.PHONY: install lint types test demo bench profile faults clean

install: $(INSTALLED)

$(INSTALLED): setup.py pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy $(SOURCES) examples benchmarks faults

test: $(INSTALLED)
	$(BIN)/python -m pytest -n auto --dist loadfile $(PYTEST)

demo: $(INSTALLED)
	$(BIN)/fusefeed demo --output demo-output

bench: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks $(BENCH)

# make profile STAGE=fuse [POSTS=20000 | RUN=OUTPUT] [PROFILE="--clock wall"]: into profiles/
profile: $(INSTALLED)
	$(BIN)/python -m benchmarks.profile $(STAGE) $(if $(POSTS),--posts $(POSTS)) $(if $(RUN),--run $(RUN)) $(PROFILE)

faults: $(INSTALLED)
	$(BIN)/python -m faults $(FAULTS)
	$(if $(FAULTS),,$(BIN)/python -m faults.fuzz)

clean:
	rm -rf $(VENV) build dist *.egg-info demo-output .pytest_cache .mypy_cache .ruff_cache
