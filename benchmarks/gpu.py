"""The fused kernels on a GPU: python -m benchmarks.gpu [--dry-run] [--rounds N] [NAME …].

Needs PyTorch and Triton, no more. First every kernel is checked against float64 and repeated 100
times, bit by bit. Then, for each shape, five contestants are timed in turn in one run, as CUDA
graphs over buffers larger than twice the L2 cache, and their ratios to the linear layer printed
beside the targets and written to `benchmarks/results/`. `--dry-run` does it all on a CPU with small
shapes in Triton's interpreter; its times mean nothing and are not kept.

linear:   the layer of the same shape from cuBLAS or cuDNN, the price to aim at.
fused:    our kernel.
unfused:  the linear layer, and one hand-written pass over its output.
compiled: the eager layer under torch.compile.
eager:    the eager layer.
"""

import argparse
import datetime
import functools
import importlib.util
import json
import os
import random
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable, Sequence
from pathlib import Path

if "--dry-run" in sys.argv:
    os.environ["TRITON_INTERPRET"] = "1"
if importlib.util.find_spec("onnx") is None and "nmn_export" not in sys.modules:
    # The package's own imports want ONNX, which kernels do not: stand in for its __init__.
    sys.modules["nmn_export"] = types.ModuleType("nmn_export")
    sys.modules["nmn_export"].__path__ = [str(Path(__file__).parents[1] / "nmn_export")]

import torch
import triton
from torch import Tensor

from benchmarks.gpu_subjects import SHAPES, TINY_SHAPES, Shape, Subject, near

RESULTS = Path(__file__).parent / "results"


def check(shapes: Sequence[Shape], device: str, repeats: int) -> None:
    """Stop unless kernels give what float64 gives, and the same each time.

    A race between copies and products, which no interpreter shows, would show here.
    """
    for shape in shapes:
        for dtype in (torch.float16, torch.bfloat16, torch.float32):
            subject = Subject(shape, dtype, device)
            x = subject.draw()
            if not shape.size:  # inputs beside the weights, where the distance cancels
                x[0] = subject.weight[0] * 1.01
            y = subject.fused(x)
            if not near(subject, x, y, subject.exact(x)):
                sys.exit(f"error: {shape.name} in {dtype} is wrong")
            if not all(torch.equal(y, subject.fused(x)) for _ in range(repeats)):
                sys.exit(f"error: {shape.name} in {dtype} does not repeat: there is a race")


def replayed(calls: Sequence[Callable[[], Tensor]], count: int) -> Callable[[], float]:
    """Return what makes `count` calls, in rotation, and returns the seconds of one."""
    if not torch.cuda.is_available():

        def timed_on_cpu() -> float:
            start = time.perf_counter()
            calls[0]()
            return time.perf_counter() - start

        return timed_on_cpu

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            calls[0]()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    outputs: list[Tensor | None] = [None] * len(calls)
    with torch.cuda.graph(graph, stream=stream):
        for i in range(count):
            outputs[i % len(calls)] = calls[i % len(calls)]()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def timed() -> float:
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / count

    return timed


