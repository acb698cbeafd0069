# Two commands are enough: `make demo` and `make test`. All others are parts of them.
# Needs Python 3.11 or later; everything else is fetched, locked by hash, into .venv.

PYTHON ?= python3
BIN := .venv/bin
PIP := --disable-pip-version-check --no-input --quiet --quiet
# Lock files are committed: no registry host and no path of a machine may stand in them.
LOCK := $(BIN)/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 \
	--no-emit-index-url --no-emit-find-links --no-header --no-annotate

.PHONY: demo test bench chaos lint docs clean lock

demo: .venv/.installed
	$(BIN)/flybridge demo

test: .venv/.installed .venv-interop/.installed
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile $(TESTS)

bench: .venv/.installed .venv-interop/.installed
	$(BIN)/python tests/benchmarks/run.py $(BENCH)

# SEED=7 EVENTS=100000 FAULTS=1-9,30 POOLS=asyncio,inline DURABILITY=replica:1; by default a random
# seed, which is printed first with the pools and the durability that it has.
chaos: .venv/.installed
	$(BIN)/python -m tests.chaos.run $(if $(SEED),--seed $(SEED)) \
		$(if $(EVENTS),--events $(EVENTS)) $(if $(FAULTS),--faults $(FAULTS)) \
		$(if $(POOLS),--pools $(POOLS)) $(if $(DURABILITY),--durability $(DURABILITY))

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Pages in build/docs; a warning is an error.
docs: .venv-docs/.installed
	.venv-docs/bin/sphinx-build --fail-on-warning --keep-going --fresh-env --quiet \
		-d build/doctrees docs build/docs
	@echo "read build/docs/index.html"

clean:
	rm -rf .venv .venv-docs .venv-interop build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -rf .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# After a change of dependencies in pyproject.toml.
lock: | .venv/bin/python
	$(BIN)/python -m pip install $(PIP) uv
	$(LOCK) pyproject.toml --extra dev -o requirements.txt
	$(LOCK) pyproject.toml --extra dev --group build --group test --group lint \
		-c requirements.txt -o requirements-dev.txt
	$(LOCK) --group build -c requirements-dev.txt -o requirements-build.txt
	$(LOCK) pyproject.toml --group build --group docs -c requirements-dev.txt -o requirements-docs.txt
	$(LOCK) --group interop -o requirements-interop.txt

# The stamps are older than what they were made from exactly when there is something to do.
.venv/.installed: requirements-dev.txt pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install $(PIP) --require-hashes -r requirements-dev.txt
	$(BIN)/python -m pip install $(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

.venv-docs/.installed: requirements-docs.txt pyproject.toml | .venv-docs/bin/python
	.venv-docs/bin/python -m pip install $(PIP) --require-hashes -r requirements-docs.txt
	.venv-docs/bin/python -m pip install $(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

.venv-interop/.installed: requirements-interop.txt | .venv-interop/bin/python
	.venv-interop/bin/python -m pip install $(PIP) --require-hashes -r requirements-interop.txt
	@touch $@

%/bin/python:
	@.ci/make-venv $(PYTHON) $*
