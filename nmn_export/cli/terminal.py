"""Output of commands: results go to standard output, progress to standard error."""

import contextlib
import io
import os
import sys
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from nmn_export.engine.process.messages import Message, Step

# A stream that was closed before the start is None. Its output is discarded.
if sys.stdout is None:
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - as long as the process
if sys.stderr is None:
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - as long as the process

# Without a terminal, the width is fixed.
out = Console(width=None if sys.stdout.isatty() else 180)
err = Console(stderr=True)


def flush() -> None:
    """Flush standard output while an error can still be reported.

    Raises:
        OSError: The output cannot be written. It is discarded.
    """
    try:
        sys.stdout.flush()
    except OSError:
        drop()
        raise


def drop() -> None:
    """Discard buffered output, which Python would try to write again at exit."""
    with contextlib.suppress(io.UnsupportedOperation), Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


class BuildProgress:
    """A progress bar for each active phase of a build, with TensorRT's messages above.

    Args:
        start: Description of the work before the first phase.
    """

    def __init__(self, start: str) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        # Without a terminal, Progress would print an empty line.
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

    def show(self, event: Step | Message) -> None:
        """Show the progress or a message of a build."""
        if isinstance(event, Message):
            line = f"{event.severity.lower()}: {event.text}"
            err.print(line, markup=False, highlight=False, soft_wrap=True)
            return
        if self._start is not None:
            self._progress.remove_task(self._start)
            self._start = None
        if event.phase not in self._bars:
            depth = self._depths.get(event.parent or "", -1) + 1
            self._depths[event.phase] = depth
            name = "  " * depth + event.phase
            self._bars[event.phase] = self._progress.add_task(name, total=event.total)
        self._progress.update(self._bars[event.phase], completed=event.done)
        if event.done == event.total:
            self._progress.remove_task(self._bars.pop(event.phase))
