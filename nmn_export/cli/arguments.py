"""Arguments that several commands take."""

import zipfile
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer

from nmn_export.errors import NmnExportError
from nmn_export.models import ZOO
from nmn_export.runtime.arrays import Arrays

MODEL_HELP = f"{', '.join(ZOO)}; or package.module:factory; or path/file.py:factory."

Model = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)]
OnnxFile = Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="ONNX file from export.")]
ModelFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="ONNX file from export, or engine from build.")
]
PluginLibrary = Annotated[Path | None, typer.Option(help="Library with the plugins of an engine.")]
Weights = Annotated[
    Path | None, typer.Option(help="State dict to load: .safetensors, or .pt from torch.save.")
]
Provider = Annotated[Literal["cpu", "cuda"], typer.Option(help="Where ONNX Runtime runs.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def read_npz(path: Path) -> Arrays:
    """Read the arrays of an .npz file by name.

    Raises:
        NmnExportError: The file is no .npz file, or holds pickled objects.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile, AttributeError) as error:
        raise NmnExportError(
            "--inputs must be an .npz file of arrays",
            got=f"'{path}' ({type(error).__name__})",
            fix="Write it with numpy.savez(path, x=array).",
        ) from error
