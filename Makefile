# `make help` lists the commands. Each sets up what it needs, locked by hash, in .venv.

PYTHON ?=
BIN := .venv/bin
SET_UP := @.ci/set-up "$(PYTHON)"
# Lock files are committed: no registry host and no path of a machine may stand in them.
LOCK := $(BIN)/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 \
	--no-emit-index-url --no-emit-find-links --no-header --no-annotate

.PHONY: help demo test lint docs bench chaos lock clean

help: ## This list
	@echo "Flybridge: make COMMAND"
	@echo
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-9s %s\n", $$1, $$2}'
	@echo
	@echo "PYTHON=/path/to/python3.12 names the Python to set up .venv with (3.11 or later)."

demo: .venv/.runs ## Try it: no Redis, no Docker, no Feishu app; counted at the end (a minute)
	$(BIN)/flybridge demo

test: .venv/.installed .venv-interop/.installed ## The whole test suite (8 minutes on two cores); TESTS="tests/handlers -x" for a part
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile $(TESTS)

bench: .venv/.installed .venv-interop/.installed ## Benchmarks, beside their peers; BENCH=--help tells which
	$(BIN)/python tests/benchmarks/run.py $(BENCH)

# By default a random seed, which is printed first with the casting that it has.
chaos: .venv/.installed ## Faults at random: SEED=7 EVENTS=100000 FAULTS=1-9,30 POOLS=asyncio,inline DURABILITY=replica:1 TOPOLOGY=cluster
	$(BIN)/python -m tests.chaos.run $(if $(SEED),--seed $(SEED)) \
		$(if $(EVENTS),--events $(EVENTS)) $(if $(FAULTS),--faults $(FAULTS)) \
		$(if $(POOLS),--pools $(POOLS)) $(if $(DURABILITY),--durability $(DURABILITY)) \
		$(if $(TOPOLOGY),--topology $(TOPOLOGY))

lint: .venv/.installed ## Style, types, and which module may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv-docs/.installed ## The documentation, into build/docs; a warning is an error
	.venv-docs/bin/sphinx-build --fail-on-warning --keep-going --fresh-env --quiet \
		-d build/doctrees docs build/docs
	@echo "read build/docs/index.html"

clean: ## Remove environments, builds and caches
	rm -rf .venv .venv-docs .venv-interop build dist
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -rf .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

lock: | .venv/bin/python ## Lock the dependencies anew, after a change of them in pyproject.toml
	$(BIN)/python -m pip install --quiet uv
	$(LOCK) pyproject.toml --extra dev -o requirements.txt
	$(LOCK) pyproject.toml --extra dev --group build --group test --group lint \
		-c requirements.txt -o requirements-dev.txt
	$(LOCK) --group build -c requirements-dev.txt -o requirements-build.txt
	$(LOCK) pyproject.toml --group build --group docs -c requirements-dev.txt -o requirements-docs.txt
	$(LOCK) --group interop -o requirements-interop.txt

# The stamps are older than what they were made from exactly when there is something to do.
.venv/.installed: requirements-dev.txt pyproject.toml
	$(SET_UP) .venv requirements-dev.txt --editable
	@touch .venv/.runs $@

# What the demo needs: a part of the above, in half the time.
.venv/.runs: requirements.txt requirements-build.txt pyproject.toml
	$(SET_UP) .venv requirements.txt requirements-build.txt --editable
	@touch $@

.venv-docs/.installed: requirements-docs.txt pyproject.toml
	$(SET_UP) .venv-docs requirements-docs.txt --editable
	@touch $@

.venv-interop/.installed: requirements-interop.txt
	$(SET_UP) .venv-interop requirements-interop.txt
	@touch $@

.venv/bin/python:
	$(SET_UP) .venv requirements-build.txt
