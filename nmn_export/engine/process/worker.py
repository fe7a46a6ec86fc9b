"""The builder process. TensorRT runs here, so that a crash of TensorRT ends this process only.

The request is one line on standard input, and messages are lines on standard output. End of file on
standard input means that the parent is gone. Only then does the worker remove the shared folder and
exit; if it exited earlier, a parent that is killed would leave the folder behind.
"""

import contextlib
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
"""Maximum length of a TensorRT message in an error."""

_USE_VERBOSE = "Use --verbosity verbose to see TensorRT's messages."

_TOO_OLD = (
    "for Turing (SM75)",
    "Build for another compute capability. float16 does not help: a ⵟ op accumulates in "
    "float32 in every dtype.",
)
"""Part of TensorRT's message for a target that lacks an operation, and the fix."""


_ATTEMPTS = 100
"""Number of attempts to remove the shared folder."""


def main() -> None:
    """Build one engine: `worker PACKAGE FOLDER`."""
    package, folder = sys.argv[1], Path(sys.argv[2])
    send = _take_standard_output()
    try:
        trt = api.load_package(package)
        capabilities = sorted(api.named_capabilities(trt))
        send(Ready(trt.__version__, capabilities, gpu_capability()))
        line = sys.stdin.readline()
        if not line:
            _leave(folder)
        threading.Thread(target=_leave_with_parent, args=(folder,), daemon=True).start()
        build = _Build(trt, BuildRequest(**json.loads(line)), folder, send)
        plan = build.run()
        send(Done())
        send(Inspected(build.inspect(plan)))
        del build, plan  # frees memory of the size of the engine
    except NmnExportError as error:
        send(Failed(error.rule, error.got, error.fix))
    _leave_with_parent(folder)


def _take_standard_output() -> Callable[[Report], None]:
    """Reserve standard output for messages; output of libraries goes to standard error."""
    stream = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    lock = threading.Lock()  # TensorRT logs from several threads

    def send(report: Report) -> None:
        line = json.dumps({type(report).__name__: asdict(report)})
        # If the parent is gone, this process must not end here: `_leave` removes the shared folder.
        with lock, contextlib.suppress(BrokenPipeError):
            print(line, file=stream, flush=True)

    return send


def _leave_with_parent(folder: Path) -> None:
    sys.stdin.read()
    _leave(folder)


def _leave(folder: Path) -> None:
    """Remove the shared folder, although the build may still write to it, and end the process."""
    for _ in range(_ATTEMPTS):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            break
    os._exit(1)


class _Build:
    """One build."""

    def __init__(
        self, trt: Any, request: BuildRequest, folder: Path, send: Callable[[Report], None]
    ) -> None:
        self.trt, self.request, self.folder, self.send = trt, request, folder, send
        self.errors: list[str] = []
        self.passed_on = _SEVERITIES[: _SEVERITIES.index(request.verbosity) + 1]
        self.logger = api.make_logger(trt, self.log)

    def log(self, severity: str, text: str) -> None:
        if severity in _SEVERITIES[:2]:
            self.errors.append(text)
        if severity in self.passed_on:
            self.send(Message(severity, text))

    def run(self) -> Any:
        """Write the engine to the shared folder, and return it."""
        trt, request = self.trt, self.request
        builder = api.create_builder(trt, self.logger)
        if request.plugin_library:
            self.load_plugins(builder, request.plugin_library)
        network = api.create_network(trt, builder)
        parser = self.parse(network)
        self.send(_network(network))
        config = self.configure(builder)
        self.set_shapes(builder, network, config)
        self.errors.clear()
        plan = builder.build_serialized_network(network, config)
        del parser  # the parser owns the weights and must outlive the build
        if plan is None:
            raise NmnExportError(
                "TensorRT must be able to build the engine",
                got=(reason := self.reason()) or "no reason from TensorRT",
                fix=_TOO_OLD[1] if _TOO_OLD[0] in reason else _USE_VERBOSE,
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
                got=_parser_error(parser) or self.reason(),
                fix="Write that part of the model with ops that TensorRT supports.",
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
        config.progress_monitor = api.make_monitor(trt, lambda *step: self.send(Step(*step)))
        return config

    def set_shapes(self, builder: Any, network: Any, config: Any) -> None:
        profile = builder.create_optimization_profile()
        for i in range(network.num_inputs):
            tensor = network.get_input(i)
            if tensor.is_shape_tensor:
                raise NmnExportError(
                    "The values of an input must not determine shapes",
                    got=f"'{tensor.name}', whose values do",
                    fix="Make it an argument of the model that is fixed at export.",
                )
            profile.set_shape(tensor.name, *self.request.profile[tensor.name])
        if network.num_inputs:
            config.add_optimization_profile(profile)

    def inspect(self, plan: Any) -> list[Layer] | None:
        """List the layers of the engine, if it is built for the local GPU."""
        gpu, built_for = gpu_capability(), self.request.compute_capabilities
        if gpu is None or (built_for and gpu not in built_for):
            return None
        layers = api.inspect_engine(self.trt, self.logger, plan, self.request.embed_plugin)
        return [Layer(*layer) for layer in layers] or None

    def reason(self) -> str:
        """Return TensorRT's first error, and its last if that differs."""
        errors = dict.fromkeys(_plain(text) for text in (*self.errors[:1], *self.errors[-1:]))
        return "; ".join(errors)


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
    """Return the parser's first error, with the op and the name of the node."""
    if not parser.num_errors:
        return ""
    error = parser.get_error(0)
    getters = [getattr(error, name, None) for name in ("node_operator", "node_name")]
    where = " ".join(filter(None, (getter() for getter in getters if getter)))
    return f"{where}: {_plain(error.desc())}" if where else _plain(error.desc())


def _plain(text: str) -> str:
    """Return a message in one line, without its source location."""
    if text.startswith("["):
        text = text.partition("] ")[2] or text
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


if __name__ == "__main__":
    main()
