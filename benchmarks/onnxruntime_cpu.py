"""ONNX Runtime on the CPU: python -m benchmarks.onnxruntime_cpu [--rounds N] [NAME …].

Four contestants run interleaved for each network and layer; see `benchmarks.contestants`. The table
has their ratios to the linear twin, with the 20th and 80th percentile of the ratios within a round.
A complete run writes `results/<date>-onnxruntime-cpu.json`, from which `benchmarks.readme_table`
makes the table in the README. Until then, the finished subjects are in `….partial.json`, so that an
interrupted run neither loses them nor replaces the results of a complete run.
"""

import argparse
import datetime
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import nn

from benchmarks.attention_twins import AttentionOnly
from benchmarks.contestants import NAMES, contestants
from nmn_export.layers import (
    MultiHeadYatAttention,
    YatConv2d,
    YatConvTranspose1d,
    YatConvTranspose2d,
    YatDense,
)
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


def _up(kernel: int, stride: int, padding: int = 0, extra: int = 0) -> YatConvTranspose2d:
    options = {"bias": False, "constant_alpha": True}
    return YatConvTranspose2d(64, 64, kernel, stride, padding, extra, **options)


def _up_1d() -> YatConvTranspose1d:
    return YatConvTranspose1d(128, 64, 16, 8, padding=4, bias=False, constant_alpha=True)


def _dense(in_features: int, out_features: int) -> YatDense:
    return YatDense(in_features, out_features, constant_alpha=True)


def _attention(**options: bool) -> MultiHeadYatAttention:
    return MultiHeadYatAttention(768, 12, constant_alpha=True, **options)


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
    Subject("transposed 64 3×3 56² b1", partial(_up, 3, 1, 1), (1, 64, 56, 56), 1.15),
    Subject("transposed 64 4×4/2 28² b1", partial(_up, 4, 2, 1), (1, 64, 28, 28), 1.15),
    Subject("transposed 64 4×4/2 28² b8", partial(_up, 4, 2, 1), (8, 64, 28, 28), 1.15),
    Subject("transposed 64 4×4/2 56² b8", partial(_up, 4, 2, 1), (8, 64, 56, 56), 1.15),
    Subject("transposed 64 3×3/2 28² b8", partial(_up, 3, 2, 1, 1), (8, 64, 28, 28), 1.15),
    Subject("transposed 64 5×5/2 28² b8", partial(_up, 5, 2, 2, 1), (8, 64, 28, 28), 1.15),
    Subject("transposed 64 2×2/2 28² b8", partial(_up, 2, 2), (8, 64, 28, 28), 1.15),
    Subject("transposed 128→64 16/8 1-D 256 b8", _up_1d, (8, 128, 256), 1.15),
    Subject("attention 768 L128 b1", _attention, (1, 128, 768), 1.10),
    Subject("attention 768 L512 b1", _attention, (1, 512, 768), 1.10),
    Subject("attention 768 L512 b4", _attention, (4, 512, 768), 1.10),
    Subject("attention 768 L2048 b1", _attention, (1, 2048, 768), 1.10),
    Subject(
        "causal attention 768 L512 b1", partial(_attention, is_causal=True), (1, 512, 768), 1.10
    ),
    Subject("attention 12×64 alone L512 b1", AttentionOnly, (3, 1, 512, 12, 64)),
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


def measure_all(
    subjects: Sequence[Subject], rounds: int, date: str, output: Path | None, progress: Progress
) -> dict[str, Any]:
    """Measure subjects, and write the results to a file if there is one.

    Raises:
        KeyboardInterrupt: The run was interrupted; the finished subjects are in the partial file.
    """
    results: dict[str, Any] = {"date": date, "machine": machine(), "subjects": {}}
    for subject in subjects:
        row = measure(subject, rounds, progress)
        results["subjects"][subject.name] = row
        progress.console.print(f"{subject.name}: ours {ratio(row, 'ours')}")
        if output is not None:
            text = json.dumps(results, indent=2, ensure_ascii=False)
            partial_file(output).write_text(f"{text}\n")
    if output is not None:
        partial_file(output).replace(output)
    return results


def partial_file(output: Path) -> Path:
    """Return the file for the results of a run that is not complete."""
    return output.with_suffix(".partial.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="substrings of the subjects to run")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--output", type=Path, help="JSON file; for a complete run in results/")
    arguments = parser.parse_args()
    names: list[str] = arguments.names
    subjects = [s for s in SUBJECTS if not names or any(name in s.name for name in names)]
    if arguments.rounds < 1:
        parser.exit(2, f"error: --rounds is 1 or more; got {arguments.rounds}. Use --rounds 40.\n")
    if not subjects:
        known = ", ".join(s.name for s in SUBJECTS)
        parser.exit(2, f"error: No subject has such a name; got {names}. Use one of: {known}.\n")
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    output: Path | None = arguments.output
    if output is None and not names:
        output = RESULTS / f"{date}{SUFFIX}"
    if output is not None and not output.parent.is_dir():
        parser.exit(2, f"error: The results need an existing folder; got {output}. Create it.\n")
    console = Console(width=None if sys.stdout.isatty() else 140)
    try:
        with Progress(console=console, transient=True) as progress:
            results = measure_all(subjects, arguments.rounds, date, output, progress)
    except KeyboardInterrupt:
        kept = partial_file(output) if output is not None else None
        where = f"; finished subjects are in {kept}" if kept is not None and kept.exists() else ""
        parser.exit(130, f"interrupted{where}\n")
    console.print(table(results["subjects"]))
    about = results["machine"]
    console.print(f"{about['processor']}, {about['threads']} threads; ratios are to linear")
    if output is not None:
        console.print(f"wrote {output}")


if __name__ == "__main__":
    main()
