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

_VECTORS = {
    "amx_tile": "AMX",
    "avx512_bf16": "AVX-512 and bfloat16",
    "avx512f": "AVX-512",
    "avx2": "AVX2",
    "sve": "SVE",
    "asimd": "NEON",
}
"""Vector instructions by their flag in `/proc/cpuinfo`, the widest first."""

_NUMBERS = {
    "family": "cpu family",
    "model": "model",
    "stepping": "stepping",
    "implementer": "CPU implementer",
    "variant": "CPU variant",
    "part": "CPU part",
    "revision": "CPU revision",
}
"""Numbers that identify a processor, by their key in `/proc/cpuinfo`: on x86, then on Arm."""

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
    return processor_name(info.read_text()) if info.exists() else platform.processor()


def processor_name(cpuinfo: str) -> str:
    """Return the name, identifying numbers and vector instructions of the processor.

    Virtual machines often hide the name, and Arm has none. The numbers still tell the generation.

    Args:
        cpuinfo: Contents of `/proc/cpuinfo`.
    """
    first = cpuinfo.split("\n\n", 1)[0]
    rows = (line.partition(":") for line in first.splitlines())
    fields = {key.strip(): value.strip() for key, _, value in rows}
    flags = fields.get("flags", fields.get("Features", "")).split()
    numbers = [f"{name} {fields[key]}" for name, key in _NUMBERS.items() if key in fields]
    vector = next((name for flag, name in _VECTORS.items() if flag in flags), "")
    parts = (
        fields.get("model name", platform.machine()),
        f"({', '.join(numbers)})" if numbers else "",
        f"with {vector}" if vector else "",
        "in a virtual machine" if "hypervisor" in flags else "",
    )
    return " ".join(filter(None, parts))
