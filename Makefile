# `make demo` and `make test` need Python 3.11 or newer and a package index, nothing else.

PYTHON ?= python3
VENV ?= .venv
BACKENDS ?= tensorflow jax torch
KERAS_BACKEND ?= jax

PIP_INSTALL = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: demo test test-slow examples notebooks lint types docs bench picture wheel clean

demo: $(VENV)/.demo-$(KERAS_BACKEND)
	KERAS_BACKEND=$(KERAS_BACKEND) $(VENV)/bin/taskrobust demo

# The parts of the tests on each backend, and all that no backend touches, two at a time.
define run_tests
	@{ for part in recipes training downstream others; do for backend in $(BACKENDS); do \
		echo $$backend $$part; done; done; echo backend-free all; } \
		| xargs -P 2 -L 1 tests/part.sh $(VENV)/bin/python "$(1)"
endef

test: $(VENV)/.test
	$(call run_tests,not slow)

test-slow: $(VENV)/.test
	$(call run_tests,slow)

# Each example in its small size, on each of the backends.
examples: $(VENV)/.test
	@set -e; for backend in $(BACKENDS); do for script in examples/*.py; do \
		echo "$$backend: $$script"; \
		SMOKE=1 MPLBACKEND=agg KERAS_BACKEND=$$backend $(VENV)/bin/python $$script; \
	done; done

# The notebooks from the examples, with the output of their full size.
notebooks: $(VENV)/.test
	$(VENV)/bin/python examples/notebooks/generate.py

lint: $(VENV)/.test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/.test
	$(VENV)/bin/mypy

# The pages, in build/docs; a warning is an error, and a broken link inside them is a warning.
docs: $(VENV)/.docs
	KERAS_BACKEND=$(KERAS_BACKEND) $(VENV)/bin/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo "Open build/docs/index.html"

# All benchmarks of speed, into benchmarks/results: hours on a processor.
bench: $(VENV)/.test
	@$(PIP_INSTALL) --editable ".[bench]"
	$(VENV)/bin/python -m benchmarks

# The picture of the README, from benchmarks/results.
picture: $(VENV)/.docs
	KERAS_BACKEND=$(KERAS_BACKEND) $(VENV)/bin/python docs/figures.py

# Builds the wheel, installs it in a fresh environment elsewhere, and imports it there.
wheel: $(VENV)/.test
	$(VENV)/bin/python -m build --wheel --outdir build/wheel .
	rm -rf build/venv && $(PYTHON) -m venv build/venv
	build/venv/bin/python -m pip install --quiet --constraint constraints.txt build/wheel/*.whl jax
	cd / && KERAS_BACKEND=jax $(CURDIR)/build/venv/bin/python -c "import keras_taskrobust as ktr; print(ktr.weighting.available())"

clean:
	rm -rf $(VENV) build

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo-%: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing the library and the $* backend into $(VENV) ..."
	@$(PIP_INSTALL) --editable ".[models,$*]"
	@touch $@

$(VENV)/.docs: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing the library, the $(KERAS_BACKEND) backend and Sphinx into $(VENV) ..."
	@$(PIP_INSTALL) --editable ".[models,$(KERAS_BACKEND),docs]"
	@touch $@

$(VENV)/.test: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing the library, three backends and the test tools into $(VENV) ..."
	@$(PIP_INSTALL) --editable ".[models,tensorflow,jax,torch,keras-cv,tensorboard,dev]"
	@touch $@
