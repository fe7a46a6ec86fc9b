"""`nmn-export build`: build a TensorRT engine from an ONNX file."""

import re
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

import typer

from nmn_export.cli.signals import stopped_in_one_line
from nmn_export.cli.terminal import BuildProgress, out
from nmn_export.engine.build import (
    MEMORY_POOLS,
    BuilderOptions,
    Built,
    ProfilingVerbosity,
    Verbosity,
    build,
)
from nmn_export.engine.shapes import ShapeRequest, parse_shapes
from nmn_export.errors import NmnExportError

_UNITS = {"B": 1, "K": 2**10, "M": 2**20, "G": 2**30}

_LARGEST_POOL = 2**63 - 1
"""In bytes: TensorRT reads larger sizes as negative numbers."""

_REPLACED = {
    "--fp16": "Export in float16: nmn-export export --dtype float16, then build.",
    "--bf16": "Export in bfloat16: nmn-export export --dtype bfloat16, then build.",
    "--int8": "Add Q/DQ nodes to the model before the export; build then keeps their types.",
    "--fp8": "Add Q/DQ nodes to the model before the export; build then keeps their types.",
    "--best": "Choose with nmn-export export --dtype, then build.",
}


def _replaced(context: typer.Context, parameter: typer.CallbackParam, given: bool) -> bool:
    """Reject an option of older versions of trtexec, and name its replacement."""
    if given and not context.resilient_parsing:
        option = parameter.opts[0]
        raise NmnExportError(
            "An engine always has the dtypes of its model, as in TensorRT 11",
            got=option,
            fix=_REPLACED[option],
        )
    return given


def build_engine(
    model: Annotated[
        Path | None, typer.Argument(metavar="MODEL.onnx", help="File written by export.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", "--saveEngine", help="Engine file to write."),
    ] = None,
    shapes: Annotated[
        str | None,
        typer.Option(help="Fixed input shapes. Replaces the next three options."),
    ] = None,
    min_shapes: Annotated[
        str | None,
        typer.Option(
            "--min-shapes",
            "--minShapes",
            help="Smallest input shapes, as in x:1x3x224x224,y:1x8. Default: --opt-shapes.",
        ),
    ] = None,
    opt_shapes: Annotated[
        str | None,
        typer.Option(
            "--opt-shapes",
            "--optShapes",
            help="Shapes to tune for. Default: --max-shapes. For an input whose only dynamic axis "
            "is the batch, the default is 1 to 8, tuned for the batch size of the export.",
        ),
    ] = None,
    max_shapes: Annotated[
        str | None,
        typer.Option(
            "--max-shapes",
            "--maxShapes",
            help="Largest input shapes. Default: --opt-shapes.",
        ),
    ] = None,
    plugin: Annotated[
        Literal["auto", "require", "off"],
        typer.Option(
            help="auto: the plugin computes the ⵟ ops that it supports; the others are decomposed "
            "into standard ops. require: exit code 1 if the plugin does not support all of them. "
            "off: standard ops only."
        ),
    ] = "auto",
    plugin_library: Annotated[
        Path | None,
        typer.Option(
            "--plugin-library",
            "--dynamicPlugins",
            help="Path of the plugin library. Default: NMN_EXPORT_PLUGIN, or the library that "
            "`make plugin` built.",
        ),
    ] = None,
    embed_plugin: Annotated[
        bool,
        typer.Option("--embed-plugin", help="Store the plugin library in the engine."),
    ] = False,
    compute_capability: Annotated[
        str | None,
        typer.Option(
            "--compute-capability",
            "--computeCapabilities",
            help="Compute capabilities to build for, as in 8.9,12.0. Default: the local GPU. "
            "Supported by tensorrt_rtx only, which then needs no GPU.",
        ),
    ] = None,
    tf32: Annotated[
        bool,
        typer.Option(
            "--tf32/--no-tf32",
            " /--noTF32",
            help="Allow float32 products with reduced precision. The distance of inputs close to a "
            "weight then loses its accuracy.",
        ),
    ] = False,
    tensorrt: Annotated[
        Literal["auto", "tensorrt", "tensorrt-rtx"],
        typer.Option(help="Package to build with. auto: tensorrt if there is a GPU."),
    ] = "auto",
    timing_cache: Annotated[
        Path | None,
        typer.Option(
            "--timing-cache",
            "--timingCacheFile",
            help="Timing cache file to read and write. Supported by tensorrt only.",
        ),
    ] = None,
    optimization_level: Annotated[
        int | None,
        typer.Option(
            "--optimization-level",
            "--builderOptimizationLevel",
            min=0,
            max=5,
            help="Higher levels build longer and may find faster kernels.",
        ),
    ] = None,
    memory_pools: Annotated[
        str | None,
        typer.Option(
            "--memory-pools",
            "--memPoolSize",
            help="Memory limits as POOL:SIZE, in MiB or with the suffix B, K, M or G. Pools: "
            f"{', '.join(MEMORY_POOLS)}.",
        ),
    ] = None,
    profiling_verbosity: Annotated[
        ProfilingVerbosity,
        typer.Option(
            "--profiling-verbosity",
            "--profilingVerbosity",
            help="How much layer information the engine contains.",
        ),
    ] = "layer_names_only",
    verbosity: Annotated[
        Verbosity, typer.Option(help="Least severe TensorRT messages that are printed.")
    ] = "quiet",
    verbose: Annotated[bool, typer.Option("--verbose", hidden=True)] = False,
    onnx: Annotated[Path | None, typer.Option("--onnx", hidden=True)] = None,
    serialized: Annotated[Path | None, typer.Option("--setPluginsToSerialize", hidden=True)] = None,
    fp16: Annotated[bool, typer.Option("--fp16", hidden=True, callback=_replaced)] = False,
    bf16: Annotated[bool, typer.Option("--bf16", hidden=True, callback=_replaced)] = False,
    int8: Annotated[bool, typer.Option("--int8", hidden=True, callback=_replaced)] = False,
    fp8: Annotated[bool, typer.Option("--fp8", hidden=True, callback=_replaced)] = False,
    best: Annotated[bool, typer.Option("--best", hidden=True, callback=_replaced)] = False,
) -> None:
    """Build a TensorRT engine, and write its record next to it as JSON.

    The engine keeps the dtypes of the model, and uses TF32 for float32 only with --tf32. trtexec's
    spellings of the options are accepted, too.
    """
    del fp16, bf16, int8, fp8, best  # their callback rejects them
    path, engine = _exactly_one("MODEL.onnx", model, onnx), _exactly_one("--output ENGINE", output)
    options = BuilderOptions(
        timing_cache=timing_cache,
        optimization_level=optimization_level,
        memory_pools=_memory_pools(memory_pools or ""),
        profiling_verbosity=profiling_verbosity,
        verbosity="verbose" if verbose else verbosity,
    )
    with stopped_in_one_line("build"), BuildProgress(f"reading {path}") as progress:
        built = build(
            path,
            engine,
            shapes=_shapes(shapes, min_shapes, opt_shapes, max_shapes),
            plugin=plugin,
            plugin_library=serialized or plugin_library,
            embed_plugin=embed_plugin or serialized is not None,
            compute_capabilities=_capabilities(compute_capability),
            tf32=tf32,
            tensorrt=tensorrt,
            options=options,
            report=progress.show,
        )
    _print_summary(built)


