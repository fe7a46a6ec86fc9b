"""Description of the machine that produced a result."""

import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import torch

PACKAGES = (
    "torch",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnx",
    "onnxscript",
    "nmn",
    "triton",
    "tensorrt",
    "tensorrt_rtx",
)
"""Packages whose versions may affect a result."""

_SMI_FIELDS = {
    "driver": "driver_version",
    "sm_clock": "clocks.sm",
    "memory_clock": "clocks.mem",
    "power": "power.draw",
    "temperature": "temperature.gpu",
}


def machine(packages: Sequence[str] = PACKAGES) -> dict[str, object]:
    """Return the processor, the number of threads, and the versions of the installed packages."""
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version for name in packages if (version := _version(name))},
    }


def gpu(device: int = 0) -> dict[str, object]:
    """Return a GPU's name and capability, and its current state from `nvidia-smi`.

    The state is the driver version, the clocks, the power and the temperature, as strings with
    units. It is omitted without `nvidia-smi`.
    """
    properties = torch.cuda.get_device_properties(device)
    about: dict[str, object] = {
        "gpu": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
    }
    # Device indices differ between PyTorch and nvidia-smi; UUIDs do not.
    return about | _smi(f"GPU-{properties.uuid}")


def _smi(identifier: str) -> dict[str, str]:
    query = f"--query-gpu={','.join(_SMI_FIELDS.values())}"
    command = ["nvidia-smi", query, "--format=csv,noheader", f"--id={identifier}"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return {}
    values = [value.strip() for value in result.stdout.strip().split(",")]
    return dict(zip(_SMI_FIELDS, values, strict=False))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        flags = next((line for line in lines if line.startswith("flags")), "")
        vector = "AVX-512" if " avx512f" in flags else "AVX2" if " avx2" in flags else ""
        return " ".join(filter(None, (names[0] if names else "", vector)))
    return platform.processor()
