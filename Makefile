# make demo       train, evaluate and draw a deformable Mask R-CNN; does all its own set-up
# make demo-seg   the same for semantic segmentation, with a deformable UPerNet
#                 (BACKBONE=internimage puts an InternImage in the place of the ResNet)
# make explore    see in a browser what the detector of make demo looks at (EXPLORE_ARGS="--port 8000")
# make test       the test suite; does all its own set-up
# make test-long  the tests that take minutes each: CUDA kernels without a GPU, fault campaigns
# make test-browser  the tests of the explorer's page, in a Chromium that is installed
# make test-classic  all tests that use OpenMMLab, with its original packages (in .venv-classic)
# make test-classification  the tests of classifiers, with MMPretrain (in .venv-classification)
# make test-matrix   the operator tests with other versions of Python and torch (in .venvs, which
#                    are deleted afterwards; MATRIX="3.12:2.13.0 ..." picks them, KEEP=1 keeps them)
# make docs       the documentation site in docs/_build/html (Python >= 3.11)
# make wheel      a wheel for every Python and torch >= 2.10, with CUDA kernels (release/README.md)
# make env | data | build | lint | format | clean
# make sanitize   the operator tests on a library with AddressSanitizer and UBSan (gcc)
#
# TORCH=cpu installs a CPU build of PyTorch, a much smaller download than one for CUDA,
# PYTHON=python3.12 picks the interpreter, PIP_FIND_LINKS a folder or page with wheels.
# FAMILY=classic makes any of them use OpenMMLab's original packages, in .venv-classic.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
# The family of OpenMMLab packages: the maintained forks, "classic", the original ones, or
# "classification", of the forks what classifiers need, with torchvision.
FAMILY ?= forks
ifneq ($(filter-out forks classic classification,$(FAMILY)),)
$(error FAMILY=$(FAMILY): forks, classic or classification is expected)
endif
SUFFIX := $(patsubst %,-%,$(filter-out forks,$(FAMILY)))
VENV := .venv$(SUFFIX)
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off
# Runs a silent command, shows that it is alive, and why it failed; $(1) names its log.
step = $(PYTHON) requirements/run_step.py $(VENV)/logs/$(1).log
# One lasting file per finished step, so that a second run does nothing.
STAMPS := $(VENV)/stamps
CONSTRAINTS := -c requirements/constraints.txt
OPENMMLAB := requirements/openmmlab$(SUFFIX).txt
BUILD := $(firstword $(wildcard requirements/build$(SUFFIX).txt) requirements/build.txt)

TORCH ?=
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu
ifneq ($(filter-out cpu,$(TORCH)),)
$(error TORCH=$(TORCH): cpu is the only choice; without it pip takes its default build)
endif
ifeq ($(TORCH),cpu)
ifneq ($(shell grep -sl '^cuda.*= .[0-9]' $(VENV)/lib/python*/site-packages/torch/version.py),)
$(error TORCH=cpu: $(VENV) has PyTorch for CUDA already; rm -r $(VENV) first)
endif
endif

BACKBONE ?= r50-mdconv-c3-c5
DEMO_CONFIG := configs/demo/mask-rcnn_$(BACKBONE)_fpn_demo.py
DEMO_WORK := work_dirs/demo-$(BACKBONE)
SEG_CONFIG := configs/demo/upernet_$(BACKBONE)_demo.py
SEG_WORK := work_dirs/demo-seg-$(BACKBONE)
DEMO_DATA := data/deformed_shapes

NATIVE := $(shell find mmdcn/csrc -type f)
LINTED := setup.py mmdcn tools configs tests benchmarks docs examples release requirements

.PHONY: help wheel wheel-aarch64 demo demo-seg explore test test-long test-browser test-classic \
    test-classification test-matrix docs sanitize env build data lint format clean

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

define say
	@printf '\n== %s\n' "$(1)"
endef

