"""Runs the items of a GPU run in a worker process, within a budget. Needs no PyTorch.

An illegal memory access destroys the CUDA context of its process, and a kernel may never return.
So a worker process runs the items, because importing PyTorch for every item would take too long.
A worker that dies or is killed is replaced. Its item is recorded as an error.
"""

import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.gpu_items import ERROR_CHARACTERS, Budget
from benchmarks.gpu_queue import Item
from benchmarks.gpu_records import Records
from benchmarks.gpu_shapes import Shape

START_ATTEMPTS = 2
"""Consecutive failures to start a worker after which a run stops."""

MAX_DEATHS = 2
"""Workers that a shape may end, until its other items are skipped."""

FIRST_ESTIMATES = {"compile": 90.0, "timing": 15.0}
"""Seconds of an item by kind, until one of its size class has run."""

AUTOTUNING_FACTOR = 3.0
"""How much longer an item with autotuning may take."""


class WorkerDiedError(Exception):
    """The worker ended or was killed. The text is the reason."""


class Worker:
    """A process that reads items as lines and answers with lines of JSON."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        # The file is open as long as the process runs.
        self.errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            start_new_session=True,
        )
        self.replies: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.replies.put(line)
        self.replies.put("")

    def send(self, item: Item) -> None:
        """Send an item."""
        assert self.process.stdin
        with suppress(BrokenPipeError):  # The next reply will say that the worker ended.
            self.process.stdin.write(item.to_json() + "\n")
            self.process.stdin.flush()

    def reply(self, seconds: float) -> dict[str, Any]:
        """Return the next reply.

        Raises:
            WorkerDiedError: The process ended, or gave no reply within `seconds` and was killed.
        """
        try:
            line = self.replies.get(timeout=max(seconds, 0.0))
        except queue.Empty:
            self.kill()
            raise WorkerDiedError("was killed at the time limit") from None
        try:
            return dict(json.loads(line))
        except json.JSONDecodeError:  # The end of the output, or half a line before it.
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=5)
            self.kill()
            raise WorkerDiedError(self._exit_reason()) from None

    def _exit_reason(self) -> str:
        code = self.process.returncode
        if code is None:
            return "closed its output and could not be killed"
        return (
            f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        )

    def kill(self) -> None:
        """End the process and its children."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=2)

    def error_text(self) -> str:
        """Return the end of what the worker wrote to standard error."""
        self.errors.seek(0)
        return self.errors.read()[-ERROR_CHARACTERS:]


class Supervisor:
    """Runs items and records their results and failures."""

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        records: Records,
        budget: Budget,
        item_limit: float,
    ) -> None:
        """Create a supervisor.

        Args:
            command: Starts a worker.
            folder: Current folder of the worker.
            records: Receives results and errors.
            budget: Budget of the run. An item may take at most a quarter of it.
            item_limit: Maximum seconds of an item without autotuning.
        """
        self.command, self.folder, self.records = command, folder, records
        self.budget, self.item_limit = budget, item_limit
        self.worker: Worker | None = None
        self.device: dict[str, Any] = {}
        self.start_seconds = 0.0
        self.deaths: Counter[Shape | None] = Counter()
        self.failed = 0

    def start(self) -> None:
        """Start a worker and wait until it is ready. `device` is then what it reported.

        Raises:
            WorkerDiedError: The worker ended or was not ready within the budget.
        """
        begin = time.monotonic()
        for attempt in range(START_ATTEMPTS):
            self.worker = Worker(self.command, self.folder)
            try:
                self.device = self.worker.reply(self.budget.left)
            except WorkerDiedError as error:
                text = self.worker.error_text()
                self.worker = None
                if attempt == START_ATTEMPTS - 1 or self.budget.left <= 0:
                    raise WorkerDiedError(f"no worker could be started: {error}\n{text}") from None
            else:
                self.start_seconds = time.monotonic() - begin
                return

    def run(self, items: Sequence[Item]) -> None:
        """Run items until none is left or none fits the budget.

        Raises:
            WorkerDiedError: No worker could be started.
        """
        waiting = deque(items)
        skipped: dict[str, list[str]] = {}
        try:
            while waiting:
                item = waiting[0]
                reason = self._reason_to_skip(item)
                if reason:
                    skipped.setdefault(reason, []).append(waiting.popleft().name)
                    continue
                if self.worker is None:
                    self.start()
                survived = self._run(item)
                waiting.popleft()
                if not survived:
                    # The shape's other items may end the worker too. Run them last.
                    self.deaths[item.shape] += 1
                    waiting = deque(sorted(waiting, key=lambda other: other.shape == item.shape))
        except WorkerDiedError:
            if self.budget.left > 0:
                raise
        finally:
            if waiting:
                skipped["the run ended"] = [item.name for item in waiting]
            for reason, names in skipped.items():
                self.records.append("skipped", reason=reason, items=names)

    def stop(self) -> None:
        """End the worker."""
        if self.worker:
            self.worker.kill()
            self.worker = None

    def _reason_to_skip(self, item: Item) -> str:
        """Return why an item must not start now; empty if it may."""
        # A tile is tried in any case, because the others' failures say little about it.
        if self.deaths[item.shape] >= MAX_DEATHS and item.candidate is None:
            return "the shape ended workers"
        return "" if self._fits(item) else "budget"

    def _fits(self, item: Item) -> bool:
        """Return whether an item is likely to end in time, with the start of a worker if needed."""
        first = FIRST_ESTIMATES.get(item.kind, 5.0)
        estimate = min(self.budget.estimate(item.size_class, first), self._limit(item))
        return (0.0 if self.worker else self.start_seconds) + estimate < self.budget.left

    def _limit(self, item: Item) -> float:
        """Return the maximum seconds of an item, whatever is left of the budget."""
        factor = AUTOTUNING_FACTOR if item.kind == "compile" else 1.0
        return min(factor * self.item_limit, self.budget.seconds / 4)

    def _run(self, item: Item) -> bool:
        """Run one item; return whether the worker survived."""
        assert self.worker
        begin, left = time.monotonic(), self.budget.left
        limit = min(self._limit(item), left)
        self.worker.send(item)
        try:
            while True:
                reply = self.worker.reply(begin + limit - time.monotonic())
                if "record" in reply:
                    self.records.append(item.kind, item=item.name, **reply["record"])
                    continue
                seconds = time.monotonic() - begin
                self.budget.spent(item.size_class, seconds)
                if reply.get("failed"):
                    self._error(item, reply["failed"], reply["text"], seconds)
                else:
                    self.records.append("done", item=item.name, seconds=round(seconds, 3))
                    print(f"done   {item.name} ({seconds:.1f} s)", flush=True)
                if not reply["usable"]:
                    self.stop()
                return self.worker is not None
        except WorkerDiedError as error:
            seconds = time.monotonic() - begin
            if "time limit" in str(error) and limit == left:
                self.records.append("skipped", reason="the budget ended", items=[item.name])
            else:
                text = self.worker.error_text()
                self._error(item, f"the worker {error} after {seconds:.1f} s", text, seconds)
            self.worker = None
            return False

    def _error(self, item: Item, reason: str, text: str, seconds: float) -> None:
        self.failed += 1
        self.records.append(
            "error",
            of=item.kind,
            item=item.name,
            reason=reason,
            text=text[-ERROR_CHARACTERS:],
            seconds=round(seconds, 3),
        )
        print(f"FAILED {item.name}: {reason}", flush=True)