def _print_summary(built: Built) -> None:
    record = built.record
    plugin = record.plugin
    target = ", ".join(record.compute_capabilities)
    target = f"compute capability {target}" if target else "this GPU"
    lines = [
        f"wrote {built.path} ({plugin.layers} ⵟ ops in the plugin, {plugin.decomposed} decomposed)",
        f"built by {record.tensorrt_package} {record.tensorrt} for {target}",
    ]
    for name, shapes in record.profile.items():
        bounds = ["x".join(map(str, shape)) for shape in (shapes.min, shapes.opt, shapes.max)]
        lines.append(f"{name}: {bounds[0]} to {bounds[2]}, tuned for {bounds[1]}")
    for reason in dict.fromkeys(plugin.reasons.values()):
        names = [name for name, why in plugin.reasons.items() if why == reason]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        lines.append(f"note: '{names[0]}'{more} decomposed: {reason}")
    if plugin.others:
        lines.append(
            f"note: {len(plugin.others)} other plugin layers do not come from a ⵟ op of ai.nmn: "
            + ", ".join(f"'{name}'" for name in plugin.others)
        )
    if plugin.layers and not plugin.embedded:
        lines.append(
            "note: running the engine requires the plugin library; use --embed-plugin to store it"
        )
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def _exactly_one(argument: str, *given: Path | None) -> Path:
    paths = [path for path in given if path is not None]
    if len(paths) != 1:
        raise NmnExportError(
            f"Exactly one {argument} is needed",
            got=" and ".join(map(str, paths)) or "none",
            fix="Use, for example, nmn-export build model.onnx -o model.engine.",
        )
    return paths[0]


def _shapes(
    every: str | None, low: str | None, opt: str | None, high: str | None
) -> dict[str, ShapeRequest]:
    given = [
        parse_shapes(option, text) if text is not None else {}
        for option, text in (("--min-shapes", low), ("--opt-shapes", opt), ("--max-shapes", high))
    ]
    names = dict.fromkeys(name for shapes in given for name in shapes)
    fixed: dict[str, ShapeRequest] = {}
    if every is not None:
        fixed.update(parse_shapes("--shapes", every))
    if twice := [name for name in fixed if name in names]:
        raise NmnExportError(
            "--shapes replaces --min-shapes, --opt-shapes and --max-shapes",
            got=f"both for input '{twice[0]}'",
            fix="Remove one of them.",
        )
    return fixed | {name: [shapes.get(name) for shapes in given] for name in names}


def _capabilities(text: str | None) -> list[int]:
    parts = [] if text is None else text.split(",")
    matches = [re.fullmatch(r"([0-9]{1,3})\.?([0-9])", part.strip()) for part in parts]
    if None in matches:
        raise NmnExportError(
            "--compute-capability is a list of compute capabilities",
            got=f"'{text}'",
            fix="Use, for example, 8.9,12.0.",
        )
    return list(dict.fromkeys(10 * int(m[1]) + int(m[2]) for m in matches if m))


def _memory_pools(text: str) -> dict[str, int]:
    pools = {}
    for part in filter(None, text.split(",")):
        found = re.fullmatch(r"(\w+):([0-9]{1,40}(?:\.[0-9]{1,40})?)([BKMG]?)", part.strip())
        if not found or found[1] not in MEMORY_POOLS:
            raise NmnExportError(
                f"--memory-pools is POOL:SIZE, with the pools {', '.join(MEMORY_POOLS)}",
                got=f"'{part}'",
                fix="Use, for example, workspace:4G.",
            )
        size = int(Fraction(found[2]) * _UNITS[found[3] or "M"])
        if not 0 < size <= _LARGEST_POOL:
            raise NmnExportError(
                f"The size of a memory pool is from 1 to {_LARGEST_POOL} bytes",
                got=f"'{part}'",
                fix="Use, for example, workspace:4G.",
            )
        pools[found[1]] = size
    return pools
