"""The process in which files are timed.

It is one of its own for two reasons: contestants in ONNX Runtime share one pool of threads, which
cannot be undone; and what kills TensorRT kills nothing else. What is pickled goes between two ends
of this module, through pipes that no one else has.
"""

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import IO

from nmn_export.errors import CheckError, NmnExportError
from nmn_export.report.bench import Benchmark, BenchRequest, measure

_START = "from nmn_export.report.bench_process import main; main()"

_ROUND = "round"


def measure_apart(
    request: BenchRequest, on_round: Callable[[], object] = lambda: None
) -> Benchmark:
    """Time files in a process of their own; see `bench.measure`."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(entry for entry in sys.path if entry))
    with (
        tempfile.TemporaryFile() as printed,
        subprocess.Popen(
            [sys.executable, "-P", "-c", _START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=printed,
            env=environment,
        ) as process,
    ):
        assert process.stdin
        assert process.stdout
        try:
            pickle.dump(request, process.stdin)
            process.stdin.close()
            result = _result(process.stdout, on_round)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
            raise _died(process.wait(), printed) from error
        finally:
            process.kill()
    if isinstance(result, Benchmark):
        return result
    kind, rule, got, fix = result
    raise kind(rule, got=got, fix=fix)


def _result(
    stream: IO[bytes], on_round: Callable[[], object]
) -> Benchmark | tuple[type[NmnExportError], str, str, str]:
    """Read what the process tells, rounds first, until it tells the result or an error's parts."""
    while (told := pickle.load(stream)) == _ROUND:
        on_round()
    return told  # type: ignore[no-any-return]


def _died(code: int, printed: IO[bytes]) -> NmnExportError:
    printed.seek(0)
    lines = printed.read().decode(errors="replace").strip().splitlines()
    ended = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return NmnExportError(
        "The process that times the files must live until it is done",
        got=f"{ended} ({lines[-1]})" if lines else ended,
        fix="Time the files one by one to see which it is.",
    )


def main() -> None:
    """Time what standard input asks for, and tell it on standard output."""
    stream = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what libraries print is not for the one who asked
    request: BenchRequest = pickle.load(sys.stdin.buffer)

    def tell(what: object) -> None:
        stream.write(pickle.dumps(what))

    try:
        tell(measure(request, lambda: tell(_ROUND)))
    except NmnExportError as error:
        kind = CheckError if isinstance(error, CheckError) else NmnExportError
        tell((kind, error.rule, error.got, error.fix))
