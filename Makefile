# make setup | demo | test | test-slow | chaos | check | lock | clean
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null || echo $(BIN)/uv)
STAMP := $(VENV)/.installed

.PHONY: setup demo test test-slow chaos check format lock clean

setup: $(STAMP)

# uv installs the lock in seconds, and compiles it once: every Ray worker imports it anew. Where uv is not on the PATH,
# the environment brings its own.
$(STAMP): requirements.lock pyproject.toml
	command -v uv >/dev/null 2>&1 || { $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet uv; }
	test -x $(BIN)/python || $(UV) venv --quiet --python ">=3.11,<3.13" $(VENV)
	$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

demo: setup
	$(BIN)/chexray demo --out demo-out

# PROCESSES=2: each with a Ray of its own, which is quicker; for machines with nothing else to do.
PROCESSES ?= 0
test: setup
	$(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile -m "not slow"

test-slow: setup
	$(BIN)/python -m pytest -m slow

chaos: setup
	$(BIN)/python benchmarks/chaos.py chaos-out --kills 10 --latest 6 --reference

# Type checkers do not follow an editable install's folder mapping, so an installed copy is checked.
check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/typos
	rm -rf build && $(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --target build/types .
	MYPYPATH=build/types $(BIN)/mypy -p chexray

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: setup
	$(UV) pip compile --quiet --universal --python-version 3.11 --all-extras --generate-hashes \
		--no-emit-index-url --no-header pyproject.toml -o requirements.lock

clean:
	rm -rf build dist demo-out chaos-out *.egg-info
