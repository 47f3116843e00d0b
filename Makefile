# Works on a fresh clone with Python 3.11, make and a package registry. Registry options are pip's own: PIP_EXTRA_INDEX_URL and so on.

PYTHON ?= python3.11 python3  # candidates; the first that is Python 3.11 is used
VENV := .venv
BIN := $(VENV)/bin
SIDE_BY_SIDE := -j "$$(getconf _NPROCESSORS_ONLN)"
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help env demo pictures results results-other-bits results-other-bits-emoji32 results-other-bits-digits28 results-base-quantizer results-element-bias results-calibration scale test test-python test-android test-arm test-ios apk lint format clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-27s %s\n", $$1, $$2}' Makefile

env: $(VENV)/.installed-core ## Create .venv with everything the exporter needs (once)
	@echo "$(VENV) is ready"

demo: env ## Export the bundled model for both systems at w8a8 and w4a8, simulate the phones, write build/report.html
	@mkdir -p build
	$(BIN)/mobile-export export emoji32 -o build/emoji32-w8a8 --precision w8a8
	$(BIN)/mobile-export export emoji32 -o build/emoji32-w4a8 --precision w4a8
	$(BIN)/mobile-export simulate build/emoji32-w4a8 -n 16 --seed 7 --target executorch -o build/emoji32-w4a8-executorch.png
	$(BIN)/mobile-export simulate build/emoji32-w4a8 -n 16 --seed 7 --target coreml -o build/emoji32-w4a8-coreml.png
	$(BIN)/mobile-export report build/emoji32-w8a8 build/emoji32-w4a8 -n 32 -o build/report.html
	@echo "Report: $(CURDIR)/build/report.html"

pictures: env ## Draw the pictures of the README again, from the bundle that make demo made
	$(BIN)/python benchmarks/pictures.py build/emoji32-w4a8 -o docs/pictures --samples mobile_export/zoo/emoji32/samples.png

build/emoji32-w8a8 build/emoji32-w4a8: build/emoji32-%: | env
	@mkdir -p build
	$(BIN)/mobile-export export emoji32 -o $@ --precision $*

results: env ## Make the tables and pictures of docs/results.md from nothing; takes hours, and goes on where it was interrupted
	$(MAKE) $(SIDE_BY_SIDE) build/emoji32-w8a8 build/emoji32-w4a8
	$(BIN)/python benchmarks/results.py build/results
	$(MAKE) $(SIDE_BY_SIDE) results-other-bits results-base-quantizer results-element-bias results-calibration
	$(BIN)/python benchmarks/correction_cost.py build/results/emoji32-w4a8 build/results/digits28-w4a8
	$(BIN)/python benchmarks/bundle_tables.py build/emoji32-w8a8 build/emoji32-w4a8
	$(MAKE) pictures

results-other-bits: results-other-bits-emoji32 results-other-bits-digits28 ## The tables of bits that no artifact has, part of make results

results-other-bits-emoji32: env ## That of emoji32 alone
	$(BIN)/python benchmarks/other_bits.py emoji32 build/results/emoji32-other-bits.study

results-other-bits-digits28: env ## That of digits28 alone
	$(BIN)/python benchmarks/other_bits.py digits28 build/results/digits28-other-bits.study

results-base-quantizer: env ## The table of the base quantizer, part of make results
	$(BIN)/python benchmarks/base_quantizer.py emoji32

results-element-bias: env ## The table of a bias for each element, part of make results
	$(BIN)/python benchmarks/element_bias.py build/results/emoji32-w4a8 build/results/digits28-w4a8

results-calibration: env ## The table of calibration sizes, part of make results
	$(BIN)/python benchmarks/calibration_size.py build/results/digits28-w8a8 build/results/calibration

scale: env ## Export a model of the size of Stable Diffusion 1.5; takes 12 GB of disk, 12 GB of memory and half an hour or more
	$(BIN)/python benchmarks/scale.py build/scale --precision w8a8
	$(BIN)/python benchmarks/scale.py build/scale --precision w4a8 --unet-only

test: test-python test-android test-ios test-arm apk ## Run every suite; what needs tools that cannot be had here is skipped, loudly

test-python: $(VENV)/.installed-test ## Run the Python tests; ARGS is passed on: make test-python ARGS="-k plan -x"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --durations=30 $(ARGS)

test-android: $(VENV)/.installed-test ## Test the Kotlin core, also on a real program; BUNDLES=build/emoji32-w8a8 draws with it
	PYTHON=$(CURDIR)/$(BIN)/python OMP_NUM_THREADS=1 android_demo/test.sh $(BUNDLES)

test-arm: $(VENV)/.installed-test ## Run the ExecuTorch runtime for ARM on emulated processors; ARGS is passed on
	PYTHON=$(CURDIR)/$(BIN)/python android_demo/arm/test.sh $(ARGS)

apk: ## Test the Android app and pack it as build/app-debug.apk, which has no native library
	android_demo/app/apk.sh $(CURDIR)/build/app-debug.apk

test-ios: ## Run the tests of the Swift package and check the types of the iOS app
	ios_demo/test.sh

lint: $(VENV)/.installed-lint ## Check style (ruff) and types (mypy)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.installed-lint ## Rewrite the Python files in the checked style
	$(BIN)/ruff check --fix --select I
	$(BIN)/ruff format

clean: ## Remove what make wrote: .venv, build and caches
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

# The stamp is written last, so an environment whose creation broke off is made anew.
$(VENV)/.created:
	@chosen=; \
	for python in $(PYTHON); do \
		version=$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || echo "not found"); \
		tried="$$tried $$python ($$version)"; \
		if [ "$$version" = 3.11 ]; then chosen=$$python; break; fi; \
	done; \
	if [ -z "$$chosen" ]; then \
		echo "Python 3.11 is needed, tried:$$tried. Name one: make env PYTHON=/path/to/python3.11" >&2; exit 1; \
	fi; \
	echo "Creating $(VENV) with $$chosen"; \
	$$chosen -m venv --clear $(VENV)
	@touch $@

# One resolver run for everything, so that the torch that pyproject.toml names is the one that all others get.
$(VENV)/.installed-core: pyproject.toml $(VENV)/.created
	$(BIN)/python -m pip install --editable .
	@touch $@

$(VENV)/.installed-%: $(VENV)/.installed-core
	$(BIN)/python -m pip install --editable '.[$*]'
	@touch $@
