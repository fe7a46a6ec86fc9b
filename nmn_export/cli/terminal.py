"""Where commands print: results to standard output, what is under way to standard error."""

import contextlib
import io
import os
import sys
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from nmn_export.engine.process.messages import Message, Step

# A stream that was closed from the start is missing; what nobody wants goes nowhere.
if sys.stdout is None:
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - as long as the process
if sys.stderr is None:
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - as long as the process

# Where nobody watches, lines are as long as they need to be.
out = Console(width=None if sys.stdout.isatty() else 180)
err = Console(stderr=True)


def flush() -> None:
    """Print what is still to be printed, now that a failure can be told.

    Raises:
        OSError: It cannot be printed, and will not be tried again.
    """
    try:
        sys.stdout.flush()
    except OSError:
        drop()
        raise


def drop() -> None:
    """Let what is still to be printed go nowhere: Python tries once more when it ends."""
    with contextlib.suppress(io.UnsupportedOperation), Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


class BuildProgress:
    """A bar for each phase of a build that is under way, and TensorRT's messages above them.

    Args:
        start: What is done before the first phase.
    """

    def __init__(self, start: str) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        # Where nobody watches there would be an empty line for it.
        self._progress = Progress(
            *columns, console=err, transient=True, disable=not err.is_terminal
        )
        self._bars: dict[str, TaskID] = {}
        self._depths: dict[str, int] = {}
        self._start: TaskID | None = self._progress.add_task(start, total=None)

    def __enter__(self) -> "BuildProgress":
        self._progress.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.__exit__(kind, error, trace)

    def show(self, told: Step | Message) -> None:
        """Show what a build reports."""
        if isinstance(told, Message):
            line = f"{told.severity.lower()}: {told.text}"
            err.print(line, markup=False, highlight=False, soft_wrap=True)
            return
        if self._start is not None:
            self._progress.remove_task(self._start)
            self._start = None
        if told.phase not in self._bars:
            depth = self._depths.get(told.parent or "", -1) + 1
            self._depths[told.phase] = depth
            name = "  " * depth + told.phase
            self._bars[told.phase] = self._progress.add_task(name, total=told.total)
        self._progress.update(self._bars[told.phase], completed=told.done)
        if told.done == told.total:
            self._progress.remove_task(self._bars.pop(told.phase))
