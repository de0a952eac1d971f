# `make demo`: set up, then run the whole chain on the built-in data. `make test`: set up, then check and test.
# `make quick`: the checks and the tests that take no whole command, in less than 90 seconds.
# `make newest`: these tests and whole commands on Python 3.13, where it is at hand.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
export PATH := $(BIN):$(PATH)
export MLFLOW_DISABLE_TELEMETRY ?= true

STUDY_DATASETS ?= audioMNIST SpeechCommands
STUDY_NETWORKS ?= VGGishMel CTCmel ViTmel
STUDY_REQUESTS ?= item:forget_percentage=10 item:forget_percentage=20 item:forget_percentage=30 \
	class:forget_classes_num=1 class:forget_classes_num=2 class:forget_classes_num=3

.PHONY: env demo test quick newest on-newest check ui study clean

env: $(VENV)/ready

demo: $(VENV)/ready
	mlflow run . --env-manager local -P forget_percentage=30 -P methods=naive,gradient_ascent,pop,fine_tune

test: $(VENV)/cluster $(VENV)/pretrained check
	OMP_NUM_THREADS=1 python -m pytest -n 2 --dist loadfile --durations=10

quick: check
	OMP_NUM_THREADS=1 python -m pytest -n 2 --dist loadfile -m "not slow"

newest:
	@python=$$(for p in python3.13 $(HOME)/.pyenv/versions/3.13.*/bin/python3.13; do \
	    $$p -c 'import venv' 2>/dev/null && echo $$p && break; done); \
	if [ -z "$$python" ]; then echo "Python 3.13 is not at hand: not tried"; else \
	  $(MAKE) PYTHON=$$python VENV=.venv-3.13 on-newest; fi

on-newest: $(VENV)/cluster
	OMP_NUM_THREADS=1 python -m pytest -n 2 --dist loadfile -m "not slow"
	OMP_NUM_THREADS=1 python -m pytest tests/test_end_to_end.py

check: $(VENV)/ready
	ruff check .
	ruff format --check .
	mypy

ui: $(VENV)/ready
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow server --workers 1 --backend-store-uri sqlite:///$(CURDIR)/mlflow.db

# The study's tables with its settings. Finished steps are reused: stop it when you like, run it again to go on.
study: $(VENV)/ready
	set -e; for dataset in $(STUDY_DATASETS); do for network in $(STUDY_NETWORKS); do for request in $(STUDY_REQUESTS); do \
	  mlflow run . --env-manager local -P dataset=$$dataset -P architecture=$$network \
	    -P forget=$${request%%:*} -P $${request#*:} $(STUDY_OPTIONS); \
	done; done; done

$(VENV)/ready: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/cluster: requirements-cluster.txt $(VENV)/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-cluster.txt
	touch $@

$(VENV)/pretrained: requirements-pretrained.txt $(VENV)/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-pretrained.txt
	touch $@

clean:
	rm -rf $(VENV) .venv-3.13
