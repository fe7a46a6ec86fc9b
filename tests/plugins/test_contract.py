"""The plugins' interface to TensorRT, by the C++ test; the description of the library; embed.py."""

import ctypes
import json
import shutil
import subprocess
import sys
from importlib import metadata

import pytest

from nmn_export.kernels.ahead_of_time.build import HOST_CONSTANTS
from nmn_export.ops import OPS
from tests.plugins.fake_device import KERNELS, PLUGIN

LIBRARY = PLUGIN / "libnmn_plugin.so"
TEST = PLUGIN / "nmn_plugin_test"


NOT_NVIDIAS = {"libc", "libm", "libstdc++", "libgcc_s", "linux-vdso", "ld-linux-x86-64", "libdl"}


def test_contract():
    done = subprocess.run([TEST, LIBRARY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith(" 0 failed\n")


@pytest.mark.skipif(not shutil.which("valgrind"), reason="valgrind is not installed")
def test_contract_under_valgrind():
    command = ["valgrind", "--error-exitcode=9", "--leak-check=full", "-q", TEST, LIBRARY]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_cases_without_a_driver_are_an_error(tmp_path):
    done = subprocess.run([TEST, LIBRARY, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "error: the CUDA driver has no cuInit" in done.stdout


def test_description():
    library = ctypes.CDLL(str(LIBRARY))
    library.nmnPluginDescription.restype = ctypes.c_char_p
    description = json.loads(library.nmnPluginDescription())
    manifest = json.loads((KERNELS / "manifest.json").read_text())
    assert description["version"] == metadata.version("nmn-export")
    assert description["triton"] == manifest["triton"]
    built = [k for k in manifest["kernels"] if k["op"] in ("", *OPS)]
    assert description["kernels"] == len(built)
    assert description["capabilities"] == sorted({k["capability"] for k in manifest["kernels"]})
    # The plugins have the attributes of the ONNX nodes.
    assert description["ops"] == {name: list(spec.attributes) for name, spec in OPS.items()}


def test_an_unknown_tensorrt_is_refused():
    script = (
        "import ctypes, sys; print(ctypes.CDLL(sys.argv[1]).fakeInferLoad(sys.argv[2].encode()))"
    )
    command = [sys.executable, "-c", script, PLUGIN / "libfake_infer.so", LIBRARY]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"
    assert "knows TensorRT 10 and 11 and TensorRT-RTX 1; got version 12" in done.stderr


def test_the_library_needs_nothing_of_nvidias():
    listing = subprocess.run(["ldd", LIBRARY], capture_output=True, text=True, check=True).stdout
    names = {
        line.split()[0].rpartition("/")[2].partition(".so")[0] for line in listing.splitlines()
    }
    assert names <= NOT_NVIDIAS


def test_the_library_shows_three_functions():
    command = ["nm", "-D", "--defined-only", LIBRARY]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    shown = {line.split()[2] for line in listing.splitlines()}
    assert shown == {"getCreators", "setLoggerFinder", "nmnPluginDescription"}


def test_kernels_that_differ_from_the_manifest_are_refused(tmp_path):
    shutil.copytree(KERNELS, tmp_path / "kernels")
    cubin = next((tmp_path / "kernels/sm_80").glob("*.cubin"))
    cubin.write_bytes(cubin.read_bytes()[:-1])
    command = [sys.executable, "plugins/embed.py", tmp_path / "kernels", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "build the kernels again" in done.stderr
    assert not (tmp_path / "out").exists()


def embed(manifest, tmp_path):
    """Run embed.py on the built kernels with another manifest."""
    folder = tmp_path / "kernels"
    folder.mkdir()
    for images in (KERNELS / "ptx", *KERNELS.glob("sm_*")):
        (folder / images.name).symlink_to(images)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    command = [sys.executable, "plugins/embed.py", folder, tmp_path / "out"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_attributes_and_constants_of_the_library_are_those_of_the_manifest(tmp_path):
    manifest = json.loads((KERNELS / "manifest.json").read_text())
    assert manifest["constants"] == HOST_CONSTANTS
    for op, spec in OPS.items():
        defaults = {name: a["default"] for name, a in manifest["ops"][op].items()}
        assert defaults == spec.attributes
    manifest["constants"]["MOST_PARTS"] = 7
    manifest["ops"]["YatDense"]["beta"] = {"type": "float", "default": 0.25}
    assert embed(manifest, tmp_path).returncode == 0
    header = (tmp_path / "out/host_constants.h").read_text()
    assert "constexpr int64_t kMOST_PARTS = 7;" in header
    table = (tmp_path / "out/kernel_table.cpp").read_text()
    assert '{"beta", nvinfer1::PluginFieldType::kFLOAT32, 1, AttributeValue{0.25F}}' in table


def test_kernels_of_other_ops_are_not_in_the_library(tmp_path):
    manifest = json.loads((KERNELS / "manifest.json").read_text())
    dense = next(k for k in manifest["kernels"] if k["name"] == "yat_dense_fp16_grouped")
    dense["op"] = "CausalLinearAttention"
    assert embed(manifest, tmp_path).returncode == 0
    table = (tmp_path / "out/kernel_table.cpp").read_text()
    assert '"yat_dense_bf16_grouped", "YatDense"' in table
    assert "CausalLinearAttention" not in table


def test_a_parameter_has_one_type_in_all_kernels(tmp_path):
    manifest = json.loads((KERNELS / "manifest.json").read_text())
    dense = next(k for k in manifest["kernels"] if k["name"] == "yat_dense_fp16_grouped")
    assert dense["arguments"]["batch_dim"] == "i32"
    dense["arguments"]["batch_dim"] = "fp32"
    done = embed(manifest, tmp_path)
    assert done.returncode == 1
    assert "error: batch_dim must have the same type in all kernels; got fp32, i32" in done.stderr


def test_headers_that_are_missing(tmp_path):
    command = ["cmake", "-S", "plugins", "-B", tmp_path, f"-DTENSORRT_INCLUDE_DIR={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "TensorRT's headers must be found" in done.stderr
