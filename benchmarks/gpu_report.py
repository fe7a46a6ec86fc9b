"""Tables from the records of GPU runs: python -m benchmarks.gpu_report FILE…. Needs no PyTorch.

Of several records of one item, the last one counts.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu_records import Record, Records

RATIOS = ("fused", "unfused", "eager", "compiled", "linear_tf32")

ATTENTION_RATIOS = ("fused", "flash", "cudnn", "flex", "eager")

MEMORY = ("linear", "fused", "flex", "eager")
"""Contestants of attention whose peak memory is in the table."""


def latest(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Return the last record of every item by kind. An item with an error has no result."""
    results: dict[str, Record] = {}
    for record in records:
        if "item" in record and record["kind"] != "done":
            results[record["item"]] = record
    kinds: dict[str, list[Record]] = {}
    for record in results.values():
        kinds.setdefault(record["kind"], []).append(record)
    return kinds


def render(records: Iterable[Record]) -> str:
    """Return the tables of one GPU."""
    records = list(records)
    kinds = latest(records)
    machine = kinds.get("machine", [{}])[-1]
    run = next((r for r in reversed(records) if r["kind"] == "run"), {})
    timed = kinds.get("timing", []) + kinds.get("compile", [])
    parts = [
        _machine(run, machine),
        _checks(kinds),
        _timing([result for result in timed if "memory" not in result], machine),
        _attention([result for result in timed if "memory" in result], machine),
        _tiles(kinds.get("tiles", [])),
        _errors(kinds.get("error", [])),
        _skipped(records),
    ]
    return "\n\n".join(part for part in parts if part)


def _machine(run: Record, machine: Record) -> str:
    line = f"GPU: {run.get('gpu', 'not recorded')}"
    line += "".join(f"; {name} {run[name]}" for name in ("torch", "triton") if name in run)
    if "copy_tb_s" in machine:
        rates = ", ".join(f"{k} {v:.0f}" for k, v in machine["matmul_tflop_s"].items())
        line += f"; copies {machine['copy_tb_s']:.2f} TB/s; cuBLAS TFLOP/s: {rates}"
        line += f"; {machine['clocks']}"
    return line


def _checks(kinds: dict[str, list[Record]]) -> str:
    lines = []
    for kind in ("correctness", "repeat"):
        passed = kinds.get(kind, [])
        failed = [e for e in kinds.get("error", []) if e["of"] == kind]
        if passed or failed:
            repetitions = max((r["repetitions"] for r in passed), default=0)
            total = len(passed) + len(failed)
            lines.append(
                f"{kind}: in {len(passed)} of {total} checks the kernel agrees with float64 and "
                f"repeats bit by bit (repetitions: {repetitions})"
            )
    return "\n".join(lines)


def _timing(results: list[Record], machine: Record) -> str:
    if not results:
        return ""
    head = f"{'shape':40}{'mode':15}{'linear µs':>11}{'fused µs':>11}"
    head += "".join(f"{name:>12}" for name in RATIOS)
    lines = [head + f"{'target':>9}{'copy':>7}{'matmul':>8}  95 % interval of fused"]
    for result in results:
        rows = result["seconds"]
        times = "".join(f"{rows[n]['median'] * 1e6:11.1f}" for n in ("linear", "fused"))
        ratios = "".join(
            f"{rows[n]['ratio']:11.2f}×" if n in rows else f"{'-':>12}" for n in RATIOS
        )
        interval = f"{rows['fused']['ratio_low']:.3f} to {rows['fused']['ratio_high']:.3f}"
        copy, matmul = achieved(result, machine)
        lines.append(
            f"{result['shape']:40}{result['mode']:15}{times}{ratios}"
            f"{result['target']:8.2f}×{copy:>7}{matmul:>8}  {interval}"
        )
    return "\n".join(lines)


