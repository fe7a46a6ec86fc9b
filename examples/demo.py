"""The demo: train a small AetherResNet, export it, run it, check it, time it, build an engine.

It writes to build/demo/, and takes about two minutes on two cores.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.contestants import NAMES, contestants
from nmn_export import build, check, export, run
from nmn_export.models import AetherResNet, BasicBlock, aether_resnet18
from nmn_export.report.compare import Comparison
from nmn_export.report.machine import machine
from nmn_export.report.render import comparison_table
from nmn_export.report.timing import Timing, interleave

console = Console(width=None if Console().is_terminal else 120)


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return training images [N, 1, 8, 8], training labels, test images and test labels."""
    images, labels = load_digits(return_X_y=True)
    scaled = (images.reshape(-1, 1, 8, 8) / 8 - 1).astype(np.float32)
    parts = train_test_split(scaled, labels, test_size=0.25, random_state=0, stratify=labels)
    x, x_held, y, y_held = map(torch.from_numpy, parts)
    return x, y, x_held, y_held


def train(x: Tensor, y: Tensor, epochs: int) -> nn.Module:
    """Train an AetherResNet of two blocks, whose only non-linear layers are its ⵟ layers."""
    torch.manual_seed(0)
    model = AetherResNet(BasicBlock, (1, 1), 10, "cifar", in_channels=1, widths=(32, 64))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-3)
    batches = DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 5e-3, epochs=epochs, steps_per_epoch=len(batches)
    )
    with Progress(console=console) as progress:
        task = progress.add_task("training on digits", total=epochs * len(batches))
        for _ in range(epochs):
            for images, labels in batches:
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(images), labels).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                progress.advance(task)
    return model.eval()


def same_answers(model: nn.Module, file: Path, x: Tensor, y: Tensor) -> tuple[int, int, int]:
    """Return the correct answers in PyTorch and in ONNX Runtime, and how many answers differ."""
    with torch.inference_mode():
        eager: NDArray[np.int64] = model(x).argmax(1).numpy()
    runtime = run(file, {"x": x.numpy()})["output"].argmax(1)
    correct = [int((answers == y.numpy()).sum()) for answers in (eager, runtime)]
    return correct[0], correct[1], int((eager != runtime).sum())


def latency(model: nn.Module, x: Tensor, rounds: int) -> dict[str, Timing]:
    """Time the network, its linear twin and the naive export, interleaved."""
    calls = contestants(model, x)
    with Progress(console=console) as progress:
        task = progress.add_task("timing", total=rounds)
        return interleave(calls, rounds, on_round=lambda: progress.advance(task))


def engine(model: Path) -> str:
    """Build a TensorRT engine, which needs no GPU, and describe it in one sentence."""
    built = build(model, model.with_suffix(".engine"), compute_capabilities=[89])
    plugin = built.record.plugin
    library = "" if plugin.library else " (make plugin builds the library of fused kernels)"
    return (
        f"{built.path.name}, for compute capability 8.9: {plugin.layers} ⵟ ops in the plugin, "
        f"{plugin.decomposed} made of standard ops{library}."
    )


def report(
    answers: str, checks: dict[str, list[Comparison]], timings: dict[str, Timing], rounds: int
) -> str:
    """Return all results as Markdown."""
    lines = ["# nmn_export demo", "", answers, ""]
    for name, comparisons in checks.items():
        lines += [f"## {name} against float64", "", "| subject | inputs | runtime | error | ok |"]
        lines += ["|---|---|---|---|---|"]
        lines += [
            f"| {c.subject} | {c.inputs} | {c.backend} | {c.error:.1e} | {c.passed} |"
            for c in comparisons
        ]
        lines += [""]
    linear = timings["linear"].median
    lines += ["## AetherResNet-18, 224×224, batch 1", "", "| contestant | ms | ratio |"]
    lines += ["|---|---|---|"]
    lines += [
        f"| {n} | {timings[n].median * 1e3:.2f} | {timings[n].median / linear:.2f} |" for n in NAMES
    ]
    about = machine()
    place = f"{about['processor']}, {about['threads']} threads"
    lines += ["", f"Medians of {rounds} rounds on {place}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("build/demo"))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=30, help="timing rounds")
    arguments = parser.parse_args()
    folder: Path = arguments.output
    folder.mkdir(parents=True, exist_ok=True)

    x, y, x_held, y_held = digits()
    small = train(x, y, arguments.epochs)
    torch.manual_seed(0)
    large = aether_resnet18().eval()
    files = {"digits": folder / "digits.onnx", "aether-resnet18": folder / "aether_resnet18.onnx"}
    batch = {"x": {0: "batch"}}
    with console.status("exporting"):
        export(small, x[:2], files["digits"], dynamic_shapes=batch)
        export(large, torch.randn(2, 3, 224, 224), files["aether-resnet18"], dynamic_shapes=batch)

    checks = {}
    for name, model in (("digits", small), ("aether-resnet18", large)):
        with console.status(f"checking {name}"):
            checks[name] = check(files[name], model)
        console.print(name, comparison_table(checks[name]))

    eager, runtime, different = same_answers(small, files["digits"], x_held, y_held)
    answers = (
        f"Test digits: PyTorch has {eager} of {len(y_held)} right, ONNX Runtime {runtime}; "
        f"they differ on {different} images."
    )
    console.print(answers)

    timings = latency(large, torch.randn(1, 3, 224, 224), arguments.rounds)
    linear = timings["linear"].median
    console.print("AetherResNet-18, 224×224, batch 1, on the CPU:")
    for name in NAMES:
        ms, ratio = timings[name].median * 1e3, timings[name].median / linear
        console.print(f"  {name:8} {ms:7.2f} ms  {ratio:.2f}× linear")

    with console.status("building an engine"):
        console.print(engine(files["aether-resnet18"]))

    (folder / "report.md").write_text(report(answers, checks, timings, arguments.rounds))
    console.print(f"files: {', '.join(map(str, files.values()))}; report: {folder / 'report.md'}")
    if different or not all(c.passed for results in checks.values() for c in results):
        raise SystemExit("error: a check failed, or answers differ from PyTorch; see above")


if __name__ == "__main__":
    main()
