"""What a result was measured on."""

import platform
from importlib import metadata
from pathlib import Path

import torch

_PACKAGES = ("torch", "onnxruntime", "onnx", "onnxscript", "nmn")


def machine() -> dict[str, object]:
    """Return the processor, its threads, and the versions of what took part."""
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in _PACKAGES},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        flags = next((line for line in lines if line.startswith("flags")), "")
        vector = "AVX-512" if " avx512f" in flags else "AVX2" if " avx2" in flags else ""
        return " ".join(filter(None, (names[0] if names else "", vector)))
    return platform.processor()
