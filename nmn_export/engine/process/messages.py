"""The messages between the builder process and its parent."""

from dataclasses import dataclass, field

MODEL, ENGINE, TIMING_CACHE, STDERR = "model.onnx", "engine", "timing.cache", "stderr"
"""Files in the shared folder."""

LIBRARIES = "libraries"
"""Subfolder that the dynamic linker searches for TensorRT's libraries first."""


@dataclass(frozen=True)
class BuildRequest:
    """What to build. The model is read from the shared folder, and the engine is written to it.

    Attributes:
        profile: The min, opt and max shape of each input.
        plugin_library: Path of the plugin library to load, or `None`.
        plugins: Name, version and namespace of each plugin that the library must have.
        embed_plugin: Store the library in the engine.
        compute_capabilities: Capabilities to build for, 89 for 8.9; empty for the local GPU.
        tf32: Allow TF32 for float32 products.
        timing_cache: Whether to write a timing cache. One in the shared folder is read first.
        optimization_level: 0 to 5, or `None` for TensorRT's default.
        memory_pools: Limits in bytes, by TensorRT's name of the pool.
        profiling_verbosity: TensorRT's name of the profiling verbosity.
        verbosity: The least severe TensorRT messages that are passed on, at least ERROR.
    """

    profile: dict[str, list[list[int]]]
    plugin_library: str | None = None
    plugins: list[list[str]] = field(default_factory=list)
    embed_plugin: bool = False
    compute_capabilities: list[int] = field(default_factory=list)
    tf32: bool = False
    timing_cache: bool = False
    optimization_level: int | None = None
    memory_pools: dict[str, int] = field(default_factory=dict)
    profiling_verbosity: str = "LAYER_NAMES_ONLY"
    verbosity: str = "ERROR"


@dataclass(frozen=True)
class Ready:
    """TensorRT is loaded.

    Attributes:
        version: TensorRT's version.
        compute_capabilities: Capabilities that can be requested, 89 for 8.9; empty if it builds for
            the local GPU only.
        gpu: Compute capability of the first GPU, or `None`.
    """

    version: str
    compute_capabilities: list[int]
    gpu: int | None


@dataclass(frozen=True)
class Layer:
    """The name and type of a layer, as TensorRT reports them."""

    name: str
    type: str


@dataclass(frozen=True)
class TensorInfo:
    """An input or output. `dtype` is NumPy's name; a dynamic axis has size -1."""

    name: str
    dtype: str
    shape: list[int]


@dataclass(frozen=True)
class Network:
    """The network that TensorRT's parser created from the model."""

    layers: list[Layer]
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]


@dataclass(frozen=True)
class Step:
    """Progress of a phase of the build, which has ended when `done` equals `total`.

    Attributes:
        phase: Name of the phase.
        parent: Name of the enclosing phase, or `None`.
        done: Number of completed steps.
        total: Number of steps.
    """

    phase: str
    parent: str | None
    done: int
    total: int


@dataclass(frozen=True)
class Message:
    """A log message of TensorRT. `severity` is in capitals."""

    severity: str
    text: str


@dataclass(frozen=True)
class Done:
    """The engine is complete in the shared folder."""


@dataclass(frozen=True)
class Inspected:
    """The layers that the engine inspector lists, or `None` if the engine does not load."""

    layers: list[Layer] | None


@dataclass(frozen=True)
class Failed:
    """The build failed: the parts of an `NmnExportError`."""

    rule: str
    got: str
    fix: str


Report = Ready | Network | Step | Message | Done | Inspected | Failed
