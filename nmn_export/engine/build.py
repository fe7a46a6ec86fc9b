"""From an ONNX file to a TensorRT engine and its record."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Literal

import onnx
import onnx_ir as ir

from nmn_export.engine.gpu import format_capability
from nmn_export.engine.graph.assignment import (
    PluginAssignment,
    assign,
    choose_library,
    not_in_plugin,
)
from nmn_export.engine.output import check_embedded, check_output, place
from nmn_export.engine.plugin_library import PluginLibrary
from nmn_export.engine.process.client import BuildProcess, PluginRefusal
from nmn_export.engine.process.messages import (
    ENGINE,
    MODEL,
    TIMING_CACHE,
    BuildRequest,
    Done,
    Message,
    Network,
    Ready,
    Step,
)
from nmn_export.engine.process.temporary_folder import write_error
from nmn_export.engine.record import (
    EngineRecord,
    FileRecord,
    PluginMode,
    PluginRecord,
    ShapesRecord,
)
from nmn_export.engine.shapes import ShapeRange, ShapeRequest, ranges
from nmn_export.engine.tensorrt_api import Choice, choose_package
from nmn_export.errors import NmnExportError
from nmn_export.graph.file import METADATA_PREFIX, load
from nmn_export.ops import OPS, PLUGIN_ATTRIBUTES

ProfilingVerbosity = Literal["layer_names_only", "detailed", "none"]
Verbosity = Literal["quiet", "error", "warning", "info", "verbose"]

MEMORY_POOLS = {"workspace": "WORKSPACE", "tacticSharedMem": "TACTIC_SHARED_MEMORY"}
"""Pools that can be bounded, as trtexec calls them and as TensorRT does."""


@dataclass(frozen=True)
class BuilderOptions:
    """What is passed on to TensorRT as it is.

    Attributes:
        timing_cache: File with measured times, read if it is there, and written; `tensorrt` only.
        optimization_level: 0 to 5; higher ones take longer and may find faster kernels.
        memory_pools: Bytes, by a name of `MEMORY_POOLS`.
        profiling_verbosity: How much the engine tells of its layers.
        verbosity: Which of TensorRT's messages are reported; "quiet" is none, and errors then
            appear in the exception only.
    """

    timing_cache: Path | None = None
    optimization_level: int | None = None
    memory_pools: Mapping[str, int] = field(default_factory=dict)
    profiling_verbosity: ProfilingVerbosity = "layer_names_only"
    verbosity: Verbosity = "quiet"


@dataclass(frozen=True)
class Built:
    """What a build wrote: the engine, and beside it as JSON its record."""

    path: Path
    record: EngineRecord


def build(
    path: str | Path,
    engine: str | Path,
    *,
    shapes: Mapping[str, ShapeRequest] | None = None,
    plugin: PluginMode = "auto",
    plugin_library: str | Path | None = None,
    embed_plugin: bool = False,
    compute_capabilities: Sequence[int] = (),
    tf32: bool = False,
    tensorrt: Choice = "auto",
    options: BuilderOptions | None = None,
    report: Callable[[Step | Message], None] = lambda _: None,
) -> Built:
    """Build a TensorRT engine from an ONNX file of ours, in a process of its own.

    Args:
        path: A file that `export` wrote.
        engine: File to write; `<engine>.json` beside it says what is in it.
        shapes: For inputs with dynamic axes, one shape or (min, opt, max). Missing ones are opt; a
            missing opt is max. If nothing is said of an input of which only the batch varies, that
            may be 1 to 8.
        plugin: `"auto"` takes the plugin for every ⵟ op that it computes, `"require"` fails if it
            does not compute one, `"off"` makes all of standard ops.
        plugin_library: Where it lies, see `find_plugin_library`.
        embed_plugin: Put it into the engine, which needs no other file then.
        compute_capabilities: GPUs to build for, 89 for 8.9; by default the one at hand. Only
            `tensorrt_rtx` takes any.
        tf32: Let float32 products be made with 10 bits (standard ops) or 16 bits (plugin) of
            mantissa. That destroys the distance of near vectors.
        tensorrt: The package to build with, see `choose_package`.
        options: What is passed on to TensorRT as it is.
        report: Called with the progress of the build and with TensorRT's messages.

    Raises:
        NmnExportError: A file, a shape or an option will not do, TensorRT refuses the model, or
            the build was killed; nothing is written.
        CheckError: The plugin is required and does not compute every ⵟ op; nothing is written.
    """
    path, engine, options = Path(path), Path(engine), options or BuilderOptions()
    check_output(path, engine, options.timing_cache)
    package = choose_package(tensorrt)
    library = choose_library(plugin, plugin_library, embed_plugin)
    model = load(path)
    job = _Job(
        path=path,
        engine=engine,
        model=model,
        found=ranges(model, shapes or {}),
        package=package,
        plugin=plugin,
        embed_plugin=embed_plugin,
        compute_capabilities=compute_capabilities,
        tf32=tf32,
        options=options,
        report=report,
    )
    try:
        return job.run(library)
    except PluginRefusal as refusal:
        if plugin == "require":
            raise not_in_plugin("a ⵟ op", refusal.words) from refusal
        return job.run(None, f"the plugin refused one op: {refusal.words}")


@dataclass(frozen=True)
class _Job:
    """What is built and how; see `build`. Of each input, `found` are the shapes."""

    path: Path
    engine: Path
    model: onnx.ModelProto
    found: Mapping[str, ShapeRange]
    package: str
    plugin: PluginMode
    embed_plugin: bool
    compute_capabilities: Sequence[int]
    tf32: bool
    options: BuilderOptions
    report: Callable[[Step | Message], None]

    def run(self, library: PluginLibrary | None, refusal: str = "") -> Built:
        """Build, and write the engine and its record.

        Args:
            library: Of the plugin, or `None` for none.
            refusal: Why there is none, if the plugin was tried.
        """
        with BuildProcess(self.package) as process:
            ready = process.ready()
            targets = self.targets(ready)
            graph, assignment = assign(
                self.model, self.plugin, library, targets, self.tf32, refusal
            )
            _hand_over(graph, self.options, process.folder)
            del graph  # with the prepared weights, as large as the model
            network, plugin = self.parse_and_build(process, assignment)
            if assignment.library and self.embed_plugin:
                check_embedded(process.folder, assignment.library)
            record = self.record(process, ready, network, plugin)
            place(process.folder, self.engine, record, self.options.timing_cache)
        return Built(self.engine, record)

    def targets(self, ready: Ready) -> list[int]:
        """Return the compute capabilities that the engine is for."""
        asked, package = self.compute_capabilities, self.package
        offered = ", ".join(format_capability(c) for c in ready.compute_capabilities)
        if not offered and asked:
            raise NmnExportError(
                f"The package {package} builds for the GPU at hand",
                got=f"--compute-capability {format_capability(asked[0])}",
                fix="Leave it out, or say --tensorrt tensorrt-rtx.",
            )
        wrong = [c for c in asked if c not in ready.compute_capabilities]
        if wrong or (offered and not asked and ready.gpu is None):
            raise NmnExportError(
                f"{package} {ready.version} builds for compute capability {offered}",
                got=format_capability(wrong[0]) if wrong else "none, and no GPU to build for",
                fix="Name one or more with --compute-capability, separated by commas.",
            )
        if offered and self.options.timing_cache:
            raise NmnExportError(
                "A timing cache is for the package tensorrt, which measures on the GPU",
                got=f"--timing-cache with {package}, on which it has no effect",
                fix="Leave it out.",
            )
        return list(asked) or ([ready.gpu] if ready.gpu else [])

    def request(self, assignment: PluginAssignment) -> BuildRequest:
        """Say it in the words of the process that builds."""
        library, options = assignment.library, self.options
        version = PLUGIN_ATTRIBUTES["plugin_version"]
        return BuildRequest(
            profile={n: [list(r.min), list(r.opt), list(r.max)] for n, r in self.found.items()},
            plugin_library=str(library.path) if library else None,
            plugins=[[name, version, PLUGIN_ATTRIBUTES["plugin_namespace"]] for name in OPS],
            embed_plugin=self.embed_plugin,
            compute_capabilities=list(self.compute_capabilities),
            tf32=self.tf32,
            timing_cache=options.timing_cache is not None,
            optimization_level=options.optimization_level,
            memory_pools={MEMORY_POOLS[name]: size for name, size in options.memory_pools.items()},
            profiling_verbosity=options.profiling_verbosity.upper(),
            verbosity="ERROR" if options.verbosity == "quiet" else options.verbosity.upper(),
        )

    def parse_and_build(
        self, process: BuildProcess, assignment: PluginAssignment
    ) -> tuple[Network, PluginRecord]:
        """Build; stop as soon as the parsed network is not what was asked for."""
        network: Network | None = None
        for told in process.build(self.request(assignment)):
            match told:
                case Network():
                    network = told
                    counted = assignment.count(told, self.embed_plugin)
                case Done():
                    assert network
                    return network, counted
                case Step():
                    self.report(told)
                case Message() if self.options.verbosity != "quiet":
                    self.report(told)
        raise AssertionError("the process ended without saying how")

    def record(
        self, process: BuildProcess, ready: Ready, network: Network, plugin: PluginRecord
    ) -> EngineRecord:
        """Say what was built."""
        keys = {p.key: p.value for p in self.model.metadata_props}
        return EngineRecord(
            engine=FileRecord.of(process.folder / ENGINE, self.engine.name),
            model=FileRecord.of(self.path),
            model_metadata={k: v for k, v in keys.items() if k.startswith(METADATA_PREFIX)},
            nmn_export=metadata.version("nmn-export"),
            tensorrt_package=self.package,
            tensorrt=ready.version,
            compute_capabilities=[format_capability(c) for c in self.compute_capabilities],
            tf32=self.tf32,
            plugin=plugin,
            inputs=network.inputs,
            outputs=network.outputs,
            profile={
                t.name: ShapesRecord(list(r.min), list(r.opt), list(r.max))
                for t in network.inputs
                if -1 in t.shape and (r := self.found[t.name])
            },
            layer_counts=dict(Counter(layer.type for layer in network.layers).most_common()),
            layers=network.layers,
            engine_layers=process.inspect(),
        )


def _hand_over(graph: ir.Model, options: BuilderOptions, folder: Path) -> None:
    """Put into the shared folder what the process reads."""
    try:
        ir.save(graph, folder / MODEL, external_data=f"{MODEL}.data")
        if options.timing_cache and options.timing_cache.is_file():
            (folder / TIMING_CACHE).write_bytes(options.timing_cache.read_bytes())
    except OSError as error:
        raise write_error("the model", folder, error) from error
