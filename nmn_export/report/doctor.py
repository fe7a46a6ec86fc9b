"""What this machine supports, and what to install for the rest."""

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

from nmn_export.engine.gpu import format_capability

_PACKAGE = Path(__file__).parents[1]

# Loading a damaged library crashes the process, so a separate process loads it. An empty package
# replaces this one there, because its __init__ would import PyTorch.
_LOOK_AT_PLUGIN = """
import dataclasses, json, sys, types
package = types.ModuleType("nmn_export")
package.__path__ = [sys.argv[1]]
sys.modules["nmn_export"] = package
from nmn_export.engine.plugin_library import find_plugin_library
from nmn_export.errors import NmnExportError
try:
    found = find_plugin_library()
    description = found and dataclasses.asdict(found) | {"path": str(found.path)}
except NmnExportError as error:
    description = {"error": str(error)}
print(json.dumps(description))
"""


@dataclass(frozen=True)
class Finding:
    """A component of the machine that may be missing.

    Attributes:
        name: Name of the component.
        found: Version or description, or `None` if it is missing.
        needed_for: What the component is needed for.
        fix: How to install it.
    """

    name: str
    found: str | None
    needed_for: str
    fix: str


def examine() -> list[Finding]:
    """Examine the machine. Nothing is changed, and a damaged plugin library cannot crash this."""
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
    """Report the description of the plugin library."""
    command = [sys.executable, "-P", "-c", _LOOK_AT_PLUGIN, str(_PACKAGE)]
    looked = subprocess.run(command, capture_output=True, text=True, check=False)
    found, fix = None, "Run: make plugin; or specify the library with NMN_EXPORT_PLUGIN."
    if looked.returncode:
        fix = "The existing library cannot be loaded. Run: make plugin"
    elif (description := json.loads(looked.stdout)) and "error" in description:
        fix = description["error"]
    elif description:
        cubins = ", ".join(map(format_capability, description["capabilities"]))
        later = f", PTX for {description['ptx'] / 10} and later" if description["ptx"] else ""
        found = f"{description['version']}, for capabilities {cubins}{later}"
    return Finding("TensorRT plugin", found, "fused kernels in engines", fix)


def _probe(look: Callable[[], str | None]) -> str | None:
    """Return the result of `look`, or `None` if a package or library is missing."""
    try:
        return look()
    except (metadata.PackageNotFoundError, ImportError, OSError):
        return None
