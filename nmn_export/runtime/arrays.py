"""Tensors by name as NumPy arrays, the form that all runtimes take and return."""

import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Arrays = dict[str, NDArray[np.generic]]
"""Tensors by name. bfloat16 is `ml_dtypes.bfloat16`, as in ONNX's own Python code."""


def to_numpy(tensor: Tensor) -> NDArray[np.generic]:
    """Return a tensor as an array. bfloat16 becomes `ml_dtypes.bfloat16`."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def to_torch(array: NDArray[np.generic]) -> Tensor:
    """Return a copy of an array as a tensor; the inverse of `to_numpy`."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.uint16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())
