"""ONNX Runtime on the CPU: python -m benchmarks.onnxruntime_cpu [--rounds N] [NAME …].

For each network and layer, the medians of four contestants taken in turn in one run, and their
ratios to the linear twin. See `benchmarks.contestants` for who they are and `NOTES.md` for what was
tried.
"""

import argparse
import datetime
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import nn

from benchmarks.contestants import NAMES, contestants
from nmn_export.layers import YatConv2d, YatDense
from nmn_export.models import aether_resnet18
from nmn_export.report.machine import machine
from nmn_export.report.timing import Timing, interleave

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Subject:
    """What is timed.

    Attributes:
        name: For the table.
        build: Makes the network.
        shape: Of its input.
        target: Ratio of ours to linear to aim at, if one is set.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    target: float | None = None


def _conv(channels: int) -> YatConv2d:
    return YatConv2d(channels, channels, 3, padding=1, bias=False, constant_alpha=True)


def _dense(in_features: int, out_features: int) -> YatDense:
    return YatDense(in_features, out_features, constant_alpha=True)


SUBJECTS = (
    Subject("AetherResNet-18 224² b1", aether_resnet18, (1, 3, 224, 224), 1.08),
    Subject("AetherResNet-18 224² b8", aether_resnet18, (8, 3, 224, 224), 1.08),
    Subject("AetherResNet-18 CIFAR b8", partial(aether_resnet18, 10, stem="cifar"), (8, 3, 32, 32)),
    Subject("conv 64 3×3 56² b1", partial(_conv, 64), (1, 64, 56, 56), 1.20),
    Subject("conv 64 3×3 56² b8", partial(_conv, 64), (8, 64, 56, 56), 1.20),
    Subject("conv 64 3×3 112² b1", partial(_conv, 64), (1, 64, 112, 112), 1.20),
    Subject("conv 64 3×3 112² b8", partial(_conv, 64), (8, 64, 112, 112), 1.20),
    Subject("conv 256 3×3 14² b8", partial(_conv, 256), (8, 256, 14, 14)),
    Subject("dense 512→1000 b8", partial(_dense, 512, 1000), (8, 512)),
    Subject("dense 768→3072 b128", partial(_dense, 768, 3072), (128, 768)),
)


def measure(subject: Subject, rounds: int, progress: Progress) -> dict[str, Timing]:
    """Time the four contestants."""
    torch.manual_seed(0)
    task = progress.add_task(subject.name, total=rounds)
    calls = contestants(subject.build(), torch.randn(subject.shape))
    return interleave(calls, rounds, on_round=lambda: progress.advance(task))


def table(results: dict[str, dict[str, Timing]]) -> Table:
    """Return medians in milliseconds and ratios to the linear twin."""
    rendered = Table("subject", *(f"{name} ms" for name in NAMES), "ours", "naive", "target")
    targets = {s.name: s.target for s in SUBJECTS}
    for name, timings in results.items():
        linear = timings["linear"].median
        target = targets[name]
        rendered.add_row(
            name,
            *(f"{timings[n].median * 1e3:.2f}" for n in NAMES),
            f"{timings['ours'].median / linear:.2f}×",
            f"{timings['naive'].median / linear:.2f}×",
            "" if target is None else f"{target:.2f}×",
        )
    return rendered


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="substrings of the subjects to run; all if none")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--save", action="store_true", help=f"write JSON to {RESULTS.name}/")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    results: dict[str, dict[str, Timing]] = {}
    with Progress(console=console, transient=True) as progress:
        for subject in SUBJECTS:
            if not arguments.names or any(n in subject.name for n in arguments.names):
                results[subject.name] = measure(subject, arguments.rounds, progress)
    console.print(table(results))
    about = machine()
    console.print(f"{about['processor']}, {about['threads']} threads; ratios are to linear")
    if arguments.save:
        date = datetime.datetime.now(datetime.UTC).date().isoformat()
        rows = {n: {k: asdict(t) for k, t in timings.items()} for n, timings in results.items()}
        file = RESULTS / f"{date}-onnxruntime-cpu.json"
        file.write_text(json.dumps({"date": date, "machine": about, "seconds": rows}, indent=2))
        console.print(f"wrote {file}")


if __name__ == "__main__":
    main()
