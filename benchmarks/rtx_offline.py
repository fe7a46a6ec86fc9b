"""TensorRT-RTX on a GPU machine without a network.

    python benchmarks/rtx_offline.py pack OUT_DIR [--python-version 3.12]   # here, with a network
    python benchmarks/rtx_offline.py install PIECES_DIR TARGET_DIR          # there
    python benchmarks/rtx_offline.py measure TARGET_DIR --out DIR           # there

`pack` writes OUT_DIR/pieces: TensorRT-RTX, nmn_export with the plugin library, the packages that it
needs beside PyTorch and NumPy, and ONNX files to measure. `install` needs Python only; it may be
called several times with some of the pieces each. `measure` answers one question after the other,
each in its own process, and writes each answer to DIR/rtx.jsonl before it asks the next one.

Exit code: 0, or 1 if a question was not answered, or 2 for an error of the user.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this file is run by its path

from benchmarks.gpu_items import Budget, run_item
from benchmarks.gpu_records import Records
from benchmarks.rtx_pieces import PIECES, RtxError, cut, install, installed_python, running_python

ROOT = Path(__file__).resolve().parents[1]

PIECE_SIZE = 55 * 2**20
"""Bytes of a piece at most. A machine that takes 64 MiB per transfer can take one."""

SOURCES = ("tensorrt_rtx", "tensorrt_rtx_cu13")
"""Packages of TensorRT-RTX without wheels on PyPI. They contain Python only."""

PACKAGES = (
    "tensorrt_rtx_cu13_bindings", "tensorrt_rtx_cu13_libs", "onnx", "onnxscript", "onnx-ir",
    "ml_dtypes", "protobuf", "safetensors", "packaging", "typing_extensions", "typer",
    "annotated-doc", "shellingham", "rich", "markdown-it-py", "mdurl", "Pygments", "pydantic",
    "pydantic_core", "annotated-types", "typing-inspection",
)  # fmt: skip
"""Wheels of TensorRT-RTX, and what nmn_export needs beside PyTorch, NumPy and Triton."""

PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux2014_x86_64")

LIBRARY = ROOT / "nmn_export/engine/libnmn_plugin.so"

ENGINES = "engines"
"""Folder in TARGET_DIR that `rtx_measure` writes engines to."""

WORKER = ROOT / "benchmarks/rtx_measure.py"

NETWORKS = [(dtype, batch) for batch in ("8", "1") for dtype in ("float16", "float32")]

QUESTIONS: tuple[tuple[str, ...], ...] = (
    ("versions",),
    ("runtime",),
    ("engine", "linear-layer", "off", "4"),
    ("engine", "dense-layer", "require", "4"),
    ("layers", "dense-layer", "require", "4"),
    *(
        question
        for dtype, batch in NETWORKS
        for question in (
            ("engine", f"resnet18-{dtype}", "require", batch),
            ("layers", f"resnet18-{dtype}", "require", batch),
            ("engine", f"resnet18-{dtype}", "off", batch),
            ("engine", f"resnet18-linear-{dtype}", "off", batch),
            ("timing", dtype, batch),
        )
    ),
)
"""Functions of `rtx_measure` and their arguments, in the order in which they are asked."""


def pack(out: Path, python: str) -> str:
    """Write the pieces to a folder; wheels that an earlier call downloaded are used again."""
    if not LIBRARY.is_file():
        raise RtxError(f"The plugin library must be built; got no '{LIBRARY}'. Run `make plugin`.")
    downloads, own, subjects = out / f"wheels-{python}", out / "nmn_export", out / "subjects"
    wheels = [_wheel(name, downloads, python) for name in (*SOURCES, *PACKAGES)]
    own.mkdir(parents=True, exist_ok=True)
    for earlier in own.iterdir():
        earlier.unlink()
    _run(
        sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(own), str(ROOT)
    )
    wheels += own.iterdir()
    for wheel in wheels:
        _check_unpackable(wheel)
    _run(sys.executable, "-m", "benchmarks.rtx_subjects", str(subjects.absolute()))
    count = cut(wheels, list(subjects.iterdir()), out / PIECES, PIECE_SIZE, python)
    size = sum(file.stat().st_size for file in (out / PIECES).iterdir())
    return f"{count} pieces, {size / 2**20:.0f} MiB, in {out / PIECES}"


def _wheel(name: str, folder: Path, python: str) -> Path:
    """Return the wheel of a package in the version that constraints.txt pins."""
    pins = (ROOT / "constraints.txt").read_text()
    pin = re.search(rf"^{re.escape(name)}==(\S+)$", pins, re.MULTILINE)
    if pin is None:
        raise RtxError(f"constraints.txt must pin every package; got no version of {name}. Add it.")
    start = f"{re.sub('[-.]', '_', name).lower()}-{pin[1]}-"
    if not _starting_with(start, folder):
        requirement = pin[0]
        if name in SOURCES:
            command = ["wheel"]
        else:
            command = ["download", "--only-binary=:all:", "--implementation", "cp"]
            command += ["--python-version", python]
            command += [f"--platform={platform}" for platform in PLATFORMS]
        command += ["-q", "--no-deps", f"--{'wheel-dir' if name in SOURCES else 'dest'}={folder}"]
        _run(sys.executable, "-m", "pip", *command, requirement)
    return _starting_with(start, folder)[0]


def _starting_with(start: str, folder: Path) -> list[Path]:
    return [f for f in folder.glob("*.whl") if f.name.lower().startswith(start)]


def _run(*command: str) -> None:
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RtxError(f"`{' '.join(command[1:])}` must succeed; got: {last}")


def _check_unpackable(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as content:
        data = [name for name in content.namelist() if ".data/" in name.partition("/")[0] + "/"]
    if data:
        raise RtxError(f"A wheel must contain packages only; got '{data[0]}' in {wheel.name}.")


def measure(target: Path, out: Path, seconds: float, limit: float) -> int:
    """Ask all questions and write the answers; return how many were not answered.

    Args:
        target: Folder that `install` completed.
        out: Folder of `rtx.jsonl`, to which the answers are added.
        seconds: Time for all of them.
        limit: Seconds after which a question is given up.
    """
    python = installed_python(target)
    if python != running_python():
        raise RtxError(
            f"The packages in '{target}' are for Python {python}; got {running_python()}. "
            "Run that Python, or pack with --python-version."
        )
    try:
        records = Records(out / "rtx.jsonl")
    except OSError as error:
        raise RtxError(
            f"--out must be a writable folder; got '{out}': {error.strerror}."
        ) from error
    shutil.rmtree(target / ENGINES, ignore_errors=True)  # of an earlier run
    paths = os.pathsep.join(filter(None, (str(target.absolute()), os.environ.get("PYTHONPATH"))))
    start = ["env", f"PYTHONPATH={paths}", sys.executable, "-P", str(WORKER)]
    budget, failed = Budget(seconds), 0
    for question in QUESTIONS:
        kind, item = question[0], " ".join(question)
        if not budget.fits(kind):
            records.append("skipped", of=kind, item=item, reason="budget")
            answered = False
        else:
            command = [*start, str(target.absolute()), *question]
            answered = run_item(records, budget, kind, item, command, limit)
        print(f"{'done' if answered else 'FAILED':7}{item}", flush=True)
        failed += not answered
    print(f"{failed} of {len(QUESTIONS)} questions were not answered; {records.file}")
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="download, export and cut into pieces")
    packing.add_argument("out", type=Path, metavar="OUT_DIR")
    packing.add_argument("--python-version", default="3.12", help="of the GPU machine")
    installing = commands.add_parser("install", help="join the pieces and unpack them")
    installing.add_argument("source", type=Path, metavar="PIECES_DIR")
    installing.add_argument("target", type=Path, metavar="TARGET_DIR")
    measuring = commands.add_parser("measure", help="build, check and time engines")
    measuring.add_argument("target", type=Path, metavar="TARGET_DIR")
    measuring.add_argument("--out", type=Path, required=True, help="folder of rtx.jsonl")
    measuring.add_argument("--budget", type=float, default=600, help="seconds of the whole run")
    measuring.add_argument("--limit", type=float, default=180, help="seconds of one question")
    options = parser.parse_args(arguments)
    try:
        if options.command == "pack":
            print(pack(options.out, options.python_version))
        elif options.command == "install":
            print(install(options.source, options.target))
        else:
            return bool(measure(options.target, options.out, options.budget, options.limit))
    except (RtxError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
