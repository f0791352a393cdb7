# The two commands of a bare clone are `make demo` and `make test`; both make the environment in ./.venv first.
# Needs Python 3.11 or 3.12, gcc, make and pip. STEER_TORCH_INDEX=<URL of PyTorch's CPU wheel index>: see requirements/env.py.
FITS := import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))
PYTHON ?= $(shell for python in python3.11 python3.12 python3; do $$python -c '$(FITS)' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin

.PHONY: env demo test lint

env:  ## the locked environment without a GPU, in ./.venv
	@test -n "$(PYTHON)" || { echo "make env: no Python 3.11 or 3.12 here; install one, or give PYTHON=<path>"; exit 1; }
	@$(PYTHON) requirements/env.py

demo: env  ## data, SFT, GRPO and evaluation of the miniature student; goes on where it was interrupted
	@STEER_CPU=1 $(BIN)/steer demo

test: lint  ## style, types and the whole suite, two real GRPO steps included
	@STEER_CPU=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: env  ## style, types, and the one direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
