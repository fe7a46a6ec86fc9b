"""Items of a GPU run: each in a process of its own, under a time limit and a budget.

An illegal memory access destroys the CUDA context of its process, and a kernel may never return.
So an item is a command; what it writes to standard output as JSON lines is recorded as it arrives
at the end, and a failure is recorded as an `error` with the end of standard error.
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
    """Seconds that a run may take, and how long items of each kind took so far.

    Attributes:
        seconds: Of the whole run.
        first: Estimate in seconds for a kind of which no item has run yet.
    """

    seconds: float
    first: float = 30.0
    start: float = field(default_factory=time.monotonic)
    longest: dict[str, float] = field(default_factory=dict)

    @property
    def left(self) -> float:
        """Seconds until the budget is spent."""
        return self.seconds - (time.monotonic() - self.start)

    def fits(self, kind: str) -> bool:
        """Return whether another item of this kind is likely to end in time."""
        return self.longest.get(kind, self.first) <= self.left

    def spent(self, kind: str, seconds: float) -> None:
        """Note how long an item took."""
        self.longest[kind] = max(seconds, self.longest.get(kind, 0.0))


def run_item(
    records: Records, budget: Budget, kind: str, name: str, command: Sequence[str], limit: float
) -> bool:
    """Run one item and record its results or its failure; return whether it succeeded.

    Args:
        records: Where results go.
        budget: Of the run; it also bounds the item.
        kind: Of the item, such as `correctness` or `timing`.
        name: Of the item, such as a shape and dtype.
        command: Prints one JSON object per result; its exit code is 0 unless it fails.
        limit: Seconds after which the item and its children are killed.
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
