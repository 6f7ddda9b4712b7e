# make demo: see it work.  make test: check it.  make up: develop with it.
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: install demo up test test-all test-upstream faults check docs bench bench-field clean

install: .venv/installed

.venv/installed: requirements.txt requirements-dev.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'Python 3.11 or newer is needed: make PYTHON=python3.12 …'; exit 1; }
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check \
		-r requirements-dev.txt -c constraints.txt
	@touch $@

demo: install
	@python -m examples.demo

# Everything of Procfile.dev, restarted when code changes. Ctrl-C stops all of it.
up: install
	@python -m examples.up

# Each process has a server of its own. To debug: `pytest tests/test_x.py`, in one process.
PYTEST = python -m pytest -n 4 --dist worksteal

test: install
	@$(PYTEST) -m 'not slow and not upstream'

# What CI runs: millions of rows, soaks, and other people's software beside ours too.
test-all: .venv/installed-for-ci
	@$(PYTEST)

.venv/installed-for-ci: .venv/installed .venv/installed-for-docs requirements-ci.txt
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check \
		-r requirements-ci.txt -c constraints.txt
	@touch $@

# RQ's own tests of its worker, with JobWorker in its place; a part of `make test-all`.
test-upstream: install
	@python -m tests.upstream.rq_tests

# The fault tests of `make test-all`, each storm for a minute.
faults: install
	@FAULT_SECONDS=$${FAULT_SECONDS:-60} python -m pytest -m faults

check: install
	@ruff check .
	@ruff format --check .
	@lint-imports --no-cache --no-logo
	@mypy

# The pages of docs/ as a site, in dist/docs. What does not fit together is an error.
docs: .venv/installed-for-docs
	@python -m sphinx --quiet --fail-on-warning --keep-going docs dist/docs

.venv/installed-for-docs: .venv/installed requirements-docs.txt
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check \
		-r requirements-docs.txt -c constraints.txt
	@touch $@

# Beside RQ, other SVG writers, csv + json, pandas and, in an environment of its own, Celery.
bench: .venv/benched .venv/celery/bin/celery
	@python -m benchmarks.client
	@python -m benchmarks.worker --celery .venv/celery/bin/celery
	@python -m benchmarks.metrics
	@python -m benchmarks.growth
	@python -m benchmarks.outbox
	@python -m benchmarks.svg
	@python -m benchmarks.tasks
	@python -m benchmarks.imports

# JobWorker beside the other job queues on Redis, each in an environment of its own. `make bench-field
# FIELD='--only rq,huey --quick'` is for those who change it.
FIELD_PEERS = rq celery dramatiq huey arq saq streaq taskiq
bench-field: install $(FIELD_PEERS:%=.venv/field/%/installed)
	@python -m benchmarks.field $(FIELD)

.venv/field/%/installed: benchmarks/field/requirements-%.txt
	@python -m venv .venv/field/$*
	@.venv/field/$*/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

.venv/celery/bin/celery: benchmarks/requirements-celery.txt
	@python -m venv .venv/celery
	@.venv/celery/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

.venv/benched: .venv/installed benchmarks/requirements.txt
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check \
		-r benchmarks/requirements.txt -c constraints.txt
	@touch $@

clean:
	rm -rf .venv dist output var .mypy_cache .ruff_cache .pytest_cache .hypothesis
