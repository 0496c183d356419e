# make demo   installs into .venv, then trains a small scene and renders it
# make test   the tests
# make lint   style, formatting, types
# make help   everything else
#
# Variables: PYTHON=python3.12        the Python that .venv is made from (3.10 or newer)
#            TORCH_INDEX=URL          where PyTorch is taken from, instead of PyPI
#            PIP_ARGS="..."           further arguments for pip
#            ARGS="..."               further arguments for the command that a target runs

PYTHON ?= python3
ifeq ($(origin CXX),default)
CXX := c++
endif
export CXX

VENV := .venv
BIN := $(VENV)/bin
LOG := build/install.log
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt $(PIP_ARGS)
CPU_INDEX := https://download.pytorch.org/whl/cpu
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: install demo test test-slow lint format benchmark sanitize sanitize-cuda cuda-compile test-gpu clean help
.DELETE_ON_ERROR:

help:
	@echo 'make demo           make a small scene, train on it, render it: pictures, video, figures'
	@echo 'make test           the tests (make test ARGS="-k camera" for some of them)'
	@echo 'make test-slow      the tests that take minutes'
	@echo 'make lint           style, formatting, types'
	@echo 'make format         rewrite the sources in the house style'
	@echo 'make benchmark      how fast the rasterizer is on this machine'
	@echo 'make sanitize       the tests of the C++ core under AddressSanitizer and UBSan'
	@echo 'make sanitize-cuda  the CUDA kernels on the CPU, under these and ThreadSanitizer'
	@echo 'make cuda-compile   compile the CUDA kernels with nvcc; registers of each (needs no GPU)'
	@echo 'make test-gpu       on a machine with a GPU: its kernels tested, sanitized and timed'
	@echo 'make install        only the environment in .venv, with feature_gs compiled into it'
	@echo 'make clean          remove what was compiled and cached; .venv, data and output stay'
	@echo
	@echo 'Without an NVIDIA GPU the CPU build of PyTorch is a far smaller download:'
	@echo '  make demo TORCH_INDEX=$(CPU_INDEX)'

# --- the environment -----------------------------------------------------------------------------------
# Each step leaves a stamp in .venv, so that only what changed is done again.

# $(call step,what,command): runs it with its output in the log, whose end is shown if it fails.
define step
@mkdir -p $(dir $(LOG)); printf '%s ... ' '$(1)'; start=$$(date +%s); \
{ $(2); } >$(LOG) 2>&1 || { echo failed; tail -n 30 $(LOG); echo 'The whole log: $(LOG)'; exit 1; }; \
echo "$$(($$(date +%s) - start)) s"
endef

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 10)' 2>/dev/null || { \
	  echo 'Python 3.10 or newer is needed; "$(PYTHON)" is missing or older.'; \
	  echo 'Another one: make $(MAKECMDGOALS) PYTHON=python3.12'; exit 1; } >&2
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo 'This Python cannot make virtual environments.'; \
	  echo 'On Debian and Ubuntu: sudo apt-get install python3-venv'; exit 1; } >&2
	@test -f "$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" || { \
	  echo 'The C headers of this Python are missing.'; \
	  echo 'On Debian and Ubuntu: sudo apt-get install python3-dev'; exit 1; } >&2
	@echo '#include <concepts>' | $(CXX) -std=c++20 -x c++ -fsyntax-only - 2>/dev/null || { \
	  echo 'A compiler for C++20 is needed; "$(CXX)" is missing or older.'; \
	  echo 'On Debian and Ubuntu: sudo apt-get install g++   Another one: make $(MAKECMDGOALS) CXX=g++-12'; exit 1; } >&2
	$(call step,[1/3] Virtual environment in $(VENV),$(PYTHON) -m venv $(VENV))
	@touch $@

$(VENV)/.torch: $(VENV)/.created constraints.txt
	@if [ -z '$(TORCH_INDEX)' ] && ! command -v nvidia-smi >/dev/null && ! $(BIN)/python -c 'import torch' 2>/dev/null; then \
	  echo 'No NVIDIA GPU found. If the next step is a large download, this is a smaller one:'; \
	  echo '  make $(MAKECMDGOALS) TORCH_INDEX=$(CPU_INDEX)'; fi
	$(call step,[2/3] PyTorch,$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch numpy setuptools pybind11 ninja)
	@touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml constraints.txt setup.py $(shell find csrc -type f)
	$(call step,[3/3] Other packages and the C++ core,$(PIP) -v --no-build-isolation -e '.[dev]')
	@grep -o 'feature_gs: building.*' $(LOG) | tail -n 1
	@touch $@

install: $(VENV)/.installed

# --- what to do with it --------------------------------------------------------------------------------

demo: install
	@$(BIN)/feature-gs demo $(ARGS)

test: install
	$(BIN)/python -m pytest $(ARGS)

test-slow: install
	$(BIN)/python -m pytest -m slow $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark: install
	$(BIN)/feature-gs benchmark $(ARGS)

sanitize: install
	bash tests/sanitize/run.sh $(ARGS)

sanitize-cuda: install
	bash tests/sanitize/cuda.sh $(ARGS)

cuda-compile: install
	$(BIN)/python tests/cuda_compile.py $(ARGS)

test-gpu: install
	bash tests/gpu/run.sh $(ARGS)

clean:
	rm -rf build *.egg-info .pytest_cache .mypy_cache .ruff_cache feature_gs/_C*.so $(VENV)/.installed
	find feature_gs tests -name __pycache__ -prune -exec rm -rf {} +
