"""Benchmark of files: compare their outputs on the same inputs, then time them alternately."""

import datetime
import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nmn_export.errors import CheckError, NmnExportError
from nmn_export.report.compare import TOLERANCES, error
from nmn_export.report.contestant import (
    Contestant,
    check_alike,
    in_precision_of_all,
    open_contestant,
)
from nmn_export.report.gpu_timing import WARMUP, Percentiles, percentiles, take_turn
from nmn_export.report.machine import gpu, machine
from nmn_export.report.timing import Ratio, ratio, sample, take_turns
from nmn_export.runtime.arrays import Arrays, to_torch
from nmn_export.runtime.inputs import check, draw
from nmn_export.runtime.onnx_runtime import Provider
from nmn_export.runtime.tensorrt import is_engine

SEED = 0

_LAUNCH_BOUND = 0.9
"""Ratio of enqueue time to GPU time above which a file counts as launch-bound."""


@dataclass(frozen=True)
class BenchRequest:
    """What to measure.

    Attributes:
        files: ONNX files and engines. The first is the baseline.
        inputs: Arrays by name. `None` draws random inputs with the opt shapes of the first engine,
            or without an engine with the shapes that the first file was exported with.
        provider: ONNX Runtime's provider; `None` is the GPU if there is an engine, else the CPU.
        rounds: Number of measurements per file.
        tolerance: The largest allowed error relative to the first file, see `compare.error`;
            infinite for files that differ on purpose. `None` is the limit of the lowest precision
            among the files.
        cuda_graph: Replay engines as CUDA graphs. ONNX Runtime launches kernels one by one.
        plugin_library: Plugin library for engines with plugin layers.
    """

    files: tuple[Path, ...]
    inputs: Arrays | None = None
    provider: Provider | None = None
    rounds: int = 50
    tolerance: float | None = None
    cuda_graph: bool = True
    plugin_library: Path | None = None


@dataclass(frozen=True)
class Times:
    """The times of a file.

    Attributes:
        ratio: Its median time divided by that of the first file; on a GPU, of the GPU time.
        gpu: GPU time in seconds; `None` on a CPU, where only ratios are reported.
        host: Seconds from a call until its work is complete; `None` on a CPU.
        enqueue: Seconds that the host needs to enqueue a launch; `None` on a CPU.
    """

    ratio: Ratio
    gpu: Percentiles | None = None
    host: Percentiles | None = None
    enqueue: Percentiles | None = None

    @property
    def launch_bound(self) -> bool:
        """Whether the GPU waits for the host, so that the host limits the GPU time."""
        return (
            self.gpu is not None
            and self.enqueue is not None
            and self.enqueue.median >= _LAUNCH_BOUND * self.gpu.median
        )


@dataclass(frozen=True)
class BenchRow:
    """The result of one file.

    Attributes:
        file: The path as it was given.
        runtime: Name of the runtime.
        error: Largest error of its outputs relative to the first file; `None` for the first.
        times: Its times.
    """

    file: str
    runtime: str
    error: float | None
    times: Times


@dataclass(frozen=True)
class Benchmark:
    """The result of a benchmark.

    Attributes:
        device: `"cpu"` or `"cuda"`.
        inputs: Shape of each input, as 8x3x224x224, with its dtype.
        given: Whether the inputs were given, not drawn.
        tolerance: Tolerance to which the outputs agree.
        rounds: Number of measurements per file.
        cuda_graph: Whether engines were replayed as CUDA graphs.
        date: Date in UTC, as in 2026-11-22.
        machine: Description of the machine.
        rows: The results of the files, in the given order.
    """

    device: str
    inputs: dict[str, str]
    given: bool
    tolerance: float
    rounds: int
    cuda_graph: bool
    date: str
    machine: dict[str, object]
    rows: list[BenchRow]


def measure(request: BenchRequest, on_round: Callable[[], object] = lambda: None) -> Benchmark:
    """Time files in this process. All its ONNX Runtime sessions share one thread pool afterwards.

    Args:
        request: What to measure.
        on_round: Called after each round, for a progress bar.

    Raises:
        NmnExportError: A file, the inputs or an option is invalid.
        CheckError: The outputs disagree. Nothing is timed.
    """
    provider = _provider(request)
    contestants = _open(request, provider)
    check_alike(contestants)
    typical = next((c for c in contestants if is_engine(Path(c.name))), contestants[0])
    arrays = request.inputs if request.inputs is not None else draw(typical.inputs, SEED)
    if set(arrays) != {value.name for value in typical.inputs}:
        check(typical.inputs, arrays)
    inputs = in_precision_of_all(arrays, contestants)
    errors, tolerance = _compare(contestants, inputs, request.tolerance)
    time_all = _time_on_gpu if provider == "cuda" else _time_on_cpu
    times = time_all(contestants, inputs, request.rounds, on_round)
    return Benchmark(
        device=provider,
        inputs={
            name: f"{'x'.join(map(str, a.shape)) or 'scalar'} {a.dtype}"
            for name, a in inputs[0].items()
        },
        given=request.inputs is not None,
        tolerance=tolerance,
        rounds=request.rounds,
        cuda_graph=request.cuda_graph and provider == "cuda",
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        machine=machine() | (gpu() if provider == "cuda" else {}),
        rows=[
            BenchRow(contestant.name, contestant.runner.name, deviation, measured)
            for contestant, deviation, measured in zip(contestants, errors, times, strict=True)
        ],
    )


