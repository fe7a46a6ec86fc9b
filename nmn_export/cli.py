"""The command line: one command a verb, each a call of the package."""

import sys
import zipfile
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from nmn_export import api
from nmn_export.errors import NmnExportError
from nmn_export.graph.file import load, staged
from nmn_export.models import ZOO
from nmn_export.models.load import load_model
from nmn_export.report import doctor as doctor_report
from nmn_export.report import render
from nmn_export.report.inspect import inspect_model, provenance
from nmn_export.runtime.arrays import Arrays
from nmn_export.runtime.inputs import to_model_dtypes

app = typer.Typer(
    help="Take networks of ⵟ-product layers from PyTorch to ONNX, and know the numbers are right.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
kernels = typer.Typer(help="The fused GPU kernels.", no_args_is_help=True)
app.add_typer(kernels, name="kernels")
# Where nobody watches, lines are as long as they need to be.
_out = Console(width=None if sys.stdout.isatty() else 180)
_err = Console(stderr=True)

MODEL_HELP = f"{', '.join(ZOO)}; or package.module:factory; or path/file.py:factory."

Model = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)]
OnnxFile = Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="A file that export wrote.")]
Weights = Annotated[
    Path | None, typer.Option(help="State dict to load: .safetensors, or .pt of torch.save.")
]
Provider = Annotated[Literal["cpu", "cuda"], typer.Option(help="Where ONNX Runtime runs.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command()
def export(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="ONNX file to write.")],
    weights: Weights = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", help="Example input, NAME:2x3x224x224; again for each input."),
    ] = None,
    dynamic: Annotated[
        list[str] | None,
        typer.Option(help="Axis that varies at run time, NAME:0=batch; again for each axis."),
    ] = None,
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"] | None,
        typer.Option(help="Convert the whole model; as it is by default."),
    ] = None,
    opset: Annotated[
        int | None,
        typer.Option(help="Version of the standard ops; 18, or 22 in bfloat16, by default."),
    ] = None,
    inline: Annotated[bool, typer.Option("--inline", help="Write standard ops only.")] = False,
    check: Annotated[
        bool, typer.Option(help="Run the file in ONNX Runtime before it is put in place.")
    ] = True,
) -> None:
    """Write a PyTorch model to an ONNX file."""
    with _err.status(f"loading {model}"):
        module = load_model(model, weights)
        example = _example_inputs(model, inputs or [])
    with _err.status(f"exporting {model}"):
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
    _out.print(f"wrote {result.path} ({ops})", soft_wrap=True)
    for c in result.parity:
        _out.print(f"error of {c.backend} against float64: {c.error:.1e}")
    if result.parity_note:
        _out.print(f"not checked: {result.parity_note}", markup=False, soft_wrap=True)


@app.command()
def run(
    model: OnnxFile,
    inputs: Annotated[Path, typer.Option(help=".npz with an array for each input.")],
    output: Annotated[Path, typer.Option("--output", "-o", help=".npz to write.")],
    provider: Provider = "cpu",
) -> None:
    """Run a file in ONNX Runtime.

    NumPy files know no bfloat16: such inputs are read as float32 and converted, and such outputs
    are written as float32.
    """
    arrays = to_model_dtypes(load(model), _read_npz(inputs))
    with _err.status(f"running {model}"):
        outputs = api.run(model, arrays, provider)
    named = {
        k: v.astype(np.float32) if v.dtype.name == "bfloat16" else v for k, v in outputs.items()
    }
    with staged(output) as file, file.open("wb") as stream:
        np.savez(stream, **named)  # type: ignore[arg-type]
    for name, array in named.items():
        _out.print(f"{name}: {array.dtype} {'x'.join(map(str, array.shape))}")
    _out.print(f"wrote {output}", soft_wrap=True)


