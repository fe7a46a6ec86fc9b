"""What the process that builds an engine is asked, and what it tells."""

from dataclasses import dataclass, field

MODEL, ENGINE, TIMING_CACHE, STDERR = "model.onnx", "engine", "timing.cache", "stderr"
"""Files in the folder that both processes share."""

LIBRARIES = "libraries"
"""Folder in it in which the dynamic linker looks for TensorRT's libraries first."""


@dataclass(frozen=True)
class BuildRequest:
    """What to build. The model lies in the shared folder, and the engine is put there.

    Attributes:
        profile: The shapes of each input: min, opt and max.
        plugin_library: Path of the library to load, or `None` for none.
        plugins: Name, version and namespace of each that it must have.
        embed_plugin: Put the library into the engine.
        compute_capabilities: Those to build for, 89 for 8.9; none for that of the GPU at hand.
        tf32: Let float32 products be made in TF32.
        timing_cache: Whether to write one; what is in the shared folder is read first.
        optimization_level: 0 to 5, or `None` for TensorRT's default.
        memory_pools: Bytes by TensorRT's name of the pool.
        profiling_verbosity: TensorRT's name of how much of its layers an engine tells.
        verbosity: The least severity of TensorRT's messages that are passed on, ERROR at least.
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
        version: Of TensorRT.
        compute_capabilities: Those it builds for by name, 89 for 8.9; empty if it builds for the
            GPU at hand only.
        gpu: Compute capability of the first GPU, or `None`.
    """

    version: str
    compute_capabilities: list[int]
    gpu: int | None


@dataclass(frozen=True)
class Layer:
    """One layer, as TensorRT names it and its type."""

    name: str
    type: str


@dataclass(frozen=True)
class TensorInfo:
    """An input or output: its dtype in NumPy's words; its shape, with -1 for what varies."""

    name: str
    dtype: str
    shape: list[int]


@dataclass(frozen=True)
class Network:
    """What TensorRT's parser made of the model."""

    layers: list[Layer]
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]


@dataclass(frozen=True)
class Step:
    """How far a phase of the build has come; it has ended when `done` is `total`.

    Attributes:
        phase: Its name.
        parent: The phase of which it is a part, or `None`.
        done: Steps made.
        total: Steps to make.
    """

    phase: str
    parent: str | None
    done: int
    total: int


@dataclass(frozen=True)
class Message:
    """What TensorRT says of itself: severity, in capitals, and text."""

    severity: str
    text: str


@dataclass(frozen=True)
class Done:
    """The engine lies in the shared folder."""


@dataclass(frozen=True)
class Inspected:
    """What an engine inspector lists, or `None` where the engine does not load."""

    layers: list[Layer] | None


@dataclass(frozen=True)
class Failed:
    """It cannot be built: the parts of an `NmnExportError`."""

    rule: str
    got: str
    fix: str


Report = Ready | Network | Step | Message | Done | Inspected | Failed
