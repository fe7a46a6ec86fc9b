"""Properties of a GPU that tile sizes and schedules depend on."""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

_SHARED_KIB = {80: 163, 86: 99, 87: 163, 89: 99, 90: 227, 100: 227, 103: 227, 120: 99, 121: 99}
"""Maximum shared memory per thread block by compute capability (CUDA programming guide)."""


@dataclass(frozen=True)
class Device:
    """A GPU.

    Attributes:
        capability: Compute capability times ten, 90 for an H100.
        processors: Number of streaming multiprocessors.
    """

    capability: int
    processors: int

    @property
    def has_descriptors(self) -> bool:
        """Whether it has a tensor memory accelerator."""
        return self.capability >= 90


def shared_kib(capability: int) -> int:
    """Return the shared memory of a thread block in KiB; unknown GPUs count as small ones."""
    return _SHARED_KIB.get(capability, 99)


@functools.cache
def _cuda_device(index: int) -> Device:
    properties = torch.cuda.get_device_properties(index)
    return Device(10 * properties.major + properties.minor, properties.multi_processor_count)


def device_of(tensor: Tensor) -> Device:
    """Return the GPU of `tensor`, or for the interpreter a small GPU without descriptors."""
    if not tensor.is_cuda:
        return Device(capability=80, processors=2)
    return _cuda_device(tensor.device.index)