@app.command()
def check(
    model: OnnxFile,
    reference: Annotated[str, typer.Option(help=f"The model it was exported from: {MODEL_HELP}")],
    weights: Weights = None,
    inputs: Annotated[
        Path | None, typer.Option(help=".npz with an array for each input; drawn otherwise.")
    ] = None,
    provider: Provider = "cpu",
    as_json: Json = False,
) -> None:
    """Compare a file in every runtime with float64 arithmetic; exit code 1 if one is too far off.

    The whole model runs on the given or on random inputs. Every ⵟ layer runs by itself on inputs
    within 1 % of its weights, where the distance cancels.
    """
    proto, module = load(model), load_model(reference, weights)
    given = None if inputs is None else to_model_dtypes(proto, _read_npz(inputs))
    with _err.status(f"checking {model}"):
        comparisons = api.check(model, module, given, provider)
    if as_json:
        print(render.comparison_json(comparisons))
    else:
        _out.print(render.comparison_table(comparisons))
        if provenance(proto).get("parameters_sha256") != api.parameter_hash(module):
            _out.print("note: the reference has other parameters than the file was exported with")
    if not all(c.passed for c in comparisons):
        raise typer.Exit(1)


@app.command()
def inspect(model: OnnxFile, as_json: Json = False) -> None:
    """List the ⵟ ops of a file: shapes, attributes, weights, FLOPs and bytes.

    Sizes that vary count as one.
    """
    proto = load(model)
    reports, origin = inspect_model(proto), provenance(proto)
    if as_json:
        print(render.op_json(reports, origin))
        return
    _out.print(render.op_table(reports))
    for key, value in origin.items():
        _out.print(f"{key}: {value}", markup=False, soft_wrap=True)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what this machine can do, and what to install for the rest."""
    findings = doctor_report.examine()
    if as_json:
        print(render.doctor_json(findings))
    else:
        _out.print(render.doctor_table(findings))


@kernels.command()
def build(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    arch: Annotated[
        str, typer.Option(help="Compute capabilities, without the dot, separated by commas.")
    ] = "80,86,89,90,100,120",
) -> None:
    """Compile the fused kernels ahead of time: cubins, PTX for newer chips, a manifest.

    Needs Triton and no GPU. Exit code 1 if a kernel spills registers beyond the budget, could race
    with its own copies, or does not use the tensor cores it should.
    """
    try:
        from nmn_export.kernels import aot  # noqa: PLC0415 - an extra; its absence is a message
    except ImportError as error:
        raise NmnExportError(
            "Compiling kernels needs Triton",
            got="no package triton",
            fix="Run: pip install 'nmn-export[gpu]'",
        ) from error
    if not all(part.isdigit() for part in arch.split(",")):
        raise NmnExportError(
            "--arch is a list of compute capabilities", got=arch, fix="Say, for instance, 80,90."
        )
    with Progress(console=_err, transient=True) as bar:
        task = bar.add_task("compiling")
        manifest = aot.build(
            [int(part) for part in arch.split(",")],
            output,
            lambda done, total, name: bar.update(
                task, completed=done, total=total, description=name
            ),
        )
    _out.print(f"wrote {len(manifest.kernels)} cubins and {len(manifest.ptx)} PTX to {output}")


def main() -> None:
    """Run the command line; what a user can mend is one line on standard error."""
    try:
        app()
    except NmnExportError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _example_inputs(model: str, specs: list[str]) -> dict[str, Tensor]:
    if not specs:
        if model not in ZOO:
            raise NmnExportError(
                "A model that is not of the zoo needs example inputs",
                got="no --input",
                fix="Say, for instance, --input x:2x3x224x224.",
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
            fix="Say, for instance, --input x:2x3x224x224.",
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
                fix="Say, for instance, --dynamic x:0=batch.",
            )
        axes.setdefault(name, {})[int(axis)] = size
    return axes


def _read_npz(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile, AttributeError) as error:
        raise NmnExportError(
            "--inputs must be an .npz file of arrays",
            got=f"'{path}' ({type(error).__name__})",
            fix="Write it with numpy.savez(path, x=array).",
        ) from error
