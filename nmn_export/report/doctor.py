"""What this machine can do, and what to install for the rest."""

import ctypes
import importlib.util
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

_PACKAGE = Path(__file__).parents[1]

# A library that is cut off kills whoever loads it, so that is left to a process of its own. Which
# does not import PyTorch: an empty package stands in for this one, whose __init__ would.
_LOOK_AT_PLUGIN = """
import dataclasses, json, sys, types
package = types.ModuleType("nmn_export")
package.__path__ = [sys.argv[1]]
sys.modules["nmn_export"] = package
from nmn_export.engine.plugin_library import find_plugin_library
from nmn_export.errors import NmnExportError
try:
    found = find_plugin_library()
    told = found and dataclasses.asdict(found) | {"path": str(found.path)}
except NmnExportError as error:
    told = {"error": str(error)}
print(json.dumps(told))
"""


@dataclass(frozen=True)
class Finding:
    """One thing that may or may not be there.

    Attributes:
        name: What it is.
        found: What is there, or `None`.
        needed_for: What it is for.
        fix: What to do if it is missing.
    """

    name: str
    found: str | None
    needed_for: str
    fix: str


def examine() -> list[Finding]:
    """Look at the machine; nothing is loaded that could abort, and nothing is changed."""
    return [
        Finding("Python", platform.python_version(), "everything", ""),
        Finding("PyTorch", torch.__version__, "export, the eager reference", ""),
        *(_package(*row) for row in _PACKAGES),
        _provider("CPUExecutionProvider", "run, check on the CPU", "cpu"),
        _provider("CUDAExecutionProvider", "run, check --provider cuda", "gpu"),
        Finding(
            "CUDA GPU in PyTorch",
            torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "fused kernels, engines",
            "Use a machine with an NVIDIA GPU and a CUDA build of PyTorch.",
        ),
        Finding(
            "CUDA driver",
            _probe(lambda: str(ctypes.CDLL("libcuda.so.1") and "libcuda.so.1")),
            "anything on a GPU",
            "Install NVIDIA's driver.",
        ),
        _plugin_library(),
        *(
            Finding(tool, shutil.which(tool), purpose, "Install it with the system's packages.")
            for tool, purpose in _TOOLS
        ),
    ]


_PACKAGES = (
    ("onnx", "export, check", "pip install nmn-export"),
    ("onnxscript", "export", "pip install nmn-export"),
    ("onnxruntime", "run, check", "pip install 'nmn-export[cpu]'"),
    ("onnxruntime-gpu", "run, check --provider cuda", "pip install 'nmn-export[gpu]'"),
    ("nmn", "models written with upstream's layers", "pip install 'nmn-export[nmn]'"),
    ("triton", "fused kernels", "pip install 'nmn-export[gpu]'"),
    ("tensorrt", "engines: build, run, check, bench", "pip install 'nmn-export[tensorrt]'"),
    (
        "tensorrt_rtx",
        "the same on RTX GPUs; build also without a GPU",
        "pip install 'nmn-export[tensorrt-rtx]'",
    ),
)

_TOOLS = (("g++", "the TensorRT plugin"), ("cmake", "the TensorRT plugin"))


def _package(name: str, needed_for: str, fix: str) -> Finding:
    return Finding(name, _probe(lambda: metadata.version(name)), needed_for, f"Run: {fix}")


def _provider(name: str, needed_for: str, extra: str) -> Finding:
    def look() -> str | None:
        if importlib.util.find_spec("onnxruntime") is None:
            return None
        import onnxruntime  # noqa: PLC0415 - an extra

        return "available" if name in onnxruntime.get_available_providers() else None

    fix = f"Run: pip install 'nmn-export[{extra}]'"
    return Finding(f"ONNX Runtime's {name}", _probe(look), needed_for, fix)


def _plugin_library() -> Finding:
    """Say what the plugin library says of itself."""
    command = [sys.executable, "-P", "-c", _LOOK_AT_PLUGIN, str(_PACKAGE)]
    looked = subprocess.run(command, capture_output=True, text=True, check=False)
    found, fix = None, "Run: make plugin; or name the library with NMN_EXPORT_PLUGIN."
    if looked.returncode:
        fix = "The library that is there cannot be loaded. Run: make plugin"
    elif (told := json.loads(looked.stdout)) and "error" in told:
        fix = told["error"]
    elif told:
        cubins = ", ".join(f"{c // 10}.{c % 10}" for c in told["capabilities"])
        later = f", later ones by the driver from {told['ptx'] / 10}" if told["ptx"] else ""
        found = f"{told['version']}, for capabilities {cubins}{later}"
    return Finding("TensorRT plugin", found, "fused kernels in engines", fix)


def _probe(look: Callable[[], str | None]) -> str | None:
    """Return what a look finds; a missing package or library is nothing, not an error."""
    try:
        return look()
    except (metadata.PackageNotFoundError, ImportError, OSError):
        return None
