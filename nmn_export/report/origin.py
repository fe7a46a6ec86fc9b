"""Where a file comes from: what an export writes into its metadata."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import metadata

import torch
from torch import Tensor, nn

from nmn_export.graph.file import EXAMPLE_SHAPES, METADATA_PREFIX
from nmn_export.report.compare import Comparison
from nmn_export.runtime.arrays import to_numpy

UNCHANGED = "unchanged"
"""Value of `dtype` if the export did not convert the model."""

_PACKAGES = ("nmn-export", "torch", "onnx", "onnxscript", "onnx-ir")


def origin_of(
    model: nn.Module,
    inputs: Mapping[str, Tensor],
    dtype: torch.dtype | None,
    parity: Sequence[Comparison],
    parity_note: str,
) -> dict[str, str]:
    """Return the metadata of an export, without the prefix of its keys.

    Args:
        model: The model as the user gave it.
        inputs: Example inputs by name.
        dtype: The dtype that the model was converted to, if any.
        parity: Comparisons of the file with the model.
        parity_note: Why there are none.
    """
    errors = {result.backend: result.error for result in parity}
    return {
        **{f"version.{package}": metadata.version(package) for package in _PACKAGES},
        EXAMPLE_SHAPES.removeprefix(METADATA_PREFIX): json.dumps(
            {name: list(t.shape) for name, t in inputs.items()}
        ),
        "source": f"{type(model).__module__}.{type(model).__qualname__}",
        "parameters_sha256": parameter_hash(model),
        "dtype": str(dtype).removeprefix("torch.") if dtype else UNCHANGED,
        "parity": json.dumps(errors or {"not checked": parity_note}),
    }


def parameter_hash(model: nn.Module) -> str:
    """Return the SHA-256 of names, dtypes, shapes and values of parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, Tensor):
            digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}\n".encode())
            digest.update(to_numpy(tensor).tobytes())
    return digest.hexdigest()