def measure(
    shape: Shape, dtype: torch.dtype, device: str, rounds: int, compiled: bool
) -> dict[str, list[float]]:
    """Time all contestants in turn, in an order drawn anew each round, after half a second.

    Inputs, weights and outputs rotate, so many that the cache has none of them when it is its turn.
    """
    torch.compiler.reset()
    calls, copies, warmup = 20, 1, 0.0
    subjects = [Subject(shape, dtype, device)]
    if device == "cuda":
        cache = torch.cuda.get_device_properties(0).L2_cache_size
        copies, warmup = min(calls, 1 + 2 * cache // subjects[0].bytes), 0.5
        subjects += [Subject(shape, dtype, device) for _ in range(copies - 1)]
    work: dict[str, list[Callable[[], Tensor]]] = {}
    for subject, x in [(subject, subject.draw()) for subject in subjects]:
        for name, call in subject.contestants(compiled).items():
            work.setdefault(name, []).append(functools.partial(call, x))
    runs = {name: replayed(found, calls) for name, found in work.items()}
    until = time.perf_counter() + warmup
    while time.perf_counter() < until:
        for run in runs.values():
            run()
    order, shuffle = list(runs), random.Random(0).shuffle
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            seconds[name].append(runs[name]())
    return seconds


def summary(seconds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Return median, p20 and p80, and the ratio to linear with a 95 % interval by bootstrap."""
    draw, linear = random.Random(0), seconds["linear"]
    rows = {}
    for name, found in seconds.items():
        ratios = sorted(
            statistics.median(draw.choices(found, k=len(found)))
            / statistics.median(draw.choices(linear, k=len(linear)))
            for _ in range(400)
        )
        fifths = statistics.quantiles(found, n=5)
        median = statistics.median(found)
        rows[name] = {
            "median": median,
            "p20": fifths[0],
            "p80": fifths[-1],
            "ratio": median / statistics.median(linear),
            "ratio_low": ratios[10],
            "ratio_high": ratios[-11],
        }
    return rows


def table(results: dict[str, dict[str, dict[str, float]]], targets: dict[str, float]) -> str:
    """Render the medians of linear and fused and everyone's ratio to linear."""
    names = ("fused", "unfused", "compiled", "eager")
    head = f"{'shape':32}{'linear µs':>11}{'fused µs':>11}" + "".join(f"{n:>10}" for n in names)
    lines = [head + f"{'target':>9}  95 % of fused"]
    for shape, rows in results.items():
        times = "".join(f"{rows[n]['median'] * 1e6:11.1f}" for n in ("linear", "fused"))
        ratios = "".join(f"{rows[n]['ratio']:9.2f}×" if n in rows else f"{'-':>10}" for n in names)
        spread = f"{rows['fused']['ratio_low']:.3f} to {rows['fused']['ratio_high']:.3f}"
        lines.append(f"{shape:32}{times}{ratios}{targets[shape]:8.2f}×  {spread}")
    return "\n".join(lines)


def machine(device: str) -> dict[str, object]:
    """Return what it was measured on, and how fast that copies and multiplies."""
    about: dict[str, object] = {"torch": torch.__version__, "triton": triton.__version__}
    if device != "cuda":
        return about
    about |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda, "now": clocks()}
    x = torch.randn(8192, 8192, device=device, dtype=torch.float16)
    big = torch.empty(2**30, device=device, dtype=torch.uint8)
    for name, call, work in (
        ("copy TB/s", big.clone, 2 * big.numel()),
        ("cuBLAS 8192³ TFLOP/s", lambda: x @ x, 2 * 8192**3),
    ):
        timed = replayed([call], 10)
        about[name] = work / statistics.median(timed() for _ in range(20)) / 1e12
    return about


def clocks() -> str:
    """Return SM clock, power and temperature as nvidia-smi gives them."""
    query = "--query-gpu=driver_version,clocks.sm,power.draw,temperature.gpu"
    command = ["nvidia-smi", query, "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="substrings of the shapes to time; all if none")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--dtype", default="float16", choices=("float16", "bfloat16", "float32"))
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--dry-run", action="store_true", help="small shapes on a CPU, not kept")
    options = parser.parse_args(arguments)
    device = "cpu" if options.dry_run else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        print(
            "error: no GPU is to be seen. Use --dry-run to try the table on a CPU.", file=sys.stderr
        )
        sys.exit(2)
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    checked = TINY_SHAPES if options.dry_run else (
        Shape(512, 768, 3072), Shape(17408, 256, 384), Shape(48, 4096, 512), Shape(5, 100, 33),
        Shape(8, 128, 256, 28, 2), Shape(2, 3, 64, 32), Shape(4, 256, 256, 14),
    )  # fmt: skip
    check(checked, device, repeats=1 if options.dry_run else 100)
    print("every kernel agrees with float64 and repeats bit by bit")
    about, results, at = machine(device), {}, {}
    shapes = TINY_SHAPES if options.dry_run else SHAPES
    shapes = [s for s in shapes if not options.names or any(n in s.name for n in options.names)]
    for shape in shapes:
        compiled = device == "cuda" and not options.no_compile
        dtype = getattr(torch, options.dtype)
        seconds = measure(shape, dtype, device, options.rounds, compiled)
        results[shape.name] = summary(seconds)
        at[shape.name] = clocks() if device == "cuda" else ""
    print(table(results, {s.name: s.target for s in shapes}))
    if not options.dry_run:
        date = datetime.datetime.now(datetime.UTC).date().isoformat()
        gpu = str(about["gpu"]).lower().replace(" ", "-")
        RESULTS.mkdir(exist_ok=True)
        file = RESULTS / f"{date}-{gpu}-{options.dtype}.json"
        kept = {"date": date, "machine": about, "clocks": at, "seconds": results}
        file.write_text(json.dumps(kept, indent=2) + "\n")
        print(f"wrote {file}")


if __name__ == "__main__":
    main()
