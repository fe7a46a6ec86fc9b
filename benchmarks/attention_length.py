"""Attention against length, on the CPU: python -m benchmarks.attention_length [--lengths 256,512].

Layers of rotary ⵟ-attention, exact and linear, run in ONNX Runtime. The contestants of one length
are interleaved. Two of them stop at 8192 tokens: exact attention takes 4 GiB there, and the factors
of all "maclaurin" features 2 GiB. The memory is that of one run at its peak, in a process of its
own, beyond the input and the weights. Last comes the recurrent step at two positions. A run of all
lengths writes `results/<date>-attention-length.json`.
"""

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from rich.console import Console
from rich.table import Table

from nmn_export import export
from nmn_export.layers import RotaryStep, RotaryYatAttention
from nmn_export.report.machine import machine
from nmn_export.report.timing import sample, spread, timing

RESULTS = Path(__file__).parent / "results"

EMBED, HEADS = 256, 4

LENGTHS = (256, 1024, 4096, 8192, 32768)

LONGEST = {"exact": 8192, "maclaurin": 8192}
"""The longest sequence of the contestants that have a limit."""

POSITIONS = (10, 100_000)
"""Positions at which the recurrent step is timed."""

LAYERS: dict[str, dict[str, Any]] = {
    "exact": {"causal": True},
    "slay": {"use_performer": True, "causal": True},
    "slay, all keys": {"use_performer": True},
    "maclaurin": {"use_performer": True, "performer_kind": "maclaurin", "causal": True},
}
"""The contestants. Features have upstream's default numbers: 128 and 256 per head."""

# Writing 5 to clear_refs resets the peak (VmHWM), which counts in KiB.
_MEMORY = """
import pathlib, re, sys
import numpy as np
import onnxruntime as ort

def kibibytes(name):
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(name + r":\\s+(\\d+) kB", status)[1])

options = ort.SessionOptions()
options.intra_op_num_threads = int(sys.argv[3])
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
x = np.ones((1, int(sys.argv[2]), session.get_inputs()[0].shape[2]), np.float32)
pathlib.Path("/proc/self/clear_refs").write_text("5")
before = kibibytes("VmRSS")
session.run(None, {"x": x})
print(1024 * (kibibytes("VmHWM") - before))
"""


def layer_of(name: str, longest: int) -> RotaryYatAttention:
    torch.manual_seed(0)
    return RotaryYatAttention(EMBED, HEADS, longest, seed=0, **LAYERS[name]).eval()


def memory(file: Path, length: int) -> int:
    """Return the bytes that one run takes at its peak, beyond those of the process before."""
    arguments = [str(file), str(length), str(torch.get_num_threads())]
    command = [sys.executable, "-c", _MEMORY, *arguments]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure_length(files: Mapping[str, Path], length: int, rounds: int) -> dict[str, Any]:
    """Return times, ratios to exact attention or else to the first, and memory of one length."""
    random = np.random.default_rng(0)
    x = random.standard_normal((1, length, EMBED), dtype=np.float32)
    names = [name for name in files if length <= LONGEST.get(name, length)]
    sessions = {name: _session(files[name]) for name in names}
    seconds = sample({n: _call(s, {"x": x}) for n, s in sessions.items()}, rounds, warmup=1)
    return {
        "seconds": {name: asdict(timing(found)) for name, found in seconds.items()},
        "ratio_to": names[0],
        "ratios": {n: asdict(spread(found, seconds[names[0]])) for n, found in seconds.items()},
        "bytes": {name: memory(files[name], length) for name in names},
    }