def _attention(results: list[Record], machine: Record) -> str:
    """Return the table of attention: times relative to softmax attention, and peak memory."""
    if not results:
        return ""
    head = f"{'attention':44}{'mode':10}{'sdpa µs':>10}{'fused µs':>10}"
    head += "".join(f"{name:>9}" for name in ATTENTION_RATIOS)
    head += f"{'target':>8}{'copy':>6}  MiB: workspace"
    lines = [head + "".join(f", {name.replace('linear', 'sdpa')}" for name in MEMORY)]
    for result in results:
        rows, memory = result["seconds"], result["memory"]
        times = "".join(f"{rows[n]['median'] * 1e6:10.1f}" for n in ("linear", "fused"))
        ratios = "".join(
            f"{rows[n]['ratio']:8.2f}×" if n in rows else f"{'-':>9}" for n in ATTENTION_RATIOS
        )
        bytes_of = [memory.get(name) for name in ("fused_workspace", *MEMORY)]
        sizes = ", ".join("-" if size is None else f"{size / 2**20:.1f}" for size in bytes_of)
        copy, _ = achieved(result, machine)
        lines.append(
            f"{result['shape']:44}{result['mode']:10}{times}{ratios}"
            f"{result['target']:7.2f}×{copy:>6}  {sizes}"
        )
    return "\n".join(lines)


def achieved(result: Record, machine: Record) -> tuple[str, str]:
    """Return fused's fractions of the measured copy bandwidth and cuBLAS rate; "-" if unknown.

    The rate is that of the layer's dtype. For float32 it is that of the float32 units, which the
    split products exceed.
    """
    if "copy_tb_s" not in machine:
        return "-", "-"
    seconds = result["seconds"]["fused"]["median"]
    copy = result["bytes"] / seconds / 1e12 / machine["copy_tb_s"]
    rate = machine["matmul_tflop_s"][result["mode"].split("-")[0]]
    return f"{copy:.0%}", f"{result['flops'] / seconds / 1e12 / rate:.0%}"


def _tiles(results: list[Record]) -> str:
    sweeps: dict[tuple[str, str], list[Record]] = {}
    for result in results:
        if "seconds" in result:
            sweeps.setdefault((result["shape"], result["mode"]), []).append(result)
    if not sweeps:
        return ""
    lines = [f"{'tile sweep':40}{'mode':15}{'plan':>9}{'best':>9}{'tried':>7}  best tile"]
    for (shape, mode), sweep in sweeps.items():
        ratios = {r["tile"]: r["seconds"]["fused"]["ratio"] for r in sweep}
        best = min(ratios, key=ratios.__getitem__)
        plan = f"{ratios['plan']:.3f}×" if "plan" in ratios else "-"
        lines.append(
            f"{shape:40}{mode:15}{plan:>9}{f'{ratios[best]:.3f}×':>9}{len(ratios):7}  {best}"
        )
    return "\n".join(lines)


def _errors(errors: list[Record]) -> str:
    lines = [f"{len(errors)} errors"] * bool(errors)
    return "\n".join(lines + [f"  {error['item']}: {error['reason']}" for error in errors])


def _skipped(records: list[Record]) -> str:
    done = {record["item"] for record in records if record["kind"] in ("done", "error")}
    names = {name for r in records if r["kind"] == "skipped" for name in r["items"]} - done
    return f"{len(names)} items skipped; --resume runs them" if names else ""


def by_gpu(files: Sequence[Path]) -> dict[str, list[Record]]:
    """Return the records of files by the GPU of their run.

    Raises:
        OSError: A file cannot be read.
    """
    groups: dict[str, list[Record]] = {}
    for file in files:
        gpu = "not recorded"
        for record in Records.read(file):
            gpu = record["gpu"] if record["kind"] == "run" else gpu
            groups.setdefault(gpu, []).append(record)
    return groups


def main(arguments: Sequence[str] | None = None) -> int:
    parser: Any = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    try:
        groups = by_gpu(options.files)
    except OSError as error:
        parser.error(f"a file cannot be read: {error.filename}: {error.strerror}")
    print("\n\n".join(render(records) for records in groups.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
