"""One interface to `tensorrt` 10.x and 11.x and to `tensorrt_rtx`.

Features are detected by the names that a package has, not by its version. This module does not
depend on engine files, processes or ONNX files.
"""

import importlib
import importlib.util
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from nmn_export.engine.gpu import gpu_capability
from nmn_export.errors import NmnExportError

Choice = Literal["auto", "tensorrt", "tensorrt-rtx"]

_PACKAGES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}

_DTYPES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}

PLUGIN_LAYER = "PLUGIN_V3"
"""TensorRT's layer type of plugin layers."""


def choose_package(choice: Choice = "auto") -> str:
    """Return the name of the package to import.

    Args:
        choice: `"auto"` chooses `tensorrt` if it is installed and there is a GPU. Otherwise it
            chooses the package that is installed, preferring `tensorrt_rtx`.

    Raises:
        NmnExportError: The package is not installed.
    """
    wanted = [_PACKAGES[choice]] if choice != "auto" else list(_PACKAGES.values())
    installed = [name for name in wanted if importlib.util.find_spec(name) is not None]
    if not installed:
        extra = "tensorrt" if choice == "tensorrt" else "tensorrt-rtx"
        raise NmnExportError(
            "Building an engine needs TensorRT",
            got=f"no package {' or '.join(wanted)}",
            fix=f"Run: pip install 'nmn-export[{extra}]'",
        )
    if len(installed) > 1 and gpu_capability() is None:
        return _PACKAGES["tensorrt-rtx"]
    return installed[0]


def load_package(package: str) -> Any:
    """Import a package that `choose_package` returned.

    Raises:
        NmnExportError: The package is installed but cannot be imported.
    """
    try:
        trt = importlib.import_module(package)
        trt.Builder  # noqa: B018 - without its libraries, a package is imported as an empty module
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise NmnExportError(
            f"The package {package} must be complete",
            got=str(error) or type(error).__name__,
            fix="Install it again, with the libraries of the same version.",
        ) from error
    return trt


def named_capabilities(trt: Any) -> dict[int, Any]:
    """Return the compute capabilities that can be built for without such a GPU."""
    offered = getattr(trt, "ComputeCapability", None)
    members = {} if offered is None else offered.__members__
    return {int(name[2:]): value for name, value in members.items() if re.match(r"SM\d+$", name)}


def make_logger(trt: Any, report: Callable[[str, str], None]) -> Any:
    """Return a logger that calls `report` with the severity, in capitals, and the text."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            report(severity.name, text)

    return Logger()


def make_monitor(trt: Any, report: Callable[[str, str | None, int, int], None]) -> Any:
    """Return a progress monitor that calls `report` with (phase, parent, done, total)."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.phases: dict[str, tuple[str | None, int]] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self.phases[phase] = (parent, steps)
            report(phase, parent, 0, max(steps, 1))

        def step_complete(self, phase: str, step: int) -> bool:
            parent, steps = self.phases[phase]
            if step + 1 < steps:
                report(phase, parent, step + 1, steps)
            return True

        def phase_finish(self, phase: str) -> None:
            parent, steps = self.phases[phase]
            report(phase, parent, max(steps, 1), max(steps, 1))

    return Monitor()


def create_builder(trt: Any, logger: Any) -> Any:
    """Return a builder.

    Raises:
        NmnExportError: The package needs a GPU, and there is none.
    """
    try:
        builder = trt.Builder(logger)
    except (TypeError, RuntimeError):  # raised by the bindings for a null pointer
        builder = None
    if builder is None:
        raise NmnExportError(
            f"The package {trt.__name__} needs the GPU that it builds for",
            got="no GPU that it can use",
            fix="Build on a machine with this GPU, or use --tensorrt tensorrt-rtx.",
        )
    return builder


def create_network(trt: Any, builder: Any) -> Any:
    """Return an empty, strongly typed network, which keeps the dtypes of the model."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return builder.create_network(0 if flag is None else 1 << int(flag))


def load_plugins(trt: Any, owner: Any, library: str) -> set[tuple[str, str, str]]:
    """Load a plugin library; return name, version and namespace of all registered plugins.

    Args:
        trt: The TensorRT package.
        owner: A builder or a runtime, which must outlive the use of the plugins.
        library: Path of the library.

    Raises:
        NmnExportError: TensorRT cannot load it.
    """
    registry = owner.get_plugin_registry()
    if registry.load_library(library) is None:
        raise NmnExportError(
            f"{trt.__name__} must be able to load the plugin library",
            got=f"'{library}', which it rejects",
            fix="Build it again with `make plugin`, against the headers of this TensorRT.",
        )
    name = "all_creators" if hasattr(registry, "all_creators") else "plugin_creator_list"
    return {(c.name, c.plugin_version, c.plugin_namespace) for c in getattr(registry, name)}


def set_tf32(trt: Any, config: Any, on: bool) -> None:
    """Allow or forbid TF32 for float32 products. TensorRT allows it by default."""
    (config.set_flag if on else config.clear_flag)(trt.BuilderFlag.TF32)


def set_capabilities(trt: Any, config: Any, capabilities: Iterable[int]) -> None:
    """Build for these compute capabilities instead of the local GPU."""
    offered = named_capabilities(trt)
    chosen = [offered[capability] for capability in capabilities]
    config.num_compute_capabilities = len(chosen)
    for index, capability in enumerate(chosen):
        config.set_compute_capability(capability, index)


def embed_plugins(trt: Any, config: Any, library: str) -> None:
    """Store a plugin library in the engine."""
    if not named_capabilities(trt):
        # TensorRT documents this for version-compatible engines only; TensorRT-RTX supports any.
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    config.plugins_to_serialize = [library]


def set_memory_pools(trt: Any, config: Any, pools: Mapping[str, int]) -> None:
    """Limit the size of each memory pool, in bytes."""
    for name, size in pools.items():
        config.set_memory_pool_limit(getattr(trt.MemoryPoolType, name), size)


def set_timing_cache(config: Any, content: bytes) -> None:
    """Use a timing cache, which may be empty.

    Raises:
        NmnExportError: It is invalid, or from another version of TensorRT or another GPU.
    """
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, False):
        raise NmnExportError(
            "The timing cache must be from this version of TensorRT and this GPU",
            got=f"{len(content)} bytes that are not",
            fix="Specify a file that does not exist; it is created.",
        )


def dtype_name(dtype: Any) -> str:
    """Return NumPy's name of a TensorRT dtype."""
    name: str = dtype.name
    return _DTYPES.get(name, name.lower())


def inspect_engine(trt: Any, logger: Any, plan: Any, host_code: bool) -> list[tuple[str, str]]:
    """Return name and type of an engine's layers; an empty list if it does not load on this GPU.

    The type is empty unless the engine was built with detailed profiling verbosity.
    """
    runtime = trt.Runtime(logger)
    if host_code:
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        return []
    inspector = engine.create_engine_inspector()
    information = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    layers = information.get("Layers", [])
    return [(x, "") if isinstance(x, str) else (x["Name"], x.get("LayerType", "")) for x in layers]