def measure_step(folder: Path, rounds: int) -> dict[str, Any]:
    """Return the times of one step of "slay" at two positions, after as many tokens."""
    layer, file = layer_of("slay", POSITIONS[-1] + 1), folder / "step.onnx"
    x = torch.randn(1, EMBED, generator=torch.Generator().manual_seed(0))
    export(RotaryStep(layer), (x, *layer.initial_state(1)), file, check=False)
    session, calls = _session(file), {}
    for position in POSITIONS:
        kv, k_sum, place = layer.initial_state(1)
        # The state after tokens that are all the same.
        with torch.no_grad():
            _, once = layer.step(x, layer.initial_state(1))
        kv, k_sum = kv + position * once.kv, k_sum + position * once.k_sum
        inputs = {"x": x, "kv": kv, "k_sum": k_sum, "position": place + position}
        calls[str(position)] = _call(session, {n: t.numpy() for n, t in inputs.items()})
    seconds = sample(calls, rounds)
    first = seconds[str(POSITIONS[0])]
    return {
        "seconds": {name: asdict(timing(found)) for name, found in seconds.items()},
        "ratios": {name: asdict(spread(found, first)) for name, found in seconds.items()},
    }


def measure_all(lengths: Sequence[int], rounds: int, console: Console) -> dict[str, Any]:
    """Measure all layers at all lengths, and the step; long sequences in fewer rounds."""
    results: dict[str, Any] = {"machine": machine(), "layer": f"{EMBED} features, {HEADS} heads"}
    results["lengths"] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for name in LAYERS:
            files[name] = Path(folder) / f"{name}.onnx"
            layer, axes = layer_of(name, max(lengths)), {"x": {1: "length"}}
            export(layer, torch.randn(1, 5, EMBED), files[name], dynamic_shapes=axes, check=False)
        for length in lengths:
            row = measure_length(files, length, max(2, min(rounds, 20_000 // length)))
            results["lengths"][str(length)] = row
            medians = {name: found["median"] for name, found in row["seconds"].items()}
            shown = ", ".join(f"{name} {1e3 * t:.1f} ms" for name, t in medians.items())
            console.print(f"{length}: {shown}")
        results["step"] = measure_step(Path(folder), 20 * rounds)
    return results


def table(results: dict[str, Any]) -> Table:
    """Return time and memory per contestant and length, and ratios of the times."""
    rendered = Table("tokens", *LAYERS)
    for length, row in results["lengths"].items():
        cells = []
        for name in LAYERS:
            if name not in row["seconds"]:
                cells.append("")
                continue
            milliseconds = 1e3 * row["seconds"][name]["median"]
            size = row["bytes"][name] / 2**20
            ratio = row["ratios"][name]["ratio"]
            cells.append(f"{milliseconds:.1f} ms, {size:.0f} MiB, {ratio:.2f}")
        rendered.add_row(length, *cells)
    return rendered


def _session(file: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Idle threads of one session must not spin while another is timed.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def _call(session: ort.InferenceSession, inputs: dict[str, Any]) -> Callable[[], object]:
    return lambda: session.run(None, inputs)


def _lengths(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=_lengths, default=list(LENGTHS), help="tokens, 256,512,…")
    parser.add_argument("--rounds", type=int, default=10, help="of the shortest sequences")
    parser.add_argument("--output", type=Path, help="JSON file; for all lengths in results/")
    arguments = parser.parse_args()
    if min(arguments.lengths) < 1 or arguments.rounds < 1:
        parser.exit(2, "error: --lengths and --rounds are 1 or more. Use --rounds 10.\n")
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    output: Path | None = arguments.output
    if output is None and arguments.lengths == list(LENGTHS):
        output = RESULTS / f"{date}-attention-length.json"
    if output is not None and not output.parent.is_dir():
        parser.exit(2, f"error: The results need an existing folder; got {output}. Create it.\n")
    console = Console(width=None if sys.stdout.isatty() else 140)
    try:
        results = {"date": date} | measure_all(arguments.lengths, arguments.rounds, console)
    except KeyboardInterrupt:
        parser.exit(130, "interrupted; nothing was written\n")
    if output is not None:
        output.write_text(f"{json.dumps(results, indent=2, ensure_ascii=False)}\n")
        console.print(f"wrote {output}")
    console.print(table(results))
    step = results["step"]["ratios"][str(POSITIONS[-1])]["ratio"]
    console.print(f"a step at {POSITIONS[-1]} takes {step:.2f} of its time at {POSITIONS[0]}")


if __name__ == "__main__":
    main()
