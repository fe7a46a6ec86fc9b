"""Check and time the fused kernels on a GPU: python -m benchmarks.gpu [--budget SECONDS] [NAME …].

Needs PyTorch and Triton only. First every kernel is compared with float64 and repeated. Then the
contestants are timed in turn, the most valuable shapes first; see `benchmarks.gpu_subjects`. Every
result is written to gpu.jsonl in the output folder before the next item starts. A kernel that is
wrong, raises, crashes or hangs is recorded with its error, and the run goes on. `--dry-run` runs
tiny shapes on a CPU in Triton's interpreter; its times mean nothing.

Exit code: 0, or 1 if an item failed, or 2 for a user error.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks import gpu_report
from benchmarks.gpu_items import Budget
from benchmarks.gpu_queue import KINDS, Item, all_items
from benchmarks.gpu_records import Records
from benchmarks.gpu_shapes import MODES
from benchmarks.gpu_supervisor import Supervisor, WorkerDiedError

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
RESERVE = 5.0
"""Seconds of the budget that are kept to end the worker and print the tables."""

FAULTS = ("wrong", "raise", "crash", "hang", "race")
DTYPES = sorted({dtype for dtype, _ in MODES.values()})


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line. A user error exits with code 2."""
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="parts of shape names; default: all shapes")
    add("--budget", type=float, default=480, help="seconds of the whole run (default: 480)")
    add("--limit", type=float, help="maximum seconds of one item (default: 60; dry run: 20)")
    add("--out", type=Path, help="output folder (default: $OUT, or benchmarks/results)")
    add("--only", action="append", default=[], metavar="KIND", help=f"of {', '.join(KINDS)}")
    add("--dtype", choices=DTYPES, help="default: all")
    add("--rounds", type=int, help="rounds of timing (default: 50; dry run: 3)")
    add("--resume", action="store_true", help="skip items that the output file has results of")
    add("--dry-run", action="store_true", help="tiny shapes on a CPU; kept only with --out or $OUT")
    add(
        "--inject-fault",
        nargs=2,
        action="append",
        default=[],
        metavar=("FAULT", "SHAPE"),
        help=f"self-test: break the kernel for a shape; FAULT is {', '.join(FAULTS)}",
    )
    options = parser.parse_args(arguments)
    if options.limit is None:
        options.limit = 20 if options.dry_run else 60
    if options.rounds is None:
        options.rounds = 3 if options.dry_run else 50
    options.only = [kind for value in options.only for kind in value.split(",")]
    for kind in options.only:
        if kind not in KINDS:
            parser.error(f"--only must be one of {', '.join(KINDS)}; got {kind}")
    for fault, _ in options.inject_fault:
        if fault not in FAULTS:
            parser.error(f"--inject-fault must be one of {', '.join(FAULTS)}; got {fault}")
    if options.rounds < 2:
        parser.error(f"--rounds must be at least 2; got {options.rounds}")
    for name in ("budget", "limit"):
        if not getattr(options, name) > 0:
            parser.error(f"--{name} must be positive; got {getattr(options, name):g}")
    return options


def selected(options: argparse.Namespace) -> list[Item]:
    """Return the items that the options select, the most valuable first."""

    def matches(item: Item) -> bool:
        return item.shape is None or (
            (not options.only or item.kind in options.only)
            and (not options.names or any(name in item.shape.name for name in options.names))
            and (not options.dtype or MODES[item.mode][0] == options.dtype)
        )

    return [item for item in all_items(options.dry_run) if matches(item)]


def main(arguments: Sequence[str] | None = None) -> int:
    start = time.monotonic()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options = parse(parser, arguments)
    items = selected(options)
    shapes = sorted({item.shape.name for item in items if item.shape})
    if not shapes:
        parser.error("no item matches the names and options; omit some of them")
    for _, name in options.inject_fault:
        if not any(name in shape for shape in shapes):
            parser.error(f"--inject-fault takes part of a shape's name; got {name}. "
                         f"The shapes are {', '.join(shapes)}")  # fmt: skip
    with ExitStack() as stack:
        folder, temporary = options.out or os.environ.get("OUT") or RESULTS, None
        if folder == RESULTS and options.dry_run:
            folder = temporary = stack.enter_context(tempfile.TemporaryDirectory())
        try:
            records = Records(Path(folder) / "gpu.jsonl")
        except OSError as error:
            parser.error(f"the output folder must be writable; got {folder}: {error.strerror}")
        command = [sys.executable, "-m", "benchmarks.gpu_worker", f"--rounds={options.rounds}"]
        command += ["--dry-run"] * options.dry_run
        for fault in options.inject_fault:
            command += ["--inject-fault", *fault]
        budget = Budget(options.budget, reserve=RESERVE, start=start)
        supervisor = Supervisor(command, ROOT, records, budget, options.limit)
        try:
            supervisor.start()
            if not supervisor.device["gpu"]:
                parser.error("no GPU was found; use --dry-run to try the script on a CPU")
            finished = records.finished() if options.resume else set()
            records.append("run", arguments=sys.argv[1:], **supervisor.device)
            supervisor.run([item for item in items if item.name not in finished])
        except WorkerDiedError as error:
            records.append("error", of="run", item="start", reason=str(error))
            supervisor.failed += 1
        except OSError as error:
            parser.error(f"results must be written to disk; got {error}. Free some space")
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            supervisor.failed += 1
        finally:
            supervisor.stop()
        for group in gpu_report.by_gpu([records.file]).values():
            print("\n" + gpu_report.render(group))
        kept = f"records in {records.file}" if folder != temporary else "records not kept"
        print(f"\n{supervisor.failed} failures in this run; {kept}")
    return 1 if supervisor.failed else 0


if __name__ == "__main__":
    # `timeout` sends SIGTERM. The run then ends its worker and prints the table, as on Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
