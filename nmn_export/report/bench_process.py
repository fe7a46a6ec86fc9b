"""The process that times files.

The benchmark runs in a separate process for two reasons. ONNX Runtime sessions share a thread pool,
which cannot be undone in a process. And a crash of TensorRT must not end the caller. Both ends of
the pipes are in this module, so the pickled data comes from a trusted source.
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
    """Time files in a separate process; see `bench.measure`."""
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
    """Receive rounds from the process, then the result or the parts of an error."""
    while (message := pickle.load(stream)) == _ROUND:
        on_round()
    return message  # type: ignore[no-any-return]


def _died(code: int, printed: IO[bytes]) -> NmnExportError:
    printed.seek(0)
    lines = printed.read().decode(errors="replace").strip().splitlines()
    ended = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return NmnExportError(
        "The process that times the files must not end early",
        got=f"{ended} ({lines[-1]})" if lines else ended,
        fix="Time the files one by one to find the cause.",
    )


def main() -> None:
    """Read a request from standard input, and write the result to standard output."""
    stream = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # output of libraries must not mix with the messages
    request: BenchRequest = pickle.load(sys.stdin.buffer)

    def send(message: object) -> None:
        stream.write(pickle.dumps(message))

    try:
        send(measure(request, lambda: send(_ROUND)))
    except NmnExportError as error:
        kind = CheckError if isinstance(error, CheckError) else NmnExportError
        send((kind, error.rule, error.got, error.fix))
