# Usher's commands. `make demo` and `make test` are all the set-up: they need Python 3.11 or later, and make.
#
# What is installed is exactly what the locks name, by hash; the project itself comes last, without dependencies.

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2

# Tests wait more than they work: one process more than there are cores.
TESTERS ?= $(shell expr $(JOBS) + 1)

# What pytest has compiled is kept, whatever the environment says: to do it again takes each process seconds.
export PYTHONDONTWRITEBYTECODE :=

bin := $(VENV)/bin
ready := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo demo-keycloak test unit simulate mutants chaos soak bench lint format types contracts check image-test lock clean

help: ## What can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(ready) ## The whole thing at work, without an account or a broker
	$(bin)/usher demo

demo-keycloak: $(ready) ## The same with a real Keycloak, which can then be tried by hand; needs Java and Maven
	$(bin)/python -m tests.demo_keycloak

test: $(ready) ## All tests; those on Kafka and Keycloak need Java and Maven, and say so when they skip
	$(bin)/pytest -n $(TESTERS) --maxschedchunk 1 $(ARGS)

unit: $(ready) ## tests/unit in some seconds: without the simulation and what is heavy, with few examples of each property
	$(bin)/pytest tests/unit -n $(JOBS) --dist worksteal -m "not simulation and not heavy" --hypothesis-profile quick $(ARGS)

mutants: $(ready) ## The engine with one rule taken away at a time: the simulation has to notice
	$(bin)/python -m tests.simulation.mutants --jobs $(JOBS)

simulate: $(ready) ## Random schedules with the real engine (SCHEDULES=1000000, SEED=0)
	$(bin)/python -m tests.simulation.run --jobs $(JOBS) --schedules $(or $(SCHEDULES),3000) --seed $(or $(SEED),0)

chaos: $(ready) ## Workers on a real Kafka while everything fails (MINUTES=10, SEED=7); needs Java and Maven
	$(bin)/python -m tests.chaos

soak: $(ready) ## Kills, steady load, an outage and a flood, into docs/guarantees.md (KILLS=60, MINUTES=10, RATE=50, OUTAGE=45, PHASES=kills,flood); needs Java and Maven
	$(bin)/python -m tests.soak

bench: $(ready) ## Usher beside its limits and its peers, into docs/benchmarks.md (FULL=1: longer); needs Java and Maven
	-$(bin)/python -m pip install --quiet --require-hashes -r requirements-bench.lock
	$(bin)/python -m tests.bench $(if $(FULL),--full --rounds 3) $(ARGS)

lint: $(ready) ## Lint, and see that the formatter would change nothing
	$(bin)/ruff check
	$(bin)/ruff format --check

format: $(ready) ## Let the formatter change what it would
	$(bin)/ruff check --fix
	$(bin)/ruff format

types: $(ready) ## Check types, strictly
	$(bin)/mypy

contracts: $(ready) ## Check that imports go only down the layers
	$(bin)/lint-imports

check: lint types contracts test ## All of these

image-test: $(ready) ## Build the image and see it work; needs root, buildah and mmdebstrap, else skips
	PYTHON=$(bin)/python deploy/image-test

lock: $(ready) ## Choose the newest versions of everything anew
	$(bin)/python -m pip install --quiet pip-tools
	CUSTOM_COMPILE_COMMAND='make lock' $(bin)/pip-compile $(lock_options) --build-deps-for editable --output-file requirements.lock pyproject.toml
	$(call groups,test lint) | CUSTOM_COMPILE_COMMAND='make lock' $(bin)/pip-compile $(lock_options) --constraint requirements.lock --output-file requirements-dev.lock -
	$(call groups,bench) | CUSTOM_COMPILE_COMMAND='make lock' $(bin)/pip-compile $(lock_options) --constraint requirements.lock --constraint requirements-dev.lock --output-file requirements-bench.lock -

clean: ## Take away what these commands made
	rm -rf $(VENV) .cache .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist outbox
	rm -f usher.db usher.db-wal usher.db-shm usher.db.lock
	find service handlers tests -name __pycache__ -type d -prune -exec rm -rf {} +

# pip knows that something is installed, but takes seconds to say so: the stamp is quicker.
$(ready): requirements.lock requirements-dev.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Usher needs Python 3.11 or later, $(PYTHON) is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(bin)/python -m pip install --quiet --require-hashes -r requirements.lock -r requirements-dev.lock
	$(bin)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

lock_options := --quiet --upgrade --generate-hashes --strip-extras --allow-unsafe --no-emit-index-url --no-emit-find-links
groups = $(bin)/python -c 'import tomllib; groups = tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]; print(*(line for name in "$(1)".split() for line in groups[name]), sep="\n")'
