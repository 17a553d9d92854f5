# Two commands need nothing but Python >= 3.11 and make: `make demo` and `make test`.
PYTHON ?= python3
PORT ?= 8000
HOST ?= 127.0.0.1
VENV ?= .venv
BIN = $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-sqlite test-postgres test-django test-long lint asyncapi docs bench build clean matrix

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name it: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[daphne,postgres]"
	@touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[daphne,uvicorn,postgres,drf]" --group test --group third-party --group django-suite
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[daphne,uvicorn,postgres,drf]" --group test --group lint --group docs
	@touch $@

demo: $(VENV)/.demo ## Serve the live demo page (PORT=8000)
	@$(BIN)/python -c "import socket; socket.create_server(('$(HOST)', $(PORT)))" 2>/dev/null || \
		{ echo "Port $(PORT) is taken; choose another: make demo PORT=8001"; exit 1; }
	$(BIN)/python manage.py migrate --verbosity 0
	$(BIN)/python manage.py seed
	@echo "Open http://$(HOST):$(PORT)/"
	PORT=$(PORT) $(BIN)/python manage.py runserver --noreload $(HOST):$(PORT)

test: test-postgres test-sqlite ## Install and pass all tests

test-postgres: $(VENV)/.test
	TEST_DATABASE=postgres $(BIN)/python -m pytest -q --ds=tests.third_party_app.settings \
		tests/third_party_app
	TEST_DATABASE=postgres $(BIN)/python -m pytest -q -n 3 -m "not browser" tests

test-sqlite: $(VENV)/.test
	$(BIN)/python -m pytest -q --ds=tests.third_party_app.settings tests/third_party_app
	$(BIN)/python -m pytest -q -n 3 tests

test-django: $(VENV)/.test ## Django's own ORM tests with every model watched
	$(BIN)/python -m tests.django_suite
	$(BIN)/python -m tests.django_suite --database postgres

test-long: $(VENV)/.test ## Longer runs: all of Django's tests, Django 6.1, PostgreSQL 16, soaks with faults
	PYTHON=$(BIN)/python bash tests/support/long.sh "$(PART)"

lint: $(VENV)/.dev ## ruff, mypy, import-linter, migrations
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python manage.py makemigrations --check --dry-run
	$(BIN)/python manage.py check --fail-level WARNING

asyncapi: $(VENV)/.dev ## Write docs/reference/asyncapi.json from the code and protocol.md
	$(BIN)/python docs/make_asyncapi.py

docs: $(VENV)/.dev ## Build the documentation into docs/_build/html
	$(BIN)/sphinx-build -q -W -b html docs docs/_build/html

$(VENV)/.bench: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[daphne,uvicorn,postgres,drf]" --group test --group bench
	@touch $@

bench: $(VENV)/.bench ## Measure against peers, write docs/benchmarks.md (BENCH=fanout: that one)
	$(BIN)/python -m benchmarks $(BENCH)

build: $(VENV)/.dev ## Build the wheel into dist/ and check what is in it
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m tests.support.packaging dist

matrix: ## Unit tests on the other supported Pythons and Djangos that are installed
	sh tests/support/matrix.sh

clean: ## Remove what these commands made
	rm -rf $(VENV) dist docs/_build demo_project/var .pytest_cache .mypy_cache .ruff_cache
