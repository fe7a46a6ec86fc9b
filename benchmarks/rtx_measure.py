"""Answer one question about TensorRT-RTX: rtx_measure.py TARGET_DIR QUESTION [ARGUMENT …].

The answer is one JSON object on standard output. The exit code is 1 if there is none, or if the
outputs of an engine are wrong. `rtx_offline measure` asks all questions, each in its own process.
"""

import dataclasses
import functools
import hashlib
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorrt_rtx as trt  # before PyTorch, which takes seconds: if this fails, nothing else works

# ruff: isort: split
import numpy as np

import nmn_export
from nmn_export import BuilderOptions, NmnExportError, bench, build, run
from nmn_export.report.compare import error
from nmn_export.report.machine import gpu, machine

Answer = dict[str, Any]

LIBRARY = Path(nmn_export.__file__).parent / "engine/libnmn_plugin.so"


def versions(_: Path) -> Answer:
    """Return the GPU, and the versions of what is measured."""
    digest = hashlib.sha256(LIBRARY.read_bytes()).hexdigest()
    return {
        "gpu": gpu(),
        "machine": machine(),
        "tensorrt_rtx": trt.__version__,
        "nmn_export": str(Path(nmn_export.__file__).parent),
        "plugin_sha256": digest,
    }


def runtime(_: Path) -> Answer:
    """Create a builder and a runtime on this GPU."""
    logger = trt.Logger(trt.Logger.WARNING)
    trt.Builder(logger).create_builder_config()
    trt.Runtime(logger)
    return {"compute_capabilities_by_name": list(trt.ComputeCapability.__members__)}


def engine(target: Path, subject: str, plugin: str, batch: str) -> Answer:
    """Build an engine for this GPU, run it, and compare the outputs with float64."""
    with np.load(target / "subjects" / f"{subject}.npz") as arrays:
        x, truth = arrays["x"][: int(batch)], arrays["truth"][: int(batch)]
        limit = float(arrays["limit"])
    file = engine_file(target, subject, plugin, batch)
    file.parent.mkdir(exist_ok=True)
    start = time.perf_counter()
    built = build(
        target / "subjects" / f"{subject}.onnx",
        file,
        shapes={"x": x.shape},
        plugin=plugin,  # type: ignore[arg-type]
        tensorrt="tensorrt-rtx",
        options=BuilderOptions(profiling_verbosity="detailed"),
    )
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    (y,) = run(file, {"x": x}).values()
    found = error(y, truth)
    return {
        "build_seconds": seconds,
        "first_run_seconds": time.perf_counter() - start,
        "engine_bytes": file.stat().st_size,
        "plugin_layers": built.record.plugin.layers,
        "decomposed": built.record.plugin.decomposed,
        "error": found if math.isfinite(found) else None,
        "limit": limit,
        "passed": found <= limit,
    }


def layers(target: Path, subject: str, plugin: str, batch: str) -> Answer:
    """Return what the engine inspector says of the plugin layers: tactics, formats and dtypes."""
    running = trt.Runtime(trt.Logger(trt.Logger.WARNING))
    running.get_plugin_registry().load_library(str(LIBRARY))
    file = engine_file(target, subject, plugin, batch)
    if not file.is_file():
        raise _not_built(file)
    opened = running.deserialize_cuda_engine(file.read_bytes())
    if opened is None:
        raise NmnExportError(
            "TensorRT-RTX must be able to load the engine", got=f"'{file}'", fix="See its message."
        )
    inspector = opened.create_engine_inspector()
    information = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    found = information["Layers"]
    # An inspector that does not call them plugins still gives the names of the ⵟ layers.
    ours = [x for x in found if any(word in json.dumps(x).lower() for word in ("plugin", "yat"))]
    return {"layers": len(found), "plugin_layers": ours, "first_layers": found[:3]}


def timing(target: Path, dtype: str, batch: str) -> Answer:
    """Time the engines that were built: the linear twin, without the plugin, with the plugin."""
    network = f"resnet18-{dtype}"
    files = {
        "linear": engine_file(target, f"resnet18-linear-{dtype}", "off", batch),
        "bodies": engine_file(target, network, "off", batch),
        "plugin": engine_file(target, network, "require", batch),
    }
    there = [name for name, file in files.items() if file.is_file()]
    if not there:
        raise _not_built(*files.values())
    with np.load(target / "subjects" / f"{network}.npz") as arrays:
        inputs = {"x": arrays["x"][: int(batch)]}
    answer: Answer = {"engines": there, "missing": [name for name in files if name not in there]}
    # The linear network computes something else, so no error is too large.
    timed = functools.partial(bench, [files[name] for name in there], inputs, tolerance=math.inf)
    try:
        result = timed()
    except NmnExportError as failure:
        answer["cuda_graph_error"] = str(failure)
        result = timed(cuda_graph=False)
    return answer | dataclasses.asdict(result) | {"tolerance": None}


def engine_file(target: Path, subject: str, plugin: str, batch: str) -> Path:
    """Return where an engine lies."""
    return target / "engines" / f"{subject}-{plugin}-{batch}.engine"


def _not_built(*files: Path) -> NmnExportError:
    return NmnExportError(
        "An engine must have been built by an earlier question",
        got=f"no {', '.join(file.name for file in files)}",
        fix="Their records have the reason.",
    )


QUESTIONS: dict[str, Callable[..., Answer]] = {
    f.__name__: f for f in (versions, runtime, engine, layers, timing)
}


def main(target: str, question: str, *arguments: str) -> int:
    try:
        answer = QUESTIONS[question](Path(target), *arguments)
    except NmnExportError as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    print(json.dumps(answer, default=str), flush=True)
    if answer.get("passed", True):
        return 0
    print("error: The outputs are beyond the limit.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
