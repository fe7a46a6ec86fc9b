# Everything runs in .venv, which is made on first use and made anew when the pins change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: demo test lint types bench gpu kernels clean

demo: $(INSTALLED)  ## train, export, run and check a small network, and AetherResNet-18
	$(BIN)/python -m examples.demo

test: $(INSTALLED)  ## the test suite
	$(BIN)/python -m pytest -n 2

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(INSTALLED)
	$(BIN)/mypy

bench: $(INSTALLED)  ## ONNX Runtime on the CPU: ours, the linear twin, the naive export, eager
	$(BIN)/python -m benchmarks.onnxruntime_cpu

gpu:  ## the fused kernels, on a machine with a GPU, PyTorch and Triton, and nothing installed
	$(PYTHON) -m benchmarks.gpu

kernels: $(INSTALLED)  ## compile them ahead of time and audit them, without a GPU
	$(BIN)/nmn-export kernels build --arch 80,89,90 -o build/kernels

clean:
	rm -rf $(VENV) build

$(INSTALLED): pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or newer is needed; got $$($(PYTHON) --version). Set PYTHON=."; exit 2; }
	@echo "making $(VENV) (a few minutes the first time)"
	@$(PYTHON) -m venv $(VENV)
	@echo "installing PyTorch" && $(PIP) install torch==2.13.0 -c constraints.txt
	@echo "installing nmn_export" && $(PIP) install -e '.[cpu,nmn,demo,test]' -c constraints.txt
	@# The older release of nmn that adapt() knows, beside the current one, as an oracle for tests.
	@$(PIP) install --upgrade --no-deps --target $(VENV)/nmn-0.2.24 nmn==0.2.24
	@touch $@
