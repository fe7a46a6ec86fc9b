"""A budget of seconds, and commands that run within it, each in its own process.

An illegal memory access destroys the CUDA context of its process, and a kernel may never return.
`run_item` is for commands that differ; `benchmarks.gpu_supervisor` runs many items in one process.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.gpu_records import Records

ERROR_CHARACTERS = 2000


@dataclass
class Budget:
    """Seconds that a run may take, and how long its items took so far.

    Attributes:
        seconds: Seconds of the whole run.
        first: Estimated seconds of an item, until one of its kind has run.
        reserve: Seconds that are kept for the end of the run.
        start: Start of the run on the monotonic clock.
        longest: Longest time of an item by kind.
    """

    seconds: float
    first: float = 30.0
    reserve: float = 0.0
    start: float = field(default_factory=time.monotonic)
    longest: dict[str, float] = field(default_factory=dict)

    @property
    def left(self) -> float:
        """Seconds until the budget is spent, apart from the reserve."""
        return self.seconds - self.reserve - (time.monotonic() - self.start)

    def estimate(self, kind: str, first: float | None = None) -> float:
        """Return the expected seconds of an item; `first` replaces the attribute."""
        return self.longest.get(kind, self.first if first is None else first)

    def fits(self, kind: str) -> bool:
        """Return whether another item of this kind is likely to end in time."""
        return self.estimate(kind) <= self.left

    def spent(self, kind: str, seconds: float) -> None:
        """Record how long an item took."""
        self.longest[kind] = max(seconds, self.longest.get(kind, 0.0))


def run_item(
    records: Records, budget: Budget, kind: str, name: str, command: Sequence[str], limit: float
) -> bool:
    """Run one item and record its results or its failure; return whether it succeeded.

    Args:
        records: Receives the results.
        budget: Budget of the run. It also bounds the item.
        kind: Kind of the item, such as `timing`.
        name: Name of the item, such as a shape and dtype.
        command: Prints one JSON object per result. Its exit code is 0 unless it fails.
        limit: Seconds after which the command and its children are killed.
    """
    begin = time.monotonic()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    limit, timed_out = min(limit, budget.left), False
    try:
        out, err = process.communicate(timeout=max(limit, 0.1))
    except subprocess.TimeoutExpired:
        timed_out = True
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
    seconds = time.monotonic() - begin
    budget.spent(kind, seconds)
    for line in out.splitlines():
        if line.startswith("{"):
            try:
                records.append(kind, item=name, **json.loads(line))
            except json.JSONDecodeError:
                continue  # half a line of a killed process
    if timed_out:
        reason = f"killed after {limit:.1f} s"
    elif process.returncode < 0:
        reason = f"ended by {signal.Signals(-process.returncode).name}"
    elif process.returncode:
        reason = f"exit code {process.returncode}"
    else:
        return True
    records.append(
        "error", of=kind, item=name, reason=reason, text=err[-ERROR_CHARACTERS:], seconds=seconds
    )
    return False
