# make install   a .venv with exactly the packages of requirements.lock
# make study     install, then run the study; ARGS are its arguments: make study ARGS='--help'
# make pool      the default study on five worlds, over an hour, and all of them as one answer: docs/pool*.csv and figure
# make check     lint, types and the quick tests, on two families of models; of one room: make check ROOM=metrics
# make test      lint, types and all tests that do not repeat others; with CI=true, as in CI, it is make test-all
# make test-all  the repetitions, too; ARGS go to pytest, here as above: make test ARGS='-k cluster'
# make tools     a browser, a LaTeX and moto's AWS, without which some tests are skipped; CI does it first
# make lock      resolve pyproject.toml afresh into the two lock files; TORCH=2.14.0 moves torch too
# make clean     remove the .venv and every cache (not runs/)

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: install study pool lint tools check test test-all lock clean

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
ARGS ?=
ROOM ?=
TORCH ?= 2.13.0

# Sets $$python to the first Python >= 3.11 that can make a .venv; PYTHON=/path/to/python is tried first.
define FIND_PYTHON
python=; found=; \
for candidate in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
    command -v "$$candidate" > /dev/null || continue; \
    version=$$("$$candidate" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2> /dev/null) \
        || version='does not run'; \
    found="$$found $$candidate ($$version"; \
    if ! "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then found="$$found)"; \
    elif ! "$$candidate" -c 'import ensurepip, venv' 2> /dev/null; then found="$$found, lacks its venv module)"; \
    else python=$$candidate; break; fi; \
done; \
if [ -z "$$python" ]; then \
    echo "A Python >= 3.11 with its venv module is needed (on Debian: apt-get install python3 python3-venv)." >&2; \
    echo "Found:$${found:- none on the PATH}. Name another with: make install PYTHON=/path/to/python" >&2; \
    exit 1; \
fi
endef

install: .venv/.installed

.venv/.installed: requirements.lock pyproject.toml
	@if ! $(BIN)/python -m pip --version > /dev/null 2>&1; then \
	    $(FIND_PYTHON); \
	    echo "Making .venv with $$("$$python" --version)"; \
	    "$$python" -m venv --clear .venv; \
	fi
	@echo "Installing the $$(grep -c == requirements.lock) packages of requirements.lock (minutes, the first time)"
	@$(PIP) install --upgrade pip
	@$(PIP) install -r requirements.lock
	@$(PIP) install --no-deps --editable .
	@touch $@

.venv/.installed-test: requirements-test.lock .venv/.installed
	@echo "Installing the $$(grep -c == requirements-test.lock) packages of requirements-test.lock"
	@$(PIP) install -r requirements-test.lock
	@touch $@

study: install
	@$(BIN)/python study/run.py $(ARGS)

# The seeds of the benchmark; a study that is there continues, so an interrupted pool does, too.
WORLDS := 0 1 2 3 4

pool: install
	@for world in $(WORLDS); do \
	    $(BIN)/python study/run.py tiny --benchmark synthetic:seed=$$world --study-dir runs/worlds/$$world; \
	done
	@$(BIN)/python -m analysis --pool $(WORLDS:%=runs/worlds/%)
	@cp runs/worlds/pool/tables/pool*.csv docs
	@cp runs/worlds/pool/figures/pool.png docs/figures/pool.png
	@echo "README's ranking is runs/worlds/pool/tables/pool.md"

lint: .venv/.installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# A file is run by one process, which makes what its tests share once; the order is that of tests/conftest.py. The many
# processes that tests start import the project compiled, whatever the environment says about that.
PYTEST = PATH="$$PATH:$(abspath .venv/moto/bin)" PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 \
         $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

# Debian's packages are installed by root alone, and moto into an environment of its own, as its packages need not agree
# with those of a study. What cannot be installed is named, and its tests are skipped.
tools: .venv/.installed-test
	@lacking=; \
	command -v chromium > /dev/null || command -v google-chrome > /dev/null || lacking="$$lacking chromium"; \
	command -v pdflatex > /dev/null || lacking="$$lacking texlive-latex-recommended"; \
	if [ -n "$$lacking" ] && [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then apt-get -qq update || true; fi; \
	for package in $$lacking; do \
	    echo "Installing $$package"; \
	    DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends $$package > /dev/null \
	    || echo "Without root on Debian and $$package there, tests that need it are skipped" >&2; \
	done
	@if [ ! -x .venv/moto/bin/moto_server ]; then \
	    echo "Installing moto into .venv/moto"; \
	    { $(BIN)/python -m venv .venv/moto && \
	    .venv/moto/bin/python -m pip --disable-pip-version-check -qq install 'moto[server,ec2,s3,iam]==5.2.1'; } \
	    || echo "moto cannot be installed: tests that need it are skipped" >&2; \
	fi

check: lint
	$(PYTEST) -m 'not slow and not further_families and not combinations' --hypothesis-profile quick \
	    $(if $(ROOM),tests/$(ROOM)) $(ARGS)

test: $(if $(filter true,$(CI)),tools) lint
	$(PYTEST) $(if $(filter true,$(CI)),,-m 'not combinations') --durations=40 $(ARGS)

test-all:
	@$(MAKE) test CI=true

# What the accelerator's own wheels bring along (nvidia-*, cuda-*, triton) and a wheel's local version (+cpu) differ
# from machine to machine, so they are left to the pin of torch.
PINS = $(1)/bin/python -m pip freeze --all --exclude pip --exclude-editable --exclude mllm-unlearning-study \
       | sed -E 's/\+[a-z0-9.]+$$//' | grep -vE '^(nvidia|cuda|triton)' | LC_ALL=C sort -f

lock:
	@$(FIND_PYTHON); \
	fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; \
	echo "Resolving pyproject.toml with $$("$$python" --version) (minutes)"; \
	"$$python" -m venv "$$fresh"; pip="$$fresh/bin/python -m pip --disable-pip-version-check -qq"; \
	$$pip install --upgrade pip; $$pip install torch==$(TORCH); $$pip install .; \
	$(call PINS,"$$fresh") > "$$fresh/runtime"; \
	$$pip install '.[test]'; \
	$(call PINS,"$$fresh") > "$$fresh/all"; \
	if grep -v '==' "$$fresh/all"; then echo 'These are not pinned by version' >&2; exit 1; fi; \
	{ echo '-r requirements.lock'; grep -vxFf "$$fresh/runtime" "$$fresh/all"; } > "$$fresh/test"; \
	cp "$$fresh/runtime" requirements.lock; cp "$$fresh/test" requirements-test.lock; \
	wc -l requirements.lock requirements-test.lock

clean:
	@rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find study search_spaces analysis tests -name __pycache__ -type d -prune -exec rm -rf {} +
