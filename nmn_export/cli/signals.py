"""What stops a command before its end."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """A signal asked the command to stop.

    Libraries that catch every `Exception` must not take it for one of theirs.

    Attributes:
        exit_code: The shell's for that signal.
    """

    def __init__(self, what: str, number: int, consequence: str) -> None:
        super().__init__(f"the {what} was stopped by {signal.Signals(number).name}{consequence}")
        self.exit_code = 128 + number


@contextmanager
def stopped_in_one_line(what: str, consequence: str = "; nothing was written") -> Iterator[None]:
    """Raise `Stopped` where the command stands when it is asked to stop.

    Args:
        what: The work that is stopped, as a noun.
        consequence: What that means for its results.
    """
    stopped: list[Stopped] = []

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        del frame
        stopped.append(Stopped(what, number, consequence))
        raise stopped[-1]

    before = {number: signal.signal(number, stop) for number in _STOPPING}
    try:
        yield
    except BaseException:
        # Where it was raised, a library may have made an error of its own of it.
        if stopped:
            raise stopped[-1] from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
