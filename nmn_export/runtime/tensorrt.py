"""TensorRT: run an engine on a GPU, with PyTorch tensors as inputs and outputs."""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nmn_export.engine.record import is_engine as is_engine  # noqa: PLC0414 - re-exported
from nmn_export.errors import NmnExportError
from nmn_export.graph.file import METADATA_PREFIX
from nmn_export.runtime.arrays import Arrays, to_numpy, to_torch
from nmn_export.runtime.bindings import Bindings
from nmn_export.runtime.engine_file import OpenEngine, open_engine
from nmn_export.runtime.inputs import Input, check

_GRAPHS = 8
"""Maximum number of cached CUDA graphs; each has an execution context with its own memory."""


class TensorRtRunner:
    """Runs an engine in the version of TensorRT that built it.

    An engine contains code: run engines from trusted sources only. A runner is not thread-safe.

    Args:
        path: A file written by `nmn-export build`, with its JSON record in the same folder.
        cuda_graph: Capture a CUDA graph for each set of input shapes, and replay it. The host then
            launches once per run instead of once per kernel.
        plugin_library: Library of the plugin layers; see `find_plugin_library` if `None`.
        device: Number of the GPU.

    Attributes:
        name: The package that runs the engine, `tensorrt` or `tensorrt_rtx`.
        record: The record of the engine, or `None` without a JSON record.
        stream: The CUDA stream that the engine runs on.

    Raises:
        NmnExportError: The engine does not run on this machine; see `open_engine`.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        cuda_graph: bool = False,
        plugin_library: Path | None = None,
        device: int = 0,
    ) -> None:
        self._open = open_engine(Path(path), plugin_library, device)
        self.name = str(self._open.trt.__name__)
        self.record = self._open.record
        self.device = torch.device("cuda", device)
        self.stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        self._bindings = Bindings(self._open.engine)
        self._cuda_graph = cuda_graph
        self._contexts: dict[int, Any] = {}
        self._launches: OrderedDict[object, Launch] = OrderedDict()

    @property
    def origin(self) -> dict[str, str]:
        """Export metadata of the ONNX file that the engine was built from, if known."""
        metadata = {} if self.record is None else self.record.model_metadata
        return {key.removeprefix(METADATA_PREFIX): value for key, value in metadata.items()}

    @property
    def inputs(self) -> list[Input]:
        """The inputs of the engine. A dynamic axis is named by its bounds."""
        return self._bindings.describe_inputs()

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs by name.

        Raises:
            NmnExportError: The inputs do not match the engine.
        """
        check(self.inputs, inputs)
        tensors = {name: to_torch(array).to(self.device) for name, array in inputs.items()}
        return {name: to_numpy(tensor) for name, tensor in self.infer(tensors).items()}

    def infer(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the outputs by name, on the GPU, without copies to the host.

        The run is ordered with the caller's current stream: it waits for earlier work on that
        stream, and later work waits for it. The caller owns the outputs.

        Args:
            tensors: The inputs by name, on the runner's GPU.

        Raises:
            NmnExportError: They do not match the engine.
        """
        profile, inputs = self._bindings.fit(tensors, self.device)
        caller = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(caller)
        with torch.cuda.device(self.device), torch.cuda.stream(self.stream):
            outputs = (
                self._replay(profile, inputs) if self._cuda_graph else self._once(profile, inputs)
            )
        caller.wait_stream(self.stream)
        # Keeps the allocator from reusing the memory before both streams are done with it.
        for tensor in inputs.values():
            tensor.record_stream(self.stream)
        for tensor in outputs.values():
            tensor.record_stream(caller)
        return outputs

    def launcher(self, tensors: Mapping[str, Tensor]) -> "Launch":
        """Return a callable that runs the engine on the same inputs, in place.

        Args:
            tensors: Inputs as for `infer`.
        """
        profile, inputs = self._bindings.fit(tensors, self.device)
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.device(self.device), torch.cuda.stream(self.stream):
            launch = self._bound(self._new_context(profile, eager=True), inputs)
            if self._cuda_graph:
                launch.capture()
        return launch

    def _once(self, profile: int, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        if profile not in self._contexts:
            self._contexts[profile] = self._new_context(profile, eager=False)
        launch = self._bound(self._contexts[profile], inputs)
        launch()
        return launch.outputs

    def _replay(self, profile: int, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        key = (profile, *(tuple(tensor.shape) for tensor in inputs.values()))
        if key not in self._launches:
            if len(self._launches) == _GRAPHS:
                self.stream.synchronize()  # the oldest may still be running
                self._launches.popitem(last=False)
            copies = {name: tensor.clone() for name, tensor in inputs.items()}
            launch = self._bound(self._new_context(profile, eager=True), copies)
            launch.capture()
            self._launches[key] = launch
        self._launches.move_to_end(key)
        launch = self._launches[key]
        for name, tensor in inputs.items():
            launch.inputs[name].copy_(tensor)
        launch()
        return {name: tensor.clone() for name, tensor in launch.outputs.items()}

    def _bound(self, context: Any, inputs: dict[str, Tensor]) -> "Launch":
        outputs = self._bindings.bind(context, inputs)
        return Launch(self._open, context, inputs, outputs, self.stream)

    def _new_context(self, profile: int, eager: bool) -> Any:
        """Return an execution context.

        Args:
            profile: Number of its optimisation profile.
            eager: Compile the kernels for a shape before its first run, not in the background of
                the first runs. Affects `tensorrt_rtx` only, which compiles at run time.
        """
        trt, engine = self._open.trt, self._open.engine
        strategies = getattr(trt, "DynamicShapesKernelSpecializationStrategy", None)
        if eager and strategies is not None:
            config = engine.create_runtime_config()
            config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
            context = engine.create_execution_context(config)
        else:
            context = engine.create_execution_context()
        if context is None:
            raise _failed("create an execution context", self._open)
        if profile and not context.set_optimization_profile_async(profile, self.stream.cuda_stream):
            raise _failed(f"switch to optimisation profile {profile}", self._open)
        return context


class Launch:
    """A run with fixed tensors. Each call enqueues it.

    Its stream must be the current stream during a call.

    Attributes:
        inputs: The tensors that are read.
        outputs: The tensors that are written.
        stream: The stream of the run.
    """

    def __init__(
        self,
        opened: OpenEngine,
        context: Any,
        inputs: dict[str, Tensor],
        outputs: dict[str, Tensor],
        stream: Any,
    ) -> None:
        self.inputs, self.outputs, self.stream = inputs, outputs, stream
        self._open, self._context = opened, context
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        """Enqueue a run.

        Raises:
            NmnExportError: TensorRT fails to enqueue it.
        """
        if self._graph is not None:
            self._graph.replay()
        elif not self._context.execute_async_v3(self.stream.cuda_stream):
            raise _failed("run the engine", self._open)

    def capture(self) -> None:
        """Capture a CUDA graph, which later calls replay.

        The context must not be used for anything else afterwards.

        Raises:
            NmnExportError: The engine cannot be captured.
        """
        # TensorRT defers some work to the first run of a shape, which cannot be captured.
        self()
        self.stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                self()
        except (NmnExportError, RuntimeError) as error:
            raise NmnExportError(
                "An engine can be captured as a CUDA graph only if every run is the same",
                got=error.got if isinstance(error, NmnExportError) else str(error).splitlines()[0],
                fix="Run it without a CUDA graph.",
            ) from error
        self._graph = graph


def _failed(action: str, opened: OpenEngine) -> NmnExportError:
    return NmnExportError(
        f"{opened.trt.__name__} must be able to {action}",
        got=opened.log.take(),
        fix="If GPU memory is low, use smaller inputs or end other programs on the GPU.",
    )
