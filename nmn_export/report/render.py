"""Reports as tables for people and as JSON for machines."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
from rich import box
from rich.table import Table

from nmn_export.engine.record import EngineRecord
from nmn_export.ops import OPS
from nmn_export.report.bench import Benchmark, BenchRow
from nmn_export.report.compare import Comparison
from nmn_export.report.doctor import Finding
from nmn_export.report.inspect import OpReport, engine_facts


def comparison_table(comparisons: Sequence[Comparison]) -> Table:
    """Return the errors, one row per subject and one column per runtime."""
    backends = list(dict.fromkeys(c.backend for c in comparisons))
    table = _table("subject", "inputs", *backends, "limit", "", title="Error against float64")
    for subject in dict.fromkeys(c.subject for c in comparisons):
        row = {c.backend: c for c in comparisons if c.subject == subject}
        limit = next((c.limit for c in row.values() if c.limit is not None), None)
        failed = [name for name, c in row.items() if not c.passed]
        table.add_row(
            subject,
            next(iter(row.values())).inputs,
            *(f"{row[name].error:.1e}" if name in row else "" for name in backends),
            "" if limit is None else f"{limit:.1e}",
            f"[red]FAILED: {', '.join(failed)}[/]" if failed else "[green]ok[/]",
        )
    return table


def comparison_json(comparisons: Sequence[Comparison]) -> str:
    """Return the comparisons and whether all passed."""
    rows = [asdict(c) | {"passed": c.passed} for c in comparisons]
    return json.dumps({"passed": all(c.passed for c in comparisons), "comparisons": rows}, indent=2)


def op_table(reports: Sequence[OpReport]) -> Table:
    """Return the ⵟ ops of a file, one per row, without attributes that have their defaults."""
    table = _table("layer", "op", "X", "W", "Y", "attributes", "parameters", "MFLOP", "MB")
    for r in reports:
        shown = {k: v for k, v in r.attributes.items() if not _default(r.op, k, v)}
        table.add_row(
            r.name,
            f"{r.op} {r.dtype}",
            _size(r.input_shape),
            _size(r.weight_shape),
            _size(r.output_shape),
            " ".join(f"{name}={_short(value)}" for name, value in shown.items()),
            f"{r.parameters:,}",
            f"{r.flops / 1e6:,.1f}",
            f"{r.bytes / 1e6:,.2f}",
        )
    return table


def op_json(reports: Sequence[OpReport], provenance: Mapping[str, str]) -> str:
    """Return the ⵟ ops of a file and where it comes from."""
    return json.dumps({"provenance": provenance, "ops": [asdict(r) for r in reports]}, indent=2)


def engine_table(record: EngineRecord) -> Table:
    """Return the record of an engine, one entry per row."""
    table = _table("", "", title=record.engine.file)
    table.show_header = False
    for name, value in engine_facts(record):
        table.add_row(name, _plain(value))
    return table


def bench_table(result: Benchmark) -> Table:
    """Return the files of a benchmark, one per row; absolute times only from a GPU."""
    on_gpu = result.device == "cuda"
    seconds = ("GPU ms", "p20 to p80", "host ms") if on_gpu else ()
    table = _table("file", "runtime", "error", "ratio", "95 %", *seconds)
    for row in result.rows:
        interval = row.times.ratio
        table.add_row(
            _plain(row.file),
            row.runtime,
            "" if row.error is None else f"{row.error:.1e}",
            f"{interval.value:.3f}",
            "" if row.error is None else f"{interval.low:.3f} to {interval.high:.3f}",
            *_seconds(row),
        )
    return table


def bench_notes(result: Benchmark) -> list[str]:
    """Return what the table of a benchmark leaves out, in sentences."""
    about, first = result.machine, result.rows[0]
    place = (
        f"{about['gpu']}, driver {about.get('driver', 'unknown')}"
        if result.device == "cuda"
        else f"{about['processor']}, {about['threads']} threads"
    )
    inputs = ", ".join(f"{name} {value}" for name, value in result.inputs.items())
    agreement = (
        "Outputs were not compared: the tolerance is infinite."
        if math.isinf(result.tolerance)
        else f"Outputs agree with those of {first.file} to {result.tolerance:.0e}."
    )
    return [
        f"Ratios are to {first.file}: medians of {result.rounds} rounds in one run on {place}.",
        f"Inputs: {inputs}, {'given' if result.given else 'drawn'}. {agreement}",
        *(
            f"{row.file} is launch-bound: the GPU waits for the host, whose time it shows."
            for row in result.rows
            if row.times.launch_bound
        ),
    ]


def bench_json(result: Benchmark) -> str:
    """Return a benchmark. Infinite numbers become null."""
    return json.dumps(_finite(asdict(result)), indent=2)


def doctor_table(findings: Sequence[Finding]) -> Table:
    """Return the findings of doctor, one per row, and how to install what is missing."""
    table = _table("", "component", "found", "needed for", "how to get it")
    for f in findings:
        sign = "[green]✓[/]" if f.found else "[yellow]–[/]"
        # Rich would read the square brackets of an extra as markup.
        table.add_row(sign, f.name, f.found or "", f.needed_for, "" if f.found else _plain(f.fix))
    return table


def doctor_json(findings: Sequence[Finding]) -> str:
    """Return the findings of doctor."""
    return json.dumps([asdict(f) for f in findings], indent=2)


def _seconds(row: BenchRow) -> list[str]:
    gpu, host = row.times.gpu, row.times.host
    if gpu is None or host is None:
        return []
    spread = f"{gpu.p20 * 1e3:.4g} to {gpu.p80 * 1e3:.4g}"
    return [f"{gpu.median * 1e3:.4g}", spread, f"{host.median * 1e3:.4g}"]


def _finite(value: object) -> object:
    """Return a value with null in place of numbers that JSON cannot hold."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _table(*columns: str, title: str | None = None) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _default(op: str, name: str, value: float | int | list[int]) -> bool:
    default = OPS[op].attributes[name]
    # An attribute is a float32 in the file.
    return isinstance(default, float | int) and np.float32(default) == value


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


def _size(shape: Sequence[int | str]) -> str:
    return "x".join(map(str, shape))


def _short(value: float | int | list[int]) -> str:
    return _size(value) if isinstance(value, list) else f"{value:.6g}"
