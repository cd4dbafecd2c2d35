# One short command for each task; everything is installed into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Jupyter refuses to run as root unasked; in a container there is often nobody else.
ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)

# Each Ray starts some twenty Pythons: where they may not keep what they compile, that takes minutes of the tests.
unexport PYTHONDONTWRITEBYTECODE

# What JupyterLab shows is checked with Node, which a machine that was built for without it does not have.
FRONT := sh -c 'if [ -d labextension/node_modules ] && command -v npm >/dev/null; then npm --prefix labextension run --silent "$$0"; else echo "SKIPPED: npm run $$0 of the JupyterLab extension: there is no Node"; fi'

.PHONY: help lab demo test quick check bench clean kube-up kube-down test-kubernetes

help: ## Say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

# Not compiled: that takes half of the time, and Python compiles what it imports.
# That builds the JupyterLab extension, too, where its sources have changed (hatch_build.py).
$(VENV)/.installed: pyproject.toml hatch_build.py $(shell find labextension jupyter_rayoffload/static -type f -not -path '*/node_modules/*' -not -path '*/lib/*' -not -path '*/panel/*')
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --no-compile --editable ".[test,check]"
	@touch $@

lab: $(VENV)/.installed ## JupyterLab with the quickstart open
	$(BIN)/jupyter lab $(ROOT) --ServerApp.root_dir=examples --LabApp.default_url=/lab/tree/quickstart.ipynb

demo: $(VENV)/.installed ## The same notebook without a browser; fails if anything differs from what it should be
	$(BIN)/python examples/demo.py

test: $(VENV)/.installed ## Every test that needs no root: real Ray, Redis and kernels, a browser where there is one
	$(FRONT) test
	$(BIN)/python -m pytest -m "not kubernetes" -n 2 --no-loadscope-reorder

quick: $(VENV)/.installed ## The tests that start neither Ray nor kernels nor a browser
	$(BIN)/python -m pytest -m "not ray and not kernel and not browser and not kubernetes" -n 2

test-kubernetes: $(VENV)/.installed ## Tests on a real Kubernetes, which they start; needs root, Go and Debian packages
	$(BIN)/python -m pytest -m kubernetes

kube-up: $(VENV)/.installed ## Start that Kubernetes and let it run; the tests use it
	$(BIN)/python -m tests.kubernetes.bed up

kube-down: $(VENV)/.installed ## Remove it, and what killed ones have left
	$(BIN)/python -m tests.kubernetes.bed down

check: $(VENV)/.installed ## Style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(FRONT) check

bench: $(VENV)/.installed ## The figures of docs/performance.md
	$(BIN)/python -m benchmarks

clean: ## Remove what the other commands made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
