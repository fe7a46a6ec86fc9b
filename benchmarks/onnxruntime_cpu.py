"""ONNX Runtime on the CPU: python -m benchmarks.onnxruntime_cpu [--rounds N] [NAME …].

Four contestants run interleaved for each network and layer; see `benchmarks.contestants`. The table
has their ratios to the linear twin, with the 20th and 80th percentile of the ratios within a round.
A complete run writes `results/<date>-onnxruntime-cpu.json`, from which `benchmarks.readme_table`
makes the table in the README. Results are written after each subject.
"""

import argparse
import datetime
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import nn

from benchmarks.contestants import NAMES, contestants
from nmn_export.layers import YatConv2d, YatDense
from nmn_export.models import aether_resnet18
from nmn_export.report.machine import machine
from nmn_export.report.timing import sample, spread, timing

RESULTS = Path(__file__).parent / "results"

SUFFIX = "-onnxruntime-cpu.json"


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


def measure(subject: Subject, rounds: int, progress: Progress) -> dict[str, Any]:
    """Return the times of the contestants in seconds, and their ratios to the linear twin."""
    torch.manual_seed(0)
    task = progress.add_task(subject.name, total=rounds)
    calls = contestants(subject.build(), torch.randn(subject.shape))
    seconds = sample(calls, rounds, on_round=lambda: progress.advance(task))
    linear = seconds["linear"]
    return {
        "target": subject.target,
        "seconds": {name: asdict(timing(found)) for name, found in seconds.items()},
        "ratios": {name: asdict(spread(found, linear)) for name, found in seconds.items()},
    }


def ratio(row: dict[str, Any], name: str) -> str:
    """Return a contestant's ratio to the linear twin and its spread."""
    found = row["ratios"][name]
    return f"{found['ratio']:.2f} ({found['p20']:.2f} to {found['p80']:.2f})"


def table(rows: dict[str, dict[str, Any]]) -> Table:
    """Return medians in milliseconds, and ratios to the linear twin with their spread."""
    rendered = Table("subject", "linear ms", *NAMES[1:], "target")
    for name, row in rows.items():
        target = row["target"]
        rendered.add_row(
            name,
            f"{row['seconds']['linear']['median'] * 1e3:.2f}",
            *(ratio(row, contestant) for contestant in NAMES[1:]),
            "" if target is None else f"{target:.2f}",
        )
    return rendered


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="substrings of the subjects to run; all if none")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--output", type=Path, help="JSON file; for a complete run in results/")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    output = arguments.output
    if output is None and not arguments.names:
        output = RESULTS / f"{date}{SUFFIX}"
    about, rows = machine(), {}
    with Progress(console=console, transient=True) as progress:
        for subject in SUBJECTS:
            if not arguments.names or any(n in subject.name for n in arguments.names):
                rows[subject.name] = measure(subject, arguments.rounds, progress)
                if output is not None:
                    results = {"date": date, "machine": about, "subjects": rows}
                    output.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    console.print(table(rows))
    console.print(f"{about['processor']}, {about['threads']} threads; ratios are to linear")
    if output is not None:
        console.print(f"wrote {output}")


if __name__ == "__main__":
    main()
