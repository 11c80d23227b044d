# Two targets a newcomer needs: `make demo` runs the main job, `make test` what CI runs.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

# Results must not depend on how many threads the machine offers.
export OMP_NUM_THREADS = 1

.PHONY: demo test lint types unit deep browser clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/smdlens analyze sample_checkpoints/

test: lint types unit

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.installed
	$(BIN)/mypy

unit: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist loadfile

deep: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist loadfile -m deep

# Needs Chromium on the machine; fails without one.
browser: $(VENV)/.installed
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev,browser]'
	$(BIN)/python -m pytest tests/browser -m browser

clean:
	rm -rf $(VENV)
