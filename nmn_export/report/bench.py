"""Files against each other: the same inputs, outputs compared, then timed in turn in one run."""

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
"""Share of the GPU's time that enqueuing takes, from which on the GPU waits for the host."""


@dataclass(frozen=True)
class BenchRequest:
    """What to time.

    Attributes:
        files: ONNX files and engines; the first is what the others are measured by.
        inputs: Arrays by name; drawn if `None`, in the shapes that the first engine is tuned for,
            or else in those that the first file was exported with.
        provider: Where ONNX Runtime runs; if `None`, on the GPU if there is an engine among the
            files.
        rounds: Turns of each file.
        tolerance: The largest error of a file against the first, as `compare.error` defines it;
            infinite for files that are meant to differ. If `None`, the limit of the lowest
            precision that takes part.
        cuda_graph: Replay engines as CUDA graphs. ONNX Runtime launches kernels one by one.
        plugin_library: For engines with plugin layers.
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
    """What a file took.

    Attributes:
        ratio: Of its median to that of the first file: on a GPU, of the GPU's own time.
        gpu: Seconds of the GPU; `None` on a CPU, where times mean nothing without their ratio.
        host: Seconds from a call to the end of its work; `None` on a CPU.
        enqueue: Seconds of the host until a launch is enqueued; `None` on a CPU.
    """

    ratio: Ratio
    gpu: Percentiles | None = None
    host: Percentiles | None = None
    enqueue: Percentiles | None = None

    @property
    def launch_bound(self) -> bool:
        """Whether the GPU waits for the host, and so its time is the host's."""
        return (
            self.gpu is not None
            and self.enqueue is not None
            and self.enqueue.median >= _LAUNCH_BOUND * self.gpu.median
        )


@dataclass(frozen=True)
class BenchRow:
    """One file.

    Attributes:
        file: As it was named.
        runtime: What ran it.
        error: Largest error of its outputs against the first file's; `None` for that itself.
        times: What it took.
    """

    file: str
    runtime: str
    error: float | None
    times: Times


@dataclass(frozen=True)
class Benchmark:
    """The result.

    Attributes:
        device: `"cpu"` or `"cuda"`.
        inputs: Shape of each input, as 8x3x224x224, with its dtype.
        given: Whether they were given, and not drawn.
        tolerance: To which the outputs agree.
        rounds: Turns of each file.
        cuda_graph: Whether engines were replayed as CUDA graphs.
        date: When, as 2026-11-22.
        machine: On what.
        rows: The files, in the order in which they were named.
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
    """Time files in this process, whose sessions of ONNX Runtime share their threads from then on.

    Args:
        request: What to time.
        on_round: Called after each round, for a progress bar.

    Raises:
        NmnExportError: A file, the inputs or an option will not do.
        CheckError: The outputs disagree; nothing is timed.
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
            BenchRow(contestant.name, contestant.runner.name, found, taken)
            for contestant, found, taken in zip(contestants, errors, times, strict=True)
        ],
    )


def _open(request: BenchRequest, provider: Provider) -> list[Contestant]:
    """Open the files, engines first: they have the most to say against being run here."""
    order = sorted(request.files, key=lambda file: not is_engine(file))
    opened = {
        file: open_contestant(file, provider, request.cuda_graph, request.plugin_library)
        for file in order
    }
    return [opened[file] for file in request.files]


def _provider(request: BenchRequest) -> Provider:
    """Return where all of them run: ratios between a CPU and a GPU say nothing of the files."""
    engine = next((file for file in request.files if is_engine(file)), None)
    if request.provider == "cpu" and engine is not None:
        raise NmnExportError(
            "All files of a benchmark run on one processor",
            got=f"--provider cpu and the engine '{engine}'",
            fix="Say --provider cuda, or leave it out.",
        )
    if request.rounds < 1:
        raise NmnExportError(
            "A benchmark has at least one round", got=request.rounds, fix="Say --rounds 50."
        )
    if request.tolerance is not None and not request.tolerance >= 0:
        raise NmnExportError(
            "--tolerance is an error, 0 or more",
            got=request.tolerance,
            fix="Say 1e-5, for instance, or inf for files that are meant to differ.",
        )
    return request.provider or ("cpu" if engine is None else "cuda")


def _compare(
    contestants: Sequence[Contestant], inputs: Sequence[Arrays], tolerance: float | None
) -> tuple[list[float | None], float]:
    """Return the error of each against the first, and the tolerance that all are within."""
    outputs = []
    for contestant, arrays in zip(contestants, inputs, strict=True):
        check(contestant.inputs, arrays)
        outputs.append(contestant.runner.run(arrays))
    if tolerance is None:
        dtypes = {a.dtype.name for arrays in (*inputs, *outputs) for a in arrays.values()}
        tolerance = max(TOLERANCES.get(name, TOLERANCES["float32"]) for name in dtypes)
    errors = [_distance(found, outputs[0]) for found in outputs[1:]]
    for contestant, found in zip(contestants[1:], errors, strict=True):
        if not found <= tolerance:
            raise CheckError(
                f"Files must agree to {tolerance:.1e} before they are timed",
                got=f"an error of {found:.1e} in {contestant.name} against {contestants[0].name}",
                fix="Find the wrong one with `nmn-export check`, or say --tolerance.",
            )
    return [None, *errors], tolerance


def _distance(outputs: Arrays, expected: Arrays) -> float:
    """Return the largest error over the outputs, which are paired by their order."""
    if len(outputs) != len(expected):
        return math.inf
    pairs = zip(outputs.values(), expected.values(), strict=True)
    return max((error(found, wanted) for found, wanted in pairs), default=0.0)


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
    return [Times(ratio(found, seconds[0])) for found in seconds]


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
    found = list(take_turns(turns, lambda turn: turn(), rounds, on_round).values())
    gpu_seconds = [[turn.gpu for turn in mine] for mine in found]
    return [
        Times(
            ratio(seconds, gpu_seconds[0]),
            percentiles(seconds),
            percentiles([turn.host for turn in mine]),
            percentiles([turn.enqueue for turn in mine]),
        )
        for mine, seconds in zip(found, gpu_seconds, strict=True)
    ]
