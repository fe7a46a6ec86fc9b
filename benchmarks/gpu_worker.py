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

from benchmarks.gpu_attention import AttentionSubject, peak_bytes
from benchmarks.gpu_attention_shapes import AttentionShape
from benchmarks.gpu_queue import Candidate, Item
from benchmarks.gpu_shapes import Shape
from benchmarks.gpu_subjects import Subject, check
from benchmarks.gpu_timing import (
    Summary,
    buffer_copies,
    clocks,
    measured_rates,
    summarize,
    time_in_turn,
)

REPETITIONS = {"correctness": 10, "repeat": 90}
"""Repetitions that must be equal bit by bit."""

SUBJECTS: dict[type, Any] = {Shape: Subject, AttentionShape: AttentionSubject}

Contestants = dict[str, Callable[[Any, Tensor], Tensor]]


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
            check(self.subject(item.shape, item.mode), repetitions)
            yield about | {"agrees": True, "repetitions": repetitions}
        elif item.kind == "tiles":
            yield about | self.tile(item.shape, item.mode, item.candidate)
        elif isinstance(item.shape, AttentionShape):
            yield about | self.attention(item.shape, item.mode)
        else:
            names: tuple[str, ...] = Subject.CONTESTANTS
            if item.kind == "compile":
                names = ("linear", "fused", "compiled")
                torch.compiler.reset()
            if item.mode.startswith("float32"):
                names += ("linear_tf32",)
            yield about | self.timing(item.shape, item.mode, names)

    def subject(self, shape: Shape | AttentionShape, mode: str) -> Any:
        """Return random weights, or keys and values, of a shape."""
        return SUBJECTS[type(shape)](shape, mode, self.device)

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
        subject = self.subject(shape, mode)
        subject.assert_close_to_unfused()
        seconds = self.measure(subject, {name: getattr(Subject, name) for name in names})
        moved = {"bytes": subject.bytes, "flops": shape.flops, "target": shape.target}
        return {"seconds": seconds, "clocks": clocks()} | moved

    def attention(self, shape: AttentionShape, mode: str) -> dict[str, Any]:
        """Return the times and the peak memory of the contestants that support a shape."""
        subject = self.subject(shape, mode)
        subject.assert_close_to_unfused()
        contestants, reasons = subject.usable()
        memory = {"fused_workspace": subject.workspace_bytes()}
        if self.device == "cuda":
            q = subject.draw()
            memory |= {n: peak_bytes(partial(call, subject, q)) for n, call in contestants.items()}
        seconds = self.measure(subject, contestants)
        moved = {"bytes": subject.bytes, "flops": shape.flops, "target": shape.target}
        about = {"memory": memory, "unsupported": reasons}
        return {"seconds": seconds, "clocks": clocks()} | moved | about

    def tile(
        self, shape: Shape | AttentionShape, mode: str, candidate: Candidate | None
    ) -> dict[str, Any]:
        """Return the time of one tile, after a check of its output, or that it does not fit."""
        subject = self.subject(shape, mode)
        choice = subject.choice_of(candidate) if candidate else subject.planned()
        name = candidate.name if candidate else "plan"
        about = {"tile": name, "choice": asdict(choice)}
        try:
            subject.assert_close_to_unfused(choice)
        except OutOfResources as error:
            return about | {"does_not_fit": str(error)}
        kind = type(subject)
        fused = partial(kind.fused, choice=choice)
        seconds = self.measure(subject, {"linear": kind.linear, "fused": fused})
        return about | {"seconds": seconds}

    def measure(self, subject: Any, contestants: Contestants) -> Summary:
        """Time contestants on inputs and weights that rotate; `subject` is the first of them."""
        copies = buffer_copies(subject.bytes) - 1
        more = [self.subject(subject.shape, subject.mode) for _ in range(copies)]
        inputs = [(each, each.draw()) for each in (subject, *more)]
        work: dict[str, list[Callable[[], Tensor]]] = {
            name: [partial(call, each, x) for each, x in inputs]
            for name, call in contestants.items()
        }
        return summarize(time_in_turn(work, self.rounds))


def break_kernel(fault: str, name: str) -> None:
    """Break the fused kernel of the shapes whose name contains `name`, to test the script."""
    for kind in SUBJECTS.values():
        kind.fused = broken(kind.fused, fault, name)


def broken(fused: Callable[..., Tensor], fault: str, name: str) -> Callable[..., Tensor]:
    """Return `fused` with a fault in the shapes whose name contains `name`."""
    calls = itertools.count()

    def run(self: Any, x: Tensor, choice: Any = None) -> Tensor:
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

    return run


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
