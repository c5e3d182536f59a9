# BreedCAM's commands. A new machine needs Python 3.11 or later and make; the rest is installed
# here, into $(VENV), with pinned versions and checked hashes.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.SUFFIXES:

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
UPGRADE ?=

ifeq ($(strip $(VENV)),)
$(error VENV is empty)
endif

run := $(VENV)/bin/python
stamps := $(addprefix $(VENV)/.,serve otel ray gpu train onnx int8 perturbation dev)

# Which sets of requirements another one contains, with the same pins.
covers.otel := serve
covers.ray := serve
covers.gpu := serve
covers.train := serve
covers.onnx := serve train
covers.int8 := serve train
covers.perturbation := serve train
covers.dev := serve otel ray train onnx int8 perturbation

# Wheels only, but for what its author publishes as source alone: lime, and promise, which
# tensorflow-datasets needs.
sources.train := --no-binary promise
sources.onnx := $(sources.train)
sources.int8 := $(sources.train)
sources.perturbation := --no-binary promise --no-binary lime
sources.dev := $(sources.perturbation)

# False while $(VENV) is absent, was interrupted half-way, or has lost the Python it was made with.
sound = test ! -e $(VENV)/.unfinished && $(run) -c 'import pip' 2>/dev/null

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "  PYTHON=...          the Python to make the virtual environment with; now $(PYTHON)"
	@echo "  VENV=...            where the virtual environment is; now $(VENV)"
	@echo "  ARGS=\"...\"          passed on by test, test-slow, soak, container-check, train and bench"

.PHONY: serve
serve: $(VENV)/.serve ## serve on http://127.0.0.1:8000; BREEDCAM_* variables are its settings
	@$(run) -m app.main

.PHONY: test
test: $(VENV)/.dev ## run the tests but the slow ones
	$(run) -m pytest -m 'not slow' -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

.PHONY: test-slow
test-slow: $(VENV)/.dev ## run the slow tests only
	$(run) -m pytest -m slow $(ARGS)

.PHONY: soak
soak: $(VENV)/.dev ## attack a service for half an hour beside honest clients
	BREEDCAM_SOAK_S=1800 $(run) -m pytest -s tests/app/test_soak.py $(ARGS)

.PHONY: container-check
container-check: $(VENV)/.dev ## build the image and run it; as root on Debian, installs and starts Docker
	CI=1 .ci/with-engine $(run) -m pytest -m slow tests/deploy/test_containers.py $(ARGS)

.PHONY: lint
lint: $(VENV)/.dev ## check style, types, imports, YAML and the Dockerfile
	$(run) -m ruff check .
	$(run) -m ruff format --check .
	$(run) -m mypy
	$(run) -m mypy .ci/smoke.py
	$(run) -m mypy .ci/audit.py
	$(run) -m mypy deploy/probe.py
	$(VENV)/bin/lint-imports
	$(run) -m yamllint --strict .
	$(VENV)/bin/hadolint Dockerfile

.PHONY: audit
audit: $(VENV)/.dev ## look up known vulnerabilities of the pinned packages
	$(run) .ci/audit.py

.PHONY: train
train: $(VENV)/.train ## train a model; ARGS="--help" lists the options
	$(run) -m training train $(ARGS)

.PHONY: bench
bench: $(VENV)/.dev ## measure it all, write docs/performance.md; ARGS="--help" lists the options
	$(run) -m benchmarks --write $(ARGS)

# dev first: it holds every package of the others but CUDA's, and so decides their versions.
compile = $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 \
	--no-emit-index-url --generate-hashes --custom-compile-command 'make requirements' \
	$(if $(UPGRADE),--upgrade) pyproject.toml

.PHONY: requirements
requirements: $(VENV)/.dev ## pin what pyproject.toml asks for; UPGRADE=1 takes newer versions
	$(compile) --extra train --extra otel --extra ray --extra onnx --extra int8 \
		--extra perturbation --extra dev -o requirements/dev.txt
	$(compile) --extra train -c requirements/dev.txt -o requirements/train.txt
	$(compile) --extra train --extra onnx -c requirements/dev.txt -o requirements/onnx.txt
	$(compile) --extra train --extra int8 -c requirements/dev.txt -o requirements/int8.txt
	$(compile) --extra train --extra perturbation -c requirements/dev.txt \
		-o requirements/perturbation.txt
	$(compile) --extra gpu -c requirements/dev.txt -o requirements/gpu.txt
	$(compile) -c requirements/dev.txt -o requirements/serve.txt
	$(compile) --extra otel -c requirements/dev.txt -o requirements/otel.txt
	$(compile) --extra ray -c requirements/dev.txt -o requirements/ray.txt

.PHONY: clean
clean: ## remove caches; the virtual environment, runs/ and models/ stay
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -rf .import_linter_cache
	find $(wildcard app training tests benchmarks .ci) -name __pycache__ -prune -exec rm -rf {} +

.PHONY: unsound
unsound:

# pip leaves half a package behind when it is interrupted, and later takes it for a whole one:
# so `.unfinished` is there while it works, and what was unfinished is made anew.
$(stamps): $(VENV)/.%: requirements/%.txt $(if $(shell $(sound) && echo yes),,unsound)
	@$(sound) || { $(create); }
	@echo "installing $< into $(VENV)"
	@touch $(VENV)/.unfinished
	@$(run) -m pip install --quiet --disable-pip-version-check --require-hashes \
		--only-binary :all: $(sources.$*) -r $<
	@rm $(VENV)/.unfinished
	@touch $@ $(addprefix $(VENV)/.,$(covers.$*))

fail = { echo "error: $(1)" >&2; exit 1; }
define create
$(PYTHON) -c '' 2>/dev/null || $(call fail,$(PYTHON) does not run; name a Python 3.11 or later: make PYTHON=...); \
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	$(call fail,$$($(PYTHON) --version) is too old; name a Python 3.11 or later: make PYTHON=...); \
$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	$(call fail,$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv); \
test ! -e $(VENV) || test -e $(VENV)/pyvenv.cfg || test -e $(VENV)/.unfinished || \
	$(call fail,$(VENV) is there and is no virtual environment); \
echo "making $(VENV) with $$($(PYTHON) --version)"; \
rm -rf $(VENV) && mkdir -p $(VENV) && touch $(VENV)/.unfinished && $(PYTHON) -m venv $(VENV)
endef
