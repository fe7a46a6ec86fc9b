"""The process in which TensorRT runs, so that what kills TensorRT kills nothing else.

It is told what to do in one line on standard input, and tells what happens in lines on standard
output. When standard input ends, the process that started it is gone: then it removes the shared
folder and ends at once. It does not end before: nobody else would remove the folder.
"""

import json
import os
import shutil
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nmn_export.engine import tensorrt_api as api
from nmn_export.engine.gpu import gpu_capability
from nmn_export.engine.process.messages import (
    ENGINE,
    MODEL,
    TIMING_CACHE,
    BuildRequest,
    Done,
    Failed,
    Inspected,
    Layer,
    Message,
    Network,
    Ready,
    Report,
    Step,
    TensorInfo,
)
from nmn_export.engine.process.temporary_folder import write_error
from nmn_export.errors import NmnExportError

_SEVERITIES = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")

_LONGEST = 300
"""Characters of TensorRT's own words in an error."""


_SEE = "Say --verbosity verbose to see what it did."

_TOO_OLD = (
    "for Turing (SM75)",
    "Build for another compute capability; float16 is no way out, since the sums of a ⵟ op are "
    "float32 in every dtype.",
)
"""Words of TensorRT's of a target that lacks an operation, and what to do then."""


def main() -> None:
    """Build one engine: `worker PACKAGE FOLDER`."""
    package, folder = sys.argv[1], Path(sys.argv[2])
    tell = _take_standard_output()
    try:
        trt = api.load_package(package)
        capabilities = sorted(api.named_capabilities(trt))
        tell(Ready(trt.__version__, capabilities, gpu_capability()))
        line = sys.stdin.readline()
        if not line:
            _leave(folder)
        threading.Thread(target=_leave_with_parent, args=(folder,), daemon=True).start()
        build = _Build(trt, BuildRequest(**json.loads(line)), folder, tell)
        plan = build.run()
        tell(Done())
        tell(Inspected(build.inspect(plan)))
        del build, plan  # as large as the engine
    except NmnExportError as error:
        tell(Failed(error.rule, error.got, error.fix))
    _leave_with_parent(folder)


def _take_standard_output() -> Callable[[Report], None]:
    """Keep standard output for reports; what libraries print goes to standard error."""
    stream = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    lock = threading.Lock()  # TensorRT speaks from several threads

    def tell(report: Report) -> None:
        line = json.dumps({type(report).__name__: asdict(report)})
        with lock:
            print(line, file=stream, flush=True)

    return tell


def _leave_with_parent(folder: Path) -> None:
    sys.stdin.read()
    _leave(folder)


