"""Take networks of ⵟ-product layers from PyTorch to ONNX, and know that the numbers are right."""

from nmn_export.adapt import adapt
from nmn_export.api import Exported, check, export, parameter_hash, run
from nmn_export.errors import CheckError, NmnExportError

__all__ = [
    "CheckError",
    "Exported",
    "NmnExportError",
    "adapt",
    "check",
    "export",
    "parameter_hash",
    "run",
]
