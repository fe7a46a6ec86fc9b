"""Take networks of ⵟ-product layers from PyTorch to ONNX, and know that the numbers are right."""

import importlib.util
import signal
import sys
from pathlib import Path

if Path(sys.argv[0]).stem == "nmn-export" and (
    signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    # The imports below take seconds. Ctrl-C during that time must not print a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import torch

from nmn_export.adapt import adapt
from nmn_export.api import Exported, bench, check, export, parameter_hash, run
from nmn_export.engine.build import BuilderOptions, Built, build
from nmn_export.errors import CheckError, NmnExportError

if torch.cuda.is_available() and importlib.util.find_spec("triton"):
    from nmn_export.kernels.register import register

    register()

__all__ = [
    "BuilderOptions",
    "Built",
    "CheckError",
    "Exported",
    "NmnExportError",
    "adapt",
    "bench",
    "build",
    "check",
    "export",
    "parameter_hash",
    "run",
]
