"""The GPU benchmark within a budget: python -m benchmarks.gpu_run --budget SECONDS [--dry-run].

Checks every shape for correctness first, then times as many as fit. Every shape runs in a process
of its own, and its results are written to `gpu.jsonl` in the output folder before the next starts.
A shape that fails is recorded with its error. Exit code: 0, or 1 if an item failed, or 2 for an
error of the user.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import gpu
from benchmarks.gpu_items import Budget, run_item
from benchmarks.gpu_records import Records
from benchmarks.gpu_subjects import SHAPES, TINY_SHAPES

DTYPES = ("float16", "bfloat16", "float32")
KINDS = ("correctness", "timing")
FAULTS = ("wrong", "crash", "hang")


def break_kernel(fault: str) -> None:
    """Break the fused kernel's call, so that this script can be tested."""
    fused = gpu.Subject.fused

    def broken(self: gpu.Subject, x: torch.Tensor) -> torch.Tensor:
        if fault == "crash":
            os.abort()
        if fault == "hang":
            time.sleep(3600)
        return 2 * fused(self, x)

    gpu.Subject.fused = broken  # type: ignore[method-assign]


def work(kind: str, name: str, dtype: str, dry_run: bool, rounds: int) -> None:
    """Run one item in this process and print its result as a JSON line."""
    shape = next(s for s in (TINY_SHAPES if dry_run else SHAPES) if s.name == name)
    device = "cpu" if dry_run else "cuda"
    torch.manual_seed(0)
    result: dict[str, object] = {"shape": name, "dtype": dtype}
    if kind == "correctness":
        repeats = 1 if dry_run else 10
        gpu.check([shape], device, repeats)
        result |= {"agrees": True, "repeats": repeats}
    else:
        torch.backends.cudnn.benchmark = True
        seconds = gpu.measure(shape, getattr(torch, dtype), device, rounds, compiled=False)
        result |= {"seconds": gpu.summary(seconds), "target": shape.target}
    print(json.dumps(result))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=float, default=500, help="seconds of the whole run")
    parser.add_argument("--out", type=Path, default=os.environ.get("OUT"), help="default: $OUT")
    parser.add_argument("--limit", type=float, default=90, help="seconds of one item")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--only", choices=KINDS)
    parser.add_argument("--dry-run", action="store_true", help="small shapes on a CPU")
    parser.add_argument(
        "--inject-fault", nargs=2, metavar=("FAULT", "SHAPE"), help="self-test: break one shape"
    )
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    fault, broken = options.inject_fault or (None, None)
    if fault and fault not in FAULTS:
        parser.error(f"--inject-fault must be one of {', '.join(FAULTS)}; got {fault}")
    if options.worker:
        kind, name, dtype = options.worker
        if name == broken:
            break_kernel(fault)
        work(kind, name, dtype, options.dry_run, options.rounds)
        return 0
    if not options.dry_run and not torch.cuda.is_available():
        parser.error("no GPU was found; use --dry-run to try the script on a CPU")
    if not options.out:
        parser.error("no output folder was given; use --out FOLDER or set OUT")
    try:
        records = Records(Path(options.out) / "gpu.jsonl")
    except OSError as error:
        parser.error(f"the output folder must be writable; got {options.out}: {error.strerror}")
    budget, failed = Budget(options.budget), 0
    given = list(sys.argv[1:] if arguments is None else arguments)
    records.append("machine", **gpu.machine("cpu"), cuda=torch.cuda.is_available())
    for kind in [options.only] if options.only else KINDS:
        for shape in TINY_SHAPES if options.dry_run else SHAPES:
            # Correctness covers all dtypes of a shape in one process.
            for dtype in ("all",) if kind == "correctness" else DTYPES:
                item = f"{shape.name} {dtype}"
                if not budget.fits(kind):
                    records.append("skipped", of=kind, item=item, reason="budget")
                    continue
                worker = ["--worker", kind, shape.name, dtype]
                command = [sys.executable, "-m", "benchmarks.gpu_run", *given, *worker]
                done = run_item(records, budget, kind, item, command, options.limit)
                print(f"{'done' if done else 'FAILED':7}{kind} {item}", flush=True)
                failed += not done
    print(f"{failed} items failed; {records.file}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
