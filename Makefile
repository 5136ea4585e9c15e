# Everything runs from a virtual environment in this checkout, `.venv`, made on first use. A target installs only what
# it needs; a second run installs nothing. CONTRIBUTING.md says how the lock files work and where torch comes from.

PYTHON ?= python3
PORT ?= $(or $(PRU_PORT),8000)

VENV := .venv
OWN := $(VENV)/bin/python
PY := $(OWN)
PRU := $(VENV)/bin/pru
# `make test-gpu PY=python3` runs in an environment that is there already, and sets none up.
DEV := $(if $(filter $(OWN),$(PY)),$(VENV)/.dev)
PIP := $(OWN) -m pip --disable-pip-version-check install --quiet
COMPILE := $(OWN) -m uv pip compile --quiet --universal --python-version 3.11 --no-annotate \
	--custom-compile-command "make lock"
BACKEND := import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")

# ONNX Runtime would report its use to its makers.
export ORT_DISABLE_TELEMETRY := 1

.PHONY: help serve test test-gpu check docs format bench bench-gpu bench-http lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: $(VENV)/.serve ## serve the bundled model on 127.0.0.1:8000 (PORT= changes it)
	PRU_PORT=$(PORT) $(PRU) serve

# A file's tests share what is slow to make, and so a process.
test: $(VENV)/.dev ## run the tests, a process for each core (ARGS="tests/model -k sequence" chooses)
	$(PY) -m pytest --numprocesses auto --dist loadfile $(ARGS)

test-gpu: $(DEV) ## run the tests that need a GPU (PY=python3 names an interpreter with its packages)
	PRU_TEST_DEVICE=cuda $(PY) -m pytest -m gpu --durations=10 --junit-xml=test-gpu.xml $(ARGS)

check: $(VENV)/.dev ## lint, formatting and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

docs: $(VENV)/.dev ## build the documentation into site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

format: $(VENV)/.dev ## mend what can be mended of lint and formatting
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: $(VENV)/.dev ## measure (ARGS= goes to the benchmarks)
	$(PY) -m benchmarks $(ARGS)

bench-gpu: $(DEV) ## measure every engine on a GPU (PY= as above; ARGS= goes to the benchmarks)
	$(PY) -m benchmarks.gpu $(ARGS)

bench-http: $(VENV)/.dev ## measure the service under load over real sockets
	$(PY) -m benchmarks.http $(ARGS)

lock: | $(OWN) ## write the lock files anew from pyproject.toml; delete one first to let its versions move
	$(PIP) 'uv>=0.9'
	$(COMPILE) pyproject.toml --extra cpu --extra traces --output-file requirements/cpu.lock
	$(COMPILE) pyproject.toml --extra cpu --extra traces --extra train --extra ray --extra dev --constraint requirements/cpu.lock --output-file requirements/dev.lock
	$(COMPILE) pyproject.toml --extra gpu --extra traces --constraint requirements/dev.lock --output-file requirements/gpu.lock
	$(OWN) -c '$(BACKEND)' | $(COMPILE) - --constraint requirements/dev.lock --output-file requirements/build.lock

clean: ## remove the virtual environment and every cache
	rm -rf $(VENV) build dist site test-gpu.xml .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Order-only prerequisites: the interpreter's own time of change says nothing about what is installed.
$(OWN):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed and $(PYTHON) is {sys.version.split()[0]}; name a newer one, for example PYTHON=python3.12")'
	$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }

# The command, which runs what is in this checkout.
$(PRU): | $(OWN)
	$(PIP) --requirement requirements/build.lock
	$(PIP) --no-build-isolation --no-deps --editable .

$(VENV)/.serve: requirements/cpu.lock | $(PRU)
	@echo "Setting up $(VENV) for serving (once; about 200 MB)"
	$(PIP) --requirement $<
	@touch $@

$(VENV)/.dev: requirements/dev.lock | $(PRU)
	@echo "Setting up $(VENV) for training and tests (once; torch is large and can take minutes)"
	$(PIP) --requirement $<
	@touch $@
