"""`nmn-export export`: write a PyTorch model to an ONNX file."""

from pathlib import Path
from typing import Annotated, Literal

import torch
import typer
from torch import Tensor

from nmn_export import api
from nmn_export.cli.arguments import Model, Weights
from nmn_export.cli.terminal import err, out
from nmn_export.errors import NmnExportError
from nmn_export.models import ZOO
from nmn_export.models.load import load_model


def export(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="ONNX file to write.")],
    weights: Weights = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            help="Example input, NAME:2x3x224x224, for the argument NAME of the model's forward. "
            "Repeat for each input.",
        ),
    ] = None,
    dynamic: Annotated[
        list[str] | None,
        typer.Option(help="Axis that varies at run time, NAME:0=batch. Repeat for each axis."),
    ] = None,
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"] | None,
        typer.Option(help="Convert the whole model. Not converted by default."),
    ] = None,
    opset: Annotated[
        int | None,
        typer.Option(help="Version of the standard ops; default 18, or 22 with --dtype bfloat16."),
    ] = None,
    inline: Annotated[bool, typer.Option("--inline", help="Write standard ops only.")] = False,
    check: Annotated[
        bool, typer.Option(help="Compare the file with the model before it is moved to OUTPUT.")
    ] = True,
) -> None:
    """Write a PyTorch model to an ONNX file."""
    with err.status(f"loading {model}"):
        module = load_model(model, weights)
        example = _example_inputs(model, inputs or [])
    with err.status(f"exporting {model}"):
        result = api.export(
            module,
            example,
            output,
            dynamic_shapes=_dynamic_axes(dynamic or []),
            dtype=dtype,
            opset=opset,
            inline=inline,
            check=check,
        )
    ops = ", ".join(f"{count} {name}" for name, count in result.ops.items()) or "standard ops only"
    out.print(f"wrote {result.path} ({ops})", soft_wrap=True)
    for c in result.parity:
        out.print(f"error of {c.backend} against float64: {c.error:.1e}")
    if result.parity_note:
        out.print(f"not checked: {result.parity_note}", markup=False, soft_wrap=True)


def _example_inputs(model: str, specs: list[str]) -> dict[str, Tensor]:
    if not specs:
        if model not in ZOO:
            raise NmnExportError(
                "A model that is not in the zoo needs example inputs",
                got="no --input",
                fix="Add, for example, --input x:2x3x224x224.",
            )
        specs = [f"x:{'x'.join(map(str, ZOO[model].input_shape))}"]
    generator = torch.Generator().manual_seed(0)
    return dict(_example_input(spec, generator) for spec in specs)


def _example_input(spec: str, generator: torch.Generator) -> tuple[str, Tensor]:
    name, _, rest = spec.partition(":")
    size, _, dtype = rest.partition(":")
    try:
        shape = [int(d) for d in size.split("x")]
        integral = {"": False, "float32": False, "int64": True, "int32": True}[dtype]
        if not name or min(shape) < 1:
            raise ValueError
    except (ValueError, KeyError) as error:
        raise NmnExportError(
            "--input is NAME:SIZExSIZE…, with :int64 or :int32 at the end for integers",
            got=f"'{spec}'",
            fix="Add, for example, --input x:2x3x224x224.",
        ) from error
    if integral:
        return name, torch.zeros(shape, dtype=getattr(torch, dtype))
    return name, torch.randn(shape, generator=generator)


def _dynamic_axes(specs: list[str]) -> dict[str, dict[int, str]]:
    axes: dict[str, dict[int, str]] = {}
    for spec in specs:
        name, _, rest = spec.partition(":")
        axis, _, size = rest.partition("=")
        if not (name and axis.isdigit() and size.isidentifier()):
            raise NmnExportError(
                "--dynamic is NAME:AXIS=SIZE_NAME",
                got=f"'{spec}'",
                fix="Write, for example, --dynamic x:0=batch.",
            )
        axes.setdefault(name, {})[int(axis)] = size
    return axes