$(STAMPS)/venv:
	$(call say,Creating $(VENV) with $(PYTHON))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	    || { echo "error: Python >= 3.10 is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1); try PYTHON=..." >&2; exit 1; }
	@command -v "$${CXX:-c++}" > /dev/null \
	    || { echo "error: no C++ compiler ($${CXX:-c++}) found; install g++ or clang" >&2; exit 1; }
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(call step,venv) $(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/torch: $(BUILD) | $(STAMPS)/venv
	$(call say,Installing PyTorch and build tools (1-5 min; a CUDA build of PyTorch is a large download))
ifeq ($(TORCH),cpu)
	@$(call step,torch-cpu) $(PIP) --no-deps --index-url $(TORCH_CPU_INDEX) "$$(grep ^torch== $(BUILD))"
endif
	@$(call step,torch) $(PIP) -r $(BUILD) $(CONSTRAINTS)
	@touch $@

# Python's own flags ask for debugging information, which takes a third of MMCV's compilation.
$(STAMPS)/openmmlab: $(OPENMMLAB) requirements/constraints.txt $(STAMPS)/torch
	$(call say,Installing MMEngine/MMCV/MMDetection/MMSegmentation (1 min; the first time about 13 min on 2 cores as MMCV is compiled from source))
	@CFLAGS="$${CFLAGS:--O3 -DNDEBUG -g0}" $(call step,openmmlab) \
	    $(PIP) --no-build-isolation -r $(OPENMMLAB) $(CONSTRAINTS)
	@$(BIN)/python -c 'import yapf'  # writes to its cache, which several processes at once can spoil
	@touch $@

$(STAMPS)/dev: requirements/dev.txt $(STAMPS)/torch
	$(call say,Installing test tools and linters (10 s))
	@$(call step,dev) $(PIP) -r requirements/dev.txt $(CONSTRAINTS)
	@touch $@

$(STAMPS)/docs: requirements/docs.txt requirements/constraints.txt $(STAMPS)/torch
	$(call say,Installing the documentation tools (10 s))
	@$(call step,docs) $(PIP) -r requirements/docs.txt $(CONSTRAINTS)
	@touch $@

$(STAMPS)/explore: requirements/explore.txt requirements/constraints.txt $(STAMPS)/openmmlab
	$(call say,Installing Gradio (20 s))
	@$(call step,explore) $(PIP) -r requirements/explore.txt $(CONSTRAINTS)
	@touch $@

$(STAMPS)/browser: requirements/browser.txt $(STAMPS)/explore
	$(call say,Installing Playwright (10 s))
	@$(call step,browser) $(PIP) -r requirements/browser.txt $(CONSTRAINTS)
	@touch $@

$(STAMPS)/mmdcn: setup.py pyproject.toml $(NATIVE) $(STAMPS)/torch
	$(call say,Building and installing mmdcn (1 min))
	@PYTHONWARNINGS=ignore MMDCN_BUILD_EXT=1 $(call step,mmdcn) $(PIP) --no-build-isolation --no-deps --editable .
	@touch $@

env: $(STAMPS)/openmmlab $(STAMPS)/mmdcn

build: $(STAMPS)/mmdcn

data: $(DEMO_DATA)/manifest.json

$(DEMO_DATA)/manifest.json: $(wildcard tools/dataset_converters/deformed_shapes*.py) | env
	$(call say,Writing the demo data set to $(DEMO_DATA) (1-2 min))
	@$(BIN)/python tools/dataset_converters/deformed_shapes.py --out $(DEMO_DATA) --overwrite
	@touch $@

# What Ctrl-C ends with; $(1): what the command does the next time.
on_stop = trap 'printf "\nstopped: %s %s\n" "make $@$(again)" "$(1)" >&2; exit 130' INT TERM;
comma := ,
again = $(if $(SUFFIX), FAMILY=$(FAMILY))$(if $(filter-out file,$(origin BACKBONE)), BACKBONE=$(BACKBONE))

# Trains where no training has finished, going on with one that was interrupted, and draws. A
# training ends with an evaluation of its last checkpoint; where none was written now, it is tested.
# $(1): config; $(2): folder of the run; $(3): minutes; $(4): further arguments of the training
define run_demo
	@$(call on_stop,goes on from the last checkpoint$(comma) if there is one) \
	checkpoint() { cat $(2)/last_checkpoint 2> /dev/null || true; }; before=$$(checkpoint); \
	if [ -e $(2)/finished ]; then \
	    printf '\n== The training in %s has finished before; rm -r %s trains anew\n' $(2) $(2); \
	else \
	    printf '\n== Training ($(BACKBONE); $(3) min on 2 cores; the log shows the time left as eta)\n'; \
	    $(BIN)/mim train mmdcn $(1) --work-dir $(2) --resume $(4); touch $(2)/finished; \
	fi; \
	if [ "$$(checkpoint)" = "$$before" ]; then \
	    printf '\n== Evaluating the last checkpoint (1 min)\n'; \
	    $(BIN)/mim test mmdcn $(1) --checkpoint "$$before" --work-dir $(2)/test; \
	fi
	$(call say,Drawing predictions (15 s))
	@$(call on_stop,draws again) $(call step,draw) $(BIN)/python \
	    tools/analysis_tools/draw_results.py $(1) "$$(cat $(2)/last_checkpoint)" --out-file $(2)/results.png
endef

demo: env data
	$(call run_demo,$(DEMO_CONFIG),$(DEMO_WORK),up to 16,--cpu-processes 2)
	@printf '\nThe AP tables (box, then mask) stand above. Annotations and predictions of 8 images:\n  %s\n' \
	    "$(CURDIR)/$(DEMO_WORK)/results.png"

demo-seg: env data
	$(call run_demo,$(SEG_CONFIG),$(SEG_WORK),3-15)
	@printf '\nThe IoU of each class stands above. Annotations and predictions of 8 images:\n  %s\n' \
	    "$(CURDIR)/$(SEG_WORK)/results.png"

explore: env data $(STAMPS)/explore
	@[ -s $(DEMO_WORK)/last_checkpoint ] \
	    || { echo 'error: the demo has no checkpoint yet; first: make demo$(again)' >&2; exit 1; }
	$(call say,Starting the explorer (10 s))
	@$(BIN)/python tools/explore.py $(DEMO_CONFIG) "$$(cat $(DEMO_WORK)/last_checkpoint)" \
	    $(DEMO_DATA)/val $(EXPLORE_ARGS)

docs: env $(STAMPS)/docs
	$(call say,Building the documentation (20 s))
	@$(call step,sphinx) $(BIN)/python -m sphinx -W --keep-going -q docs docs/_build/html
	@printf 'It starts at %s\n' "$(CURDIR)/docs/_build/html/index.html"

# One process per core, each with the tests of whole files and one thread.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 \
    --dist loadfile --no-loadscope-reorder

test: env $(STAMPS)/dev $(STAMPS)/docs
	$(call say,Running the tests (15-30 min on 2 cores))
	@$(PYTEST) -m "not long" $(PYTEST_ARGS)

test-long: env $(STAMPS)/dev $(STAMPS)/docs
	$(call say,Running the tests that take minutes each (15-30 min on 2 cores))
	@$(PYTEST) -m long $(PYTEST_ARGS)

# A Chromium of the machine; one of one's own: CHROMIUM=/path/to/chrome.
CHROMIUM ?= $(firstword $(foreach name,chromium chromium-browser google-chrome google-chrome-stable, \
    $(shell command -v $(name))))

test-browser: env $(STAMPS)/dev $(STAMPS)/browser
	@[ -n "$(CHROMIUM)" ] || { echo 'error: no Chromium found; install one, with apt-get install' \
	    'chromium for instance, or say where it is with CHROMIUM=...' >&2; exit 1; }
	$(call say,Running the tests of the page (1 min))
	@CHROMIUM="$(CHROMIUM)" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser \
	    tests/test_explorer $(PYTEST_ARGS)

# Nothing in these folders imports a package of OpenMMLab.
WITHOUT_OPENMMLAB := $(addprefix tests/test_,ops cuda examples)

test-classic:
	@$(MAKE) test FAMILY=classic PYTEST_ARGS="$(strip $(PYTEST_ARGS) \
	    $(filter-out $(WITHOUT_OPENMMLAB),$(wildcard tests/test_*)))"

# MMCV is compiled for the torch of `make env` and taken from pip's cache: it does not compile with
# the version that goes with torchvision here, and only its Python part is used.
test-classification: env
	@$(MAKE) test FAMILY=classification PYTEST_ARGS="$(strip $(PYTEST_ARGS) tests/test_classification)"

# Versions of Python and torch, as PYTHON:TORCH. One build of mmdcn has to do for all of them.
MATRIX ?= 3.10:2.13.0 3.12:2.13.0 3.13:2.13.0 3.11:2.10.0 3.11:2.14.1
WHEELS := build/matrix

test-matrix: $(STAMPS)/torch
	$(call say,Building one wheel of mmdcn for all of $(MATRIX) (1 min))
	@rm -rf $(WHEELS)
	@MMDCN_BUILD_EXT=1 $(call step,matrix) $(BIN)/python -m pip wheel \
	    --disable-pip-version-check --no-build-isolation --no-deps --wheel-dir $(WHEELS) .
	@$(BIN)/python tests/matrix.py $(WHEELS)/*.whl $(MATRIX) $(if $(KEEP),--keep) \
	    $(if $(PYTEST_ARGS),--pytest-args="$(PYTEST_ARGS)")

# Python itself is not instrumented, so the sanitizer's runtime has to be loaded before it, and
# libstdc++ with it, whose exceptions it watches.
sanitize: $(STAMPS)/torch $(STAMPS)/dev
	$(call say,Building the instrumented library in build/sanitize (2 min on 2 cores))
	@MMDCN_BUILD_EXT=1 MMDCN_SANITIZE=address,undefined,float-cast-overflow \
	    $(call step,sanitize) $(BIN)/python setup.py -q build_ext --build-lib build/sanitize/lib
	$(call say,Running the operator tests on it (5 min on 2 cores))
	@LD_PRELOAD="$$($${CXX:-c++} -print-file-name=libasan.so) $$($${CXX:-c++} -print-file-name=libstdc++.so.6)" \
	    ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	    MMDCN_LIBRARY_DIR="$(CURDIR)/build/sanitize/lib/mmdcn" \
	    $(BIN)/python -m pytest tests/test_ops -m "not slow" $(PYTEST_ARGS)

CUDA ?= 12 13

build/cuda1%:
	$(call say,Fetching the compiler of CUDA 1$* (210 MB for both))
	@$(call step,cuda1$*) $(BIN)/python release/cuda_toolkit.py 1$* $@

$(STAMPS)/release: requirements/release.txt $(STAMPS)/torch
	$(call say,Installing auditwheel (5 s))
	@$(call step,release) $(PIP) -r requirements/release.txt $(CONSTRAINTS)
	@touch $@

wheel: $(STAMPS)/release $(CUDA:%=build/cuda%)
	$(call say,Building the wheel (8 min on 2 cores; CUDA= leaves out the kernels for GPUs))
	@$(call step,wheel) $(BIN)/python release/build_wheel.py --cuda $(CUDA:%=build/cuda%)
	@ls -lh dist

wheel-aarch64: $(STAMPS)/release
	$(call say,Building the wheel for 64-bit ARM (1 min))
	@$(call step,wheel-aarch64) $(BIN)/python release/build_wheel.py --arch aarch64
	@ls -lh dist

lint: $(STAMPS)/dev
	$(BIN)/ruff check $(wildcard $(LINTED))
	$(BIN)/ruff format --check $(wildcard $(LINTED))
	$(BIN)/codespell $(wildcard $(LINTED) *.md)
	$(BIN)/clang-format --dry-run --Werror $(NATIVE)

format: $(STAMPS)/dev
	$(BIN)/ruff check --fix $(wildcard $(LINTED))
	$(BIN)/ruff format $(wildcard $(LINTED))
	$(BIN)/clang-format -i $(NATIVE)

clean:
	rm -rf build dist *.egg-info mmdcn/_C*.so $(STAMPS)/mmdcn
