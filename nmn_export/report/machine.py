"""What a result was measured on."""

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
"""Whose versions may matter to a result."""

_SMI_FIELDS = {
    "driver": "driver_version",
    "sm_clock": "clocks.sm",
    "memory_clock": "clocks.mem",
    "power": "power.draw",
    "temperature": "temperature.gpu",
}


def machine(packages: Sequence[str] = PACKAGES) -> dict[str, object]:
    """Return the processor, its threads, and the versions of those packages that are there."""
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: found for name in packages if (found := _version(name))},
    }


def gpu(device: int = 0) -> dict[str, object]:
    """Return a GPU's name and capability, and what `nvidia-smi` says of it now.

    That is the driver's version, the clocks, the power drawn and the temperature, as strings with
    their units; without `nvidia-smi` they are left out.
    """
    properties = torch.cuda.get_device_properties(device)
    about: dict[str, object] = {
        "gpu": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
    }
    # Numbers of devices differ between PyTorch and nvidia-smi; identifiers do not.
    return about | _smi(f"GPU-{properties.uuid}")


def _smi(identifier: str) -> dict[str, str]:
    query = f"--query-gpu={','.join(_SMI_FIELDS.values())}"
    command = ["nvidia-smi", query, "--format=csv,noheader", f"--id={identifier}"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return {}
    values = [value.strip() for value in told.stdout.strip().split(",")]
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
