"""Signals that stop a command."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """A signal stopped the command.

    Not an `Exception`, because libraries that catch every `Exception` would swallow it.

    Attributes:
        exit_code: The shell's exit code for the signal.
    """

    def __init__(self, work: str, number: int, consequence: str) -> None:
        super().__init__(f"the {work} was stopped by {signal.Signals(number).name}{consequence}")
        self.exit_code = 128 + number


@contextmanager
def stopped_in_one_line(work: str, consequence: str = "; nothing was written") -> Iterator[None]:
    """Raise `Stopped` when the process receives a signal to stop.

    Args:
        work: The name of the work, a noun.
        consequence: What the stop means for the results.
    """
    stopped: list[Stopped] = []

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        del frame
        stopped.append(Stopped(work, number, consequence))
        raise stopped[-1]

    before = {number: signal.signal(number, stop) for number in _STOPPING}
    try:
        yield
    except BaseException:
        # A library may have converted the exception into its own.
        if stopped:
            raise stopped[-1] from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
