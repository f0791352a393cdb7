# The two commands of a bare clone are `make demo` and `make test`; both make the environment in ./.venv first.
# Needs Python 3.11, gcc, make and pip. STEER_TORCH_INDEX=<URL of PyTorch's CPU wheel index>: see requirements/env.py.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: env demo test lint

env:  ## the locked environment without a GPU, in ./.venv
	@command -v $(PYTHON) >/dev/null || { echo "make env: no $(PYTHON) here; install Python 3.11 or give PYTHON=<path>"; exit 1; }
	@$(PYTHON) requirements/env.py

demo: env  ## data, SFT, GRPO and evaluation of the miniature student; goes on where it was interrupted
	@STEER_CPU=1 $(BIN)/steer demo

test: lint  ## style, types and the whole suite, two real GRPO steps included
	@STEER_CPU=1 $(BIN)/python -m pytest

lint: env  ## style, types, and the one direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