def _leave(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


class _Build:
    """One build."""

    def __init__(
        self, trt: Any, request: BuildRequest, folder: Path, tell: Callable[[Report], None]
    ) -> None:
        self.trt, self.request, self.folder, self.tell = trt, request, folder, tell
        self.errors: list[str] = []
        self.passed_on = _SEVERITIES[: _SEVERITIES.index(request.verbosity) + 1]
        self.logger = api.make_logger(trt, self.log)

    def log(self, severity: str, text: str) -> None:
        if severity in _SEVERITIES[:2]:
            self.errors.append(text)
        if severity in self.passed_on:
            self.tell(Message(severity, text))

    def run(self) -> Any:
        """Put the engine into the shared folder, and return it."""
        trt, request = self.trt, self.request
        builder = api.create_builder(trt, self.logger)
        if request.plugin_library:
            self.load_plugins(builder, request.plugin_library)
        network = api.create_network(trt, builder)
        parser = self.parse(network)
        self.tell(_network(network))
        config = self.configure(builder)
        self.set_shapes(builder, network, config)
        self.errors.clear()
        plan = builder.build_serialized_network(network, config)
        del parser  # it owns the weights, and has to outlive the build
        if plan is None:
            raise NmnExportError(
                "TensorRT must be able to build the engine",
                got=(told := self.told()) or "no reason that TensorRT would give",
                fix=_TOO_OLD[1] if _TOO_OLD[0] in told else _SEE,
            )
        self.write(ENGINE, plan)
        if request.timing_cache:
            self.write(TIMING_CACHE, config.get_timing_cache().serialize())
        return plan

    def write(self, name: str, content: Any) -> None:
        try:
            (self.folder / name).write_bytes(memoryview(content))
        except OSError as error:
            raise write_error("the engine", self.folder, error) from error

    def load_plugins(self, builder: Any, library: str) -> None:
        creators = api.load_plugins(self.trt, builder, library)
        missing = [plugin[0] for plugin in self.request.plugins if tuple(plugin) not in creators]
        if missing:
            raise NmnExportError(
                "The plugin library must have a plugin for every ⵟ op",
                got=f"none for {', '.join(sorted(missing))}",
                fix="Build it again with `make plugin`.",
            )

    def parse(self, network: Any) -> Any:
        parser = self.trt.OnnxParser(network, self.logger)
        if not parser.parse_from_file(str(self.folder / MODEL)):
            raise NmnExportError(
                "TensorRT must be able to parse the model",
                got=_parser_error(parser) or self.told(),
                fix="Write that part of the model with ops that TensorRT knows.",
            )
        return parser

    def configure(self, builder: Any) -> Any:
        trt, request = self.trt, self.request
        config = builder.create_builder_config()
        api.set_tf32(trt, config, request.tf32)
        if request.compute_capabilities:
            api.set_capabilities(trt, config, request.compute_capabilities)
        if request.embed_plugin and request.plugin_library:
            api.embed_plugins(trt, config, request.plugin_library)
        if request.timing_cache:
            cache = self.folder / TIMING_CACHE
            api.set_timing_cache(config, cache.read_bytes() if cache.is_file() else b"")
        if request.optimization_level is not None:
            config.builder_optimization_level = request.optimization_level
        api.set_memory_pools(trt, config, request.memory_pools)
        config.profiling_verbosity = getattr(trt.ProfilingVerbosity, request.profiling_verbosity)
        config.progress_monitor = api.make_monitor(trt, lambda *step: self.tell(Step(*step)))
        return config

    def set_shapes(self, builder: Any, network: Any, config: Any) -> None:
        profile = builder.create_optimization_profile()
        for i in range(network.num_inputs):
            tensor = network.get_input(i)
            if tensor.is_shape_tensor:
                raise NmnExportError(
                    "An input of an engine must not decide over shapes",
                    got=f"'{tensor.name}', whose values do",
                    fix="Make it an argument of the model that is fixed at export.",
                )
            profile.set_shape(tensor.name, *self.request.profile[tensor.name])
        if network.num_inputs:
            config.add_optimization_profile(profile)

    def inspect(self, plan: Any) -> list[Layer] | None:
        """List the layers of the engine, if it is for the GPU at hand."""
        gpu, built_for = gpu_capability(), self.request.compute_capabilities
        if gpu is None or (built_for and gpu not in built_for):
            return None
        layers = api.inspect_engine(self.trt, self.logger, plan, self.request.embed_plugin)
        return [Layer(*layer) for layer in layers] or None

    def told(self) -> str:
        """Return what TensorRT gave as the reason: its first error, and its last if it differs."""
        told = dict.fromkeys(_plain(text) for text in (*self.errors[:1], *self.errors[-1:]))
        return "; ".join(told)


def _network(network: Any) -> Network:
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    outputs = [network.get_output(i) for i in range(network.num_outputs)]
    return Network(
        [Layer(layer.name, layer.type.name) for layer in layers],
        [_tensor(t) for t in inputs],
        [_tensor(t) for t in outputs],
    )


def _tensor(tensor: Any) -> TensorInfo:
    return TensorInfo(tensor.name, api.dtype_name(tensor.dtype), list(tensor.shape))


def _parser_error(parser: Any) -> str:
    """Return the first error of a parser: the op, its name and what is wrong with it."""
    if not parser.num_errors:
        return ""
    error = parser.get_error(0)
    getters = [getattr(error, name, None) for name in ("node_operator", "node_name")]
    where = " ".join(filter(None, (getter() for getter in getters if getter)))
    return f"{where}: {_plain(error.desc())}" if where else _plain(error.desc())


def _plain(text: str) -> str:
    """Return the words of a message, its source location left out."""
    if text.startswith("["):
        text = text.partition("] ")[2] or text
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


if __name__ == "__main__":
    main()
