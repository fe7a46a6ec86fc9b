"""The worker process of a GPU run: reads items from standard input, answers in JSON lines.

Its first line describes the device; `gpu` is null if there is none. Then it answers every item with
{"record": …} for each result, and {"done": true} or {"failed": reason, "text": …} at the end. The
last one says in `usable` whether the worker takes another item.
"""

import argparse
import gc
import itertools
import json
import os
import sys
import time
import traceback
import types
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TextIO

if "--dry-run" in sys.argv:
    os.environ["TRITON_INTERPRET"] = "1"
if "nmn_export" not in sys.modules:
    # The kernels need no ONNX, but the package's __init__ imports it. Replace the __init__.
    sys.modules["nmn_export"] = types.ModuleType("nmn_export")
    sys.modules["nmn_export"].__path__ = [str(Path(__file__).parents[1] / "nmn_export")]

import torch
import triton
from torch import Tensor
from triton.runtime.errors import OutOfResources

from benchmarks.gpu_queue import Candidate, Item
from benchmarks.gpu_shapes import Shape
from benchmarks.gpu_subjects import Choice, Subject, check
from benchmarks.gpu_timing import (
    Summary,
    buffer_copies,
    clocks,
    measured_rates,
    summarize,
    time_in_turn,
)

CONTESTANTS = ("linear", "fused", "unfused", "eager")

REPETITIONS = {"correctness": 10, "repeat": 90}
"""Repetitions that must be equal bit by bit."""

Contestants = dict[str, Callable[[Subject, Tensor], Tensor]]


class Bench:
    """Executes items on one device.

    Args:
        device: "cpu" or "cuda".
        rounds: Rounds of `time_in_turn`.
    """

    def __init__(self, device: str, rounds: int) -> None:
        self.device, self.rounds = device, rounds

    def execute(self, item: Item) -> Iterator[dict[str, Any]]:
        """Yield the results of an item."""
        torch.manual_seed(0)
        if item.kind == "machine":
            yield self.machine()
            return
        assert item.shape
        about = {"shape": item.shape.name, "mode": item.mode}
        if item.kind in REPETITIONS:
            repetitions = 1 if self.device == "cpu" else REPETITIONS[item.kind]
            check(item.shape, item.mode, self.device, repetitions)
            yield about | {"agrees": True, "repetitions": repetitions}
        elif item.kind == "tiles":
            yield about | self.tile(item.shape, item.mode, item.candidate)
        else:
            names: tuple[str, ...] = CONTESTANTS
            if item.kind == "compile":
                names = ("linear", "fused", "compiled")
                torch.compiler.reset()
            if item.mode.startswith("float32"):
                names += ("linear_tf32",)
            yield about | self.timing(item.shape, item.mode, names)

    def is_usable(self) -> bool:
        """Release unused memory; return whether the CUDA context still works.

        After an illegal memory access every call fails until the process ends.
        """
        try:
            if self.device == "cuda":
                torch.cuda.synchronize()
                torch.cuda.empty_cache()
        except RuntimeError:
            return False
        return True

    def machine(self) -> dict[str, Any]:
        """Return how fast the GPU copies and multiplies."""
        return {"clocks": clocks()} | (measured_rates() if self.device == "cuda" else {})

    def timing(self, shape: Shape, mode: str, names: tuple[str, ...]) -> dict[str, Any]:
        """Return the times of contestants, after a check of the fused kernel's output."""
        subject = Subject(shape, mode, self.device)
        subject.assert_close_to_unfused()
        seconds = self.measure(subject, {name: getattr(Subject, name) for name in names})
        moved = {"bytes": subject.bytes, "flops": shape.flops, "target": shape.target}
        return {"seconds": seconds, "clocks": clocks()} | moved

    def tile(self, shape: Shape, mode: str, candidate: Candidate | None) -> dict[str, Any]:
        """Return the time of one tile, after a check of its output, or that it does not fit."""
        subject = Subject(shape, mode, self.device)
        choice = subject.choice_of(candidate) if candidate else subject.planned()
        name = candidate.name if candidate else "plan"
        about = {"tile": name, "choice": asdict(choice)}
        try:
            subject.assert_close_to_unfused(choice)
        except OutOfResources as error:
            return about | {"does_not_fit": str(error)}
        fused = partial(Subject.fused, choice=choice)
        seconds = self.measure(subject, {"linear": Subject.linear, "fused": fused})
        return about | {"seconds": seconds}

    def measure(self, subject: Subject, contestants: Contestants) -> Summary:
        """Time contestants on inputs and weights that rotate; `subject` is the first of them."""
        copies = buffer_copies(subject.bytes) - 1
        more = [Subject(subject.shape, subject.mode, self.device) for _ in range(copies)]
        inputs = [(each, each.draw()) for each in (subject, *more)]
        work: dict[str, list[Callable[[], Tensor]]] = {
            name: [partial(call, each, x) for each, x in inputs]
            for name, call in contestants.items()
        }
        return summarize(time_in_turn(work, self.rounds))


def break_kernel(fault: str, name: str) -> None:
    """Break the fused kernel of the shapes whose name contains `name`, to test the script."""
    fused, calls = Subject.fused, itertools.count()

    def broken(self: Subject, x: Tensor, choice: Choice | None = None) -> Tensor:
        y = fused(self, x, choice)
        if name not in self.shape.name:
            return y
        if fault == "raise":
            raise RuntimeError("the kernel was broken on purpose")
        if fault == "crash":
            os.abort()
        if fault == "hang":
            time.sleep(3600)
        if fault == "race":
            return y * (1 + 2**-7 * (next(calls) % 2))
        return 2 * y

    Subject.fused = broken  # type: ignore[method-assign]


def serve(bench: Bench, items: TextIO, replies: TextIO) -> None:
    """Answer items until there are no more or the device is unusable."""

    def reply(**fields: Any) -> None:
        replies.write(json.dumps(fields) + "\n")
        replies.flush()

    gpu = None
    if bench.device == "cpu":
        gpu = "none (dry run)"
    elif torch.cuda.is_available():
        gpu = torch.cuda.get_device_name()
    reply(gpu=gpu, torch=torch.__version__, triton=triton.__version__, cuda=torch.version.cuda)
    for line in items:
        ending: dict[str, Any] = {"done": True}
        try:
            for record in bench.execute(Item.from_json(line)):
                reply(record=record)
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            text = traceback.format_exc()
            ending = {"failed": f"{type(error).__name__}: {reason}", "text": text}
        gc.collect()
        usable = bench.is_usable()
        reply(**ending, usable=usable)
        if not usable:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--inject-fault", nargs=2, action="append", default=[])
    options = parser.parse_args()
    for fault, name in options.inject_fault:
        break_kernel(fault, name)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = False  # As for matrix products; linear_tf32 is a contestant.
    # Libraries print to standard output. Keep the replies apart from that.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(Bench("cpu" if options.dry_run else "cuda", options.rounds), sys.stdin, replies)


if __name__ == "__main__":
    main()