def _open(request: BenchRequest, provider: Provider) -> list[Contestant]:
    """Open the files, engines first, because they are most likely not to run here."""
    order = sorted(request.files, key=lambda file: not is_engine(file))
    opened = {
        file: open_contestant(file, provider, request.cuda_graph, request.plugin_library)
        for file in order
    }
    return [opened[file] for file in request.files]


def _provider(request: BenchRequest) -> Provider:
    """Return the provider for all files. Comparing a CPU with a GPU would be meaningless."""
    engine = next((file for file in request.files if is_engine(file)), None)
    if request.provider == "cpu" and engine is not None:
        raise NmnExportError(
            "All files of a benchmark must run on the same processor",
            got=f"--provider cpu and the engine '{engine}'",
            fix="Use --provider cuda, or remove it.",
        )
    if request.rounds < 1:
        raise NmnExportError(
            "A benchmark needs at least one round", got=request.rounds, fix="Use --rounds 50."
        )
    if request.tolerance is not None and not request.tolerance >= 0:
        raise NmnExportError(
            "--tolerance must be 0 or more",
            got=request.tolerance,
            fix="Use, for example, 1e-5, or inf for files that differ on purpose.",
        )
    return request.provider or ("cpu" if engine is None else "cuda")


def _compare(
    contestants: Sequence[Contestant], inputs: Sequence[Arrays], tolerance: float | None
) -> tuple[list[float | None], float]:
    """Return the error of each relative to the first, and the tolerance, which none exceeds."""
    outputs = []
    for contestant, arrays in zip(contestants, inputs, strict=True):
        check(contestant.inputs, arrays)
        outputs.append(contestant.runner.run(arrays))
    if tolerance is None:
        dtypes = {a.dtype.name for arrays in (*inputs, *outputs) for a in arrays.values()}
        tolerance = max(TOLERANCES.get(name, TOLERANCES["float32"]) for name in dtypes)
    errors = [_distance(arrays, outputs[0]) for arrays in outputs[1:]]
    for contestant, deviation in zip(contestants[1:], errors, strict=True):
        if not deviation <= tolerance:
            raise CheckError(
                f"Files must agree to {tolerance:.1e} before they are timed",
                got=f"an error of {deviation:.1e} in {contestant.name} "
                f"against {contestants[0].name}",
                fix="Find the wrong one with `nmn-export check`, or set --tolerance.",
            )
    return [None, *errors], tolerance


def _distance(outputs: Arrays, expected: Arrays) -> float:
    """Return the largest error of all outputs, which are matched by order."""
    if len(outputs) != len(expected):
        return math.inf
    pairs = zip(outputs.values(), expected.values(), strict=True)
    return max((error(actual, reference) for actual, reference in pairs), default=0.0)


def _time_on_cpu(
    contestants: Sequence[Contestant],
    inputs: Sequence[Arrays],
    rounds: int,
    on_round: Callable[[], object],
) -> list[Times]:
    calls = {
        str(i): contestant.launcher({name: to_torch(array) for name, array in arrays.items()})
        for i, (contestant, arrays) in enumerate(zip(contestants, inputs, strict=True))
    }
    seconds = list(sample(calls, rounds, on_round=on_round).values())
    return [Times(ratio(samples, seconds[0])) for samples in seconds]


def _time_on_gpu(
    contestants: Sequence[Contestant],
    inputs: Sequence[Arrays],
    rounds: int,
    on_round: Callable[[], object],
) -> list[Times]:
    turns = {}
    for i, (contestant, arrays) in enumerate(zip(contestants, inputs, strict=True)):
        tensors = {name: to_torch(array).cuda() for name, array in arrays.items()}
        launch = contestant.launcher(tensors)
        turns[str(i)] = functools.partial(take_turn, launch, contestant.stream)
    until = time.perf_counter() + WARMUP
    while time.perf_counter() < until:
        for turn in turns.values():
            turn()
    measured = list(take_turns(turns, lambda turn: turn(), rounds, on_round).values())
    gpu_seconds = [[turn.gpu for turn in mine] for mine in measured]
    return [
        Times(
            ratio(seconds, gpu_seconds[0]),
            percentiles(seconds),
            percentiles([turn.host for turn in mine]),
            percentiles([turn.enqueue for turn in mine]),
        )
        for mine, seconds in zip(measured, gpu_seconds, strict=True)
    ]
