"""Reports as tables for people and as JSON for machines."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
from rich import box
from rich.table import Table

from nmn_export.ops import OPS
from nmn_export.report.compare import Comparison
from nmn_export.report.doctor import Finding
from nmn_export.report.inspect import OpReport


def comparison_table(comparisons: Sequence[Comparison]) -> Table:
    """Return the errors, a row for each subject and a column for each runtime."""
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
    """Return the ⵟ ops of a file, one a row; attributes at their defaults are left out."""
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


def doctor_table(findings: Sequence[Finding]) -> Table:
    """Return what was found and what to do about the rest."""
    table = _table("", "what", "found", "needed for", "to get it")
    for f in findings:
        sign = "[green]✓[/]" if f.found else "[yellow]–[/]"
        # Square brackets of an extra would be taken for markup.
        table.add_row(sign, f.name, f.found or "", f.needed_for, "" if f.found else _plain(f.fix))
    return table


def doctor_json(findings: Sequence[Finding]) -> str:
    """Return what was found."""
    return json.dumps([asdict(f) for f in findings], indent=2)


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
