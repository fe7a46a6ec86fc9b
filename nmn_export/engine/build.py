"""Build a TensorRT engine and its record from an ONNX file."""

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
"""Memory pools that can be limited: trtexec's name and TensorRT's name."""


@dataclass(frozen=True)
class BuilderOptions:
    """Options that are passed to TensorRT unchanged.

    Attributes:
        timing_cache: Timing cache file. It is read if it exists, and written. `tensorrt` only.
        optimization_level: 0 to 5. Higher levels build longer and may find faster kernels.
        memory_pools: Limits in bytes, by a name of `MEMORY_POOLS`.
        profiling_verbosity: How much layer information the engine contains.
        verbosity: The least severe TensorRT messages that are reported. With "quiet" none are
            reported, and errors appear only in the exception.
    """

    timing_cache: Path | None = None
    optimization_level: int | None = None
    memory_pools: Mapping[str, int] = field(default_factory=dict)
    profiling_verbosity: ProfilingVerbosity = "layer_names_only"
    verbosity: Verbosity = "quiet"


@dataclass(frozen=True)
class Built:
    """The result of a build: the engine file, and the record that is written next to it as JSON."""

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
    """Build a TensorRT engine from an exported ONNX file, in a separate process.

    Args:
        path: A file written by `export`.
        engine: File to write. `<engine>.json`, in the same folder, describes it.
        shapes: For inputs with dynamic axes, one shape or (min, opt, max). A missing min or max
            defaults to opt, and a missing opt defaults to max. An input without shapes whose only
            dynamic axis is the batch gets batch sizes 1 to 8.
        plugin: `"auto"` uses the plugin for every ⵟ op that it supports and decomposes the rest.
            `"require"` fails if the plugin does not support an op. `"off"` decomposes all ⵟ ops
            into standard ops.
        plugin_library: Path of the plugin library; see `find_plugin_library`.
        embed_plugin: Store the plugin library in the engine, which then needs no other file.
        compute_capabilities: GPUs to build for, 89 for 8.9; by default the GPU of this machine.
            Supported by `tensorrt_rtx` only.
        tf32: Allow float32 products with 10 mantissa bits (standard ops) or 16 (plugin). The
            distance of nearby vectors then loses its accuracy.
        tensorrt: The package to build with, see `choose_package`.
        options: Options that are passed to TensorRT unchanged.
        report: Called with the progress of the build and with TensorRT's messages.

    Raises:
        NmnExportError: A file, a shape or an option is invalid, TensorRT rejects the model, or the
            build was killed. Nothing is written.
        CheckError: The plugin is required and does not support every ⵟ op. Nothing is written.
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
        shape_ranges=ranges(model, shapes or {}),
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
            raise not_in_plugin("a ⵟ op", refusal.reason) from refusal
        return job.run(None, f"the plugin rejected an op: {refusal.reason}")


@dataclass(frozen=True)
class _Job:
    """The arguments of `build`, checked; `shape_ranges` has every input."""

    path: Path
    engine: Path
    model: onnx.ModelProto
    shape_ranges: Mapping[str, ShapeRange]
    package: str
    plugin: PluginMode
    embed_plugin: bool
    compute_capabilities: Sequence[int]
    tf32: bool
    options: BuilderOptions
    report: Callable[[Step | Message], None]

    def run(self, library: PluginLibrary | None, refusal: str = "") -> Built:
        """Build and write the engine and its record.

        Args:
            library: The plugin library, or `None` to decompose all ⵟ ops.
            refusal: Why the plugin rejected the model in an earlier attempt, if it did.
        """
        with BuildProcess(self.package) as process:
            ready = process.ready()
            targets = self.targets(ready)
            graph, assignment = assign(
                self.model, self.plugin, library, targets, self.tf32, refusal
            )
            _hand_over(graph, self.options, process.folder)
            del graph  # frees the prepared weights, which are as large as the model
            network, plugin = self.parse_and_build(process, assignment)
            if assignment.library and self.embed_plugin:
                check_embedded(process.folder, assignment.library)
            record = self.record(process, ready, network, plugin)
            place(process.folder, self.engine, record, self.options.timing_cache)
        return Built(self.engine, record)

    def targets(self, ready: Ready) -> list[int]:
        """Return the compute capabilities that the engine is built for."""
        requested, package = self.compute_capabilities, self.package
        offered = ", ".join(format_capability(c) for c in ready.compute_capabilities)
        if not offered and requested:
            raise NmnExportError(
                f"The package {package} builds only for the GPU of this machine",
                got=f"--compute-capability {format_capability(requested[0])}",
                fix="Remove it, or use --tensorrt tensorrt-rtx.",
            )
        unsupported = [c for c in requested if c not in ready.compute_capabilities]
        if unsupported or (offered and not requested and ready.gpu is None):
            raise NmnExportError(
                f"{package} {ready.version} builds for compute capability {offered}",
                got=format_capability(unsupported[0]) if unsupported else "none, without a GPU",
                fix="Specify one or more with --compute-capability, separated by commas.",
            )
        if offered and self.options.timing_cache:
            raise NmnExportError(
                "A timing cache is supported by the package tensorrt only",
                got=f"--timing-cache with {package}, on which it has no effect",
                fix="Remove it.",
            )
        return list(requested) or ([ready.gpu] if ready.gpu else [])

    def request(self, assignment: PluginAssignment) -> BuildRequest:
        """Return the request to the builder process."""
        library, options = assignment.library, self.options
        version = PLUGIN_ATTRIBUTES["plugin_version"]
        return BuildRequest(
            profile={
                n: [list(r.min), list(r.opt), list(r.max)] for n, r in self.shape_ranges.items()
            },
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
        """Build; fail early if the parsed network does not match the plugin assignment."""
        network: Network | None = None
        for message in process.build(self.request(assignment)):
            match message:
                case Network():
                    network = message
                    counted = assignment.count(message, self.embed_plugin)
                case Done():
                    assert network
                    return network, counted
                case Step():
                    self.report(message)
                case Message() if self.options.verbosity != "quiet":
                    self.report(message)
        raise AssertionError("the process ended without a result or an error")

    def record(
        self, process: BuildProcess, ready: Ready, network: Network, plugin: PluginRecord
    ) -> EngineRecord:
        """Return the record of the built engine."""
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
                if -1 in t.shape and (r := self.shape_ranges[t.name])
            },
            layer_counts=dict(Counter(layer.type for layer in network.layers).most_common()),
            layers=network.layers,
            engine_layers=process.inspect(),
        )


def _hand_over(graph: ir.Model, options: BuilderOptions, folder: Path) -> None:
    """Write the model and the timing cache to the shared folder."""
    try:
        ir.save(graph, folder / MODEL, external_data=f"{MODEL}.data")
        if options.timing_cache and options.timing_cache.is_file():
            (folder / TIMING_CACHE).write_bytes(options.timing_cache.read_bytes())
    except OSError as error:
        raise write_error("the model", folder, error) from error
