# `make` alone prints this help. Everything here may be run again at any time; what is done already costs nothing.

PYTHON := .venv/bin/python
STAMP := .venv/.installed
UV := .build/uv/bin/uv
UV_VERSION := 0.13.9
ATHERIS := atheris>=3,<4
FUZZ_SECONDS ?= 60
LOCK := $(UV) pip compile --quiet --upgrade --custom-compile-command "make lock"
IMAGE_LOCK := $(LOCK) --generate-hashes --no-annotate --python-version 3.13 --python-platform linux

.DEFAULT_GOAL := help
.PHONY: help venv up down demo test test-fast attacks fuzz check proto image bench lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

venv: $(STAMP) ## the virtual environment in .venv

$(STAMP): pyproject.toml requirements-dev.lock
	@.ci/venv
	@touch $@

up: $(STAMP) ## a Docker engine, the executor image, a self-check, the orchestrator service in the background
	@$(PYTHON) -m orchestrator.stack up
	@$(PYTHON) -m orchestrator.cli doctor --brief
	@$(PYTHON) -m orchestrator.cli serve --background

down: $(STAMP) ## ends the service, removes every container, socket and file of a session; engine and images stay
	@$(PYTHON) -m orchestrator.cli stop
	@$(PYTHON) -m orchestrator.stack down

demo: up ## an agent solves the party task, its code running in a container
	@$(PYTHON) -m orchestrator.demo

test: up ## all tests, those that need containers included
	$(PYTHON) -m tests

test-fast: $(STAMP) ## the tests that need no engine
	$(PYTHON) -m pytest -m "not docker"

attacks: up ## tries to break out of a sandbox in every way of the corpus, and tells what held it (part of `make test`)
	$(PYTHON) -m pytest tests/attacks

fuzz: $(STAMP) ## looks for input that breaks host or supervisor; FUZZ_SECONDS=60 for each of a dozen properties
	@$(PYTHON) -c "import atheris" 2>/dev/null || $(PYTHON) -m pip install --quiet "$(ATHERIS)" || echo "without atheris"
	@$(PYTHON) -m tests.hostile.fuzz $(FUZZ_SECONDS)

check: $(STAMP) ## format, lint, types, directions of imports, drift of the generated stubs
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy
	.venv/bin/lint-imports
	$(PYTHON) proto/stubs.py check

proto: $(STAMP) ## generates the stubs from executor.proto and orchestrator.proto again
	$(PYTHON) proto/stubs.py write

image: up ## the same as up: an engine, and the image built if a source of it has changed

bench: up ## the figures of this machine, beside a bare gRPC echo and a plain docker run
	@$(PYTHON) -m benchmarks

lock: ## newer versions into every lock file, within the ranges of pyproject.toml and executor_image/*.in
	@test -x $(UV) || { python3 -m venv .build/uv && .build/uv/bin/pip install --quiet uv==$(UV_VERSION); }
	$(LOCK) --universal --python-version 3.11 --extra dev pyproject.toml -o requirements-dev.lock
	cd executor_image && for part in supervisor runner build; do \
	    ../$(IMAGE_LOCK) requirements-$$part.in -o requirements-$$part.lock || exit 1; done

clean: ## removes what was generated here: the virtual environment and caches
	rm -rf .venv .build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
