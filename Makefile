# make demo   set everything up, and let the real Claude Code do one job on a local model
# make test   every test; make lint: style, types, the rooms' one-way dependencies

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo test lint format lock docs clean

setup: $(READY)

# A stamp newer than the lock file means that nothing is to be done.
$(READY): requirements/dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name one with: make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
		|| { echo "cannot make a virtual environment; on Debian: apt-get install python3-venv"; exit 1; }
	@echo "installing what is locked in requirements/dev.lock (a few minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(BIN)/python -m demo.client $(BIN)
	@touch $(READY)

demo: setup
	@$(BIN)/python -m demo.run

test: setup
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

lint: setup
	@$(BIN)/ruff format --check --quiet . || { echo "run: make format"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/lint-imports
	@$(BIN)/pyright --warnings

format: setup
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

docs: setup
	@$(BIN)/python -m tests.docs.regenerate

# Hashes of every file, for every platform; no index address.
lock: setup
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-header --group dev pyproject.toml -o requirements/dev.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-header pyproject.toml -o requirements/runtime.lock

clean:
	rm -rf $(VENV) .demo .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage .coverage.*
