"""Errors for the user, each in one line: the rule, what was got, what to do."""


class NmnExportError(Exception):
    """An error that the user can correct.

    Args:
        rule: The rule that was broken, as a sentence without its full stop.
        got: What was found instead.
        fix: What to do about it.
    """

    exit_code = 2

    def __init__(self, rule: str, *, got: object, fix: str) -> None:
        self.rule, self.got, self.fix = rule, str(got), fix
        message = f"{rule}; got {got}. {fix}"
        super().__init__(" ".join(message.split()))


class OptionError(NmnExportError, ValueError):
    """A layer was given an option that it cannot have.

    It is a `ValueError` too, which the layers of the `nmn` package raise.
    """


class CheckError(NmnExportError):
    """The input was valid, but a check of the result failed."""

    exit_code = 1
