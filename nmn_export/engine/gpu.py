"""Compute capabilities. The driver is queried directly, without PyTorch or TensorRT."""

import ctypes

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


def gpu_capability() -> int | None:
    """Return the compute capability of the first GPU, 89 for 8.9, or `None` if there is none."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    failed = (
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(device), 0)
        or driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
        or driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    )
    return None if failed else 10 * major.value + minor.value


def format_capability(capability: int) -> str:
    """Return 8.9 for 89."""
    return f"{capability // 10}.{capability % 10}"
