# Everything runs in .venv, which is made on first use and made anew when the pins change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

# What the plugin library is made of: compute capabilities to compile kernels for, and TensorRT's
# headers. Without any on the system, those of TensorRT 10.14 are fetched: NVIDIA's own, Apache-2.0.
ARCHS ?= 80,89,90,120
KERNELS := build/kernels/manifest.json
TENSORRT_INCLUDE_DIR ?= $(patsubst %/NvInferRuntime.h,%,$(firstword $(wildcard \
	/usr/include/NvInferRuntime.h /usr/include/*-linux-gnu/NvInferRuntime.h \
	/usr/local/tensorrt/include/NvInferRuntime.h)))
ifeq ($(TENSORRT_INCLUDE_DIR),)
TENSORRT_INCLUDE_DIR := build/headers/kernel_lens/include/tensorrt
endif
LIBRARY := nmn_export/engine/libnmn_plugin.so

# Releases of nmn beside the current one, as oracles for the tests of adapt: one for each change of
# its PyTorch layers. Early ones have fewer layers and options, and those up to 0.2.6 another formula.
NMN_RELEASES := 0.2.24 0.2.27 0.2.30 0.3.0 0.3.1 0.3.3
NMN_EARLY_RELEASES := 0.1.17 0.2.6 0.2.7

# Folder for results of gpu-plugin-run.
OUT ?= build

.PHONY: demo test lint types bench gpu gpu-plugin gpu-plugin-cases gpu-plugin-run kernels plugin \
	wheel clean FORCE

demo: $(INSTALLED)  ## train, export, run and check a small network, and AetherResNet-18
	$(BIN)/python -m examples.demo

test: $(LIBRARY)  ## the test suite
	$(BIN)/python -m pytest -n 2

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/clang-format --dry-run --Werror plugins/*/*.h plugins/*/*.cpp

types: $(INSTALLED)
	$(BIN)/mypy

bench: $(INSTALLED)  ## ONNX Runtime on the CPU, and the table in the README that it makes
	$(BIN)/python -m benchmarks.onnxruntime_cpu
	$(BIN)/python -m benchmarks.readme_table

gpu:  ## check and time the fused kernels on a GPU; needs PyTorch and Triton, but no .venv
	$(PYTHON) -m benchmarks.gpu

# Without .venv it runs what was built elsewhere and copied here: build/plugin and build/cases.
gpu-plugin:  ## the plugins' kernels on a GPU, without TensorRT
	$(if $(wildcard $(INSTALLED)),$(MAKE) gpu-plugin-cases)
	$(MAKE) gpu-plugin-run

gpu-plugin-cases: $(LIBRARY)  ## make build/plugin and build/cases for gpu-plugin-run, without a GPU
	rm -rf build/cases
	$(BIN)/python -m tests.plugins.written_cases build/cases

gpu-plugin-run:  ## run the cases on a GPU; results are added to gpu-plugin.txt in the folder OUT
	tests/plugins/run_cases.sh build/plugin build/cases $(OUT)

kernels: $(KERNELS)  ## compile them ahead of time and audit them, without a GPU

# Made anew when it says something else than before.
build/archs.txt: FORCE
	@mkdir -p build && echo '$(ARCHS)' | cmp -s - $@ || echo '$(ARCHS)' > $@

build/headers.txt: FORCE
	@mkdir -p build && echo '$(TENSORRT_INCLUDE_DIR)' | cmp -s - $@ || \
		echo '$(TENSORRT_INCLUDE_DIR)' > $@

$(KERNELS): $(INSTALLED) build/archs.txt \
		$(wildcard nmn_export/kernels/*.py nmn_export/kernels/*/*.py)
	$(BIN)/nmn-export kernels build --arch $(ARCHS) -o build/kernels

plugin: $(LIBRARY)  ## the library of TensorRT plugins, without a GPU; TENSORRT_INCLUDE_DIR, ARCHS

$(LIBRARY): $(KERNELS) build/headers.txt $(TENSORRT_INCLUDE_DIR)/NvInferRuntime.h \
		$(wildcard plugins/* plugins/*/*)
	@command -v cmake g++ >/dev/null || \
		{ echo "error: The plugin library needs g++ and cmake. Install them."; exit 2; }
	cmake -S plugins -B build/plugin -DTENSORRT_INCLUDE_DIR=$(abspath $(TENSORRT_INCLUDE_DIR)) \
		-DNMN_KERNELS=$(abspath build/kernels) -DPython3_EXECUTABLE=$(abspath $(BIN)/python)
	cmake --build build/plugin --parallel 2
	cp build/plugin/libnmn_plugin.so $@

build/headers/kernel_lens/include/tensorrt/NvInferRuntime.h: $(INSTALLED)
	$(PIP) install --no-deps --upgrade --target build/headers kernel-lens==2.0.1
	@touch $@

%/NvInferRuntime.h:
	@echo "error: TENSORRT_INCLUDE_DIR must be the folder of NvInferRuntime.h; got $(@D)."; exit 2

wheel: $(LIBRARY)  ## a wheel with the library in it, in dist/
	$(PIP) wheel --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV) build dist $(LIBRARY)

$(INSTALLED): pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or newer is needed; got $$($(PYTHON) --version). Set PYTHON=."; exit 2; }
	@echo "making $(VENV) (a few minutes the first time)"
	@$(PYTHON) -m venv $(VENV)
	@echo "installing PyTorch" && $(PIP) install torch==2.13.0 -c constraints.txt
	@echo "installing nmn_export" && $(PIP) install -e '.[cpu,nmn,demo,test,tensorrt-rtx]' -c constraints.txt
	@for release in $(NMN_RELEASES) $(NMN_EARLY_RELEASES); do \
		$(PIP) install --upgrade --no-deps --target $(VENV)/nmn-$$release nmn==$$release || exit 1; \
	done
	@touch $@
