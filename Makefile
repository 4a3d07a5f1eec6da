# boardhand. Every target does its own set-up from a clean clone; the logs of the set-up are in .cache/.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# mosquitto lives in /usr/sbin on Debian, which is not on an ordinary user's PATH.
export PATH := $(PATH):/usr/sbin:/sbin
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench docs clean packages-python packages-demo packages-test

help:
	@echo "make demo    a farm of virtual boards, from power to finished work"
	@echo "make test    all tests, linters included, with coverage"
	@echo "make lint    the linters alone"
	@echo "make bench   every benchmark in bench/, one after the other"
	@echo "make docs    write the generated documents in docs/ anew"
	@echo "make clean   remove everything that make has made"

demo: packages-demo $(VENV)/.installed
	@$(VENV)/bin/boardhand up --demo

# Most tests wait for timers of real programs, so four at once keep two cores busy.
test: packages-test $(VENV)/.installed
	@$(RUN) -m pytest -n 4 --cov --cov-report=term:skip-covered $(PYTEST_ARGS)

lint: $(VENV)/.installed
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

bench: packages-test $(VENV)/.installed
	@set -e; for bench in bench/*.py; do \
	    case $$bench in 'bench/*.py'|bench/__init__.py) continue ;; esac; \
	    echo "== $$bench"; $(RUN) $$bench; \
	done

docs: $(VENV)/.installed
	@$(RUN) docs/render.py

clean:
	@rm -rf $(VENV) .cache .coverage htmlcov dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

packages-python:
	@./install-packages python

packages-demo:
	@./install-packages demo

packages-test:
	@./install-packages

# The packages come first: on Debian one of them holds what `python3 -m venv` needs.
$(VENV)/.installed: pyproject.toml | packages-python
	@mkdir -p .cache
	@$(RUN) -c '' 2>/dev/null || { echo "environment: making $(VENV) (log: .cache/pip.log)"; \
	    $(PYTHON) -m venv --clear $(VENV) >.cache/pip.log 2>&1 || { cat .cache/pip.log >&2; exit 1; }; }
	@echo "environment: installing boardhand and what it stands on (log: .cache/pip.log)"
	@$(RUN) -m pip install --disable-pip-version-check -e '.[dev]' >.cache/pip.log 2>&1 </dev/null \
	    || { tail -n 15 .cache/pip.log >&2; exit 1; }
	@touch $@
