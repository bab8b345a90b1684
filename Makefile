# make demo       the whole job on an embedded stand-in hand and dataset
# make test       lint, types and tests
# make test-slow  the tests that take minutes each
# PYTHON=python3.13 chooses the interpreter: 3.11, 3.12 or 3.13

PYTHON ?= python3
VENV := .venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
RUN := $(VENV)/bin/python
OUT := outputs/demo

.PHONY: demo test test-slow

demo: $(VENV)/run.ready
	$(RUN) -m data_pipeline.synthetic --raw_dir=$(OUT)/raw
	$(RUN) -m data_pipeline.build interhand26m --raw_dir=$(OUT)/raw --data_dir=$(OUT)/datasets \
		--mano_dir=stand_in
	$(RUN) -m er_jax.commands.demo --raw_dir=$(OUT)/raw --data_dir=$(OUT)/datasets --workdir=$(OUT)/run

test: $(VENV)/test.ready
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(RUN) -m pytest --numprocesses=2 --dist=loadfile

test-slow: $(VENV)/slow.ready
	$(RUN) -m pytest -m slow

$(VENV)/run.ready: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --no-compile --requirement requirements.txt
	touch $@

$(VENV)/test.ready: $(VENV)/run.ready requirements-test.txt
	$(RUN) -m pip install --quiet --no-compile --requirement requirements-test.txt
	touch $@

$(VENV)/slow.ready: $(VENV)/test.ready requirements-slow.txt
	$(RUN) -m pip install --quiet --no-compile --requirement requirements-slow.txt
	touch $@
