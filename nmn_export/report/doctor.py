"""What this machine can do, and what to install for the rest."""

import ctypes
import importlib.util
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

import torch


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
    ("tensorrt", "engines", "pip install tensorrt, from NVIDIA's package index"),
    ("tensorrt_rtx", "engines for RTX GPUs", "pip install tensorrt_rtx"),
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


def _probe(look: Callable[[], str | None]) -> str | None:
    """Return what a look finds; a missing package or library is nothing, not an error."""
    try:
        return look()
    except (metadata.PackageNotFoundError, ImportError, OSError):
        return None
