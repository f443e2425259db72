# make run   starts a registry on 127.0.0.1:5000, its data under ./var
# make test  installs what the tests need and runs all of them
#
# Both need python3 (3.11 or newer) and nothing else: they keep what they
# install in .venv, and bring that up to date when pyproject.toml changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check --no-input

.DEFAULT_GOAL := help
.PHONY: help run test benchmark lint typecheck check deb image clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile
	@echo "make lint  runs ruff;  make typecheck  runs mypy --strict;  make check  runs both and the tests"
	@echo "make benchmark  runs regd beside docker-registry and nginx, about an hour long; BENCHMARK_ARGS=--quick, --help tell more"
	@echo "make deb  builds the Debian package into dist/ (as root it installs what that needs);  make image  makes a container image of it"
	@echo "make clean  removes .venv and the tools' caches, and leaves ./var alone"

run: $(VENV)/installed
	@mkdir -p var
	$(BIN)/twistd --nodaemon --pidfile= regd --config etc/regd/development.yml

# The exit status is kept for .ci/run: make turns every failure into its own 2.
test: $(VENV)/installed-test
	@status=0; $(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(PYTEST_ARGS) || status=$$?; \
	echo $$status > $(VENV)/pytest-status; exit $$status

benchmark: $(VENV)/installed-benchmark
	@$(BIN)/python -m benchmarks $(BENCHMARK_ARGS)

lint: $(VENV)/installed-dev
	@$(BIN)/ruff check --quiet .

typecheck: $(VENV)/installed-dev
	@$(BIN)/mypy --strict --no-error-summary

check: lint typecheck test

# As root it installs the build dependencies; anybody else is told by dpkg-buildpackage what is missing.
deb:
	@if [ "$$(id -u)" = 0 ]; then \
	    apt-get -qq update >/dev/null && \
	    DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends dpkg-dev fakeroot g++ >/dev/null && \
	    DEBIAN_FRONTEND=noninteractive apt-get -qq build-dep --yes --no-install-recommends ./ >/dev/null; \
	fi
	dpkg-buildpackage -us -uc -b
	@mkdir -p dist
	@version=$$(dpkg-parsechangelog --show-field Version); rm -f dist/regd_*.deb; \
	mv ../regd_$${version}_*.deb dist/ && rm -f ../regd-dbgsym_$${version}_*.deb ../regd_$${version}_*.buildinfo ../regd_$${version}_*.changes; \
	echo "built $$(ls dist/regd_*.deb)"

# Of the package in dist/.
image:
	docker build --tag regd .

clean:
	rm -rf $(VENV) .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist _trial_temp*
	rm -f twisted/plugins/dropin.cache
	find regd tests -name __pycache__ -type d -prune -exec rm -rf {} +

# An editable install: an edited module is served at the next start.
$(VENV)/installed: pyproject.toml | $(BIN)/python
	@echo "installing regd into $(VENV)"
	@$(PIP) install --editable .
	@touch $@

$(VENV)/installed-test: pyproject.toml | $(BIN)/python
	@echo "installing regd and what its tests need into $(VENV)"
	@$(PIP) install --editable '.[test,benchmark]'
	@touch $@ $(VENV)/installed $(VENV)/installed-benchmark

$(VENV)/installed-benchmark: pyproject.toml | $(BIN)/python
	@echo "installing regd and what draws the results into $(VENV)"
	@$(PIP) install --editable '.[benchmark]'
	@touch $@ $(VENV)/installed

$(VENV)/installed-dev: pyproject.toml | $(BIN)/python
	@echo "installing regd, its tests' needs and the linters into $(VENV)"
	@$(PIP) install --editable '.[test,dev,benchmark]'
	@touch $@ $(VENV)/installed $(VENV)/installed-test $(VENV)/installed-benchmark

# Debian keeps the part of Python that makes environments in a package of its own.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "regd needs Python 3.11 or newer and $(PYTHON) is not: make PYTHON=python3.13, for one" >&2; \
	    exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	        echo "installing python3-venv"; \
	        apt-get -qq update >/dev/null && \
	        DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends python3-venv >/dev/null; \
	    else \
	        echo "python3-venv is missing; install it, then run make again: sudo apt-get install python3-venv" >&2; \
	        exit 1; \
	    fi; }
	@$(PYTHON) -m venv $(VENV)
