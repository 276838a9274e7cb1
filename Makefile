# Two commands matter: `make demo` answers a simulated phone call, `make test` runs every test.
# Each sets up .venv first, if it is not there.

PYTHON ?= python3
BIN := .venv/bin

# Kernels of these sizes lose time to a second thread; calls and tests use the cores side by side.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test lint bench clean

demo: .venv/ready
	$(BIN)/glm-voice simulate --demo

test: .venv/ready
	$(BIN)/python -m pytest

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Beside the public reference, if it is here: docs/benchmark.md says what the variables name.
bench: .venv/ready
	$(BIN)/python -m agent.bench \
		$(if $(REFERENCE),--reference $(REFERENCE)) \
		$(if $(REFERENCE_PYTHON),--reference-python $(REFERENCE_PYTHON)) \
		$(if $(REFERENCE_LM),--reference-lm $(REFERENCE_LM)) $(BENCH)

.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else "Python 3.11 to 3.13 is needed, $(PYTHON) is %d.%d: make PYTHON=python3.12 ..." % v)'
	$(PYTHON) -m venv .venv
	@echo "Installing into .venv (some minutes the first time)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv runs .pytest_cache .mypy_cache .ruff_cache
