"""Open an engine file, or report in one line why it does not run on this machine."""

import importlib.util
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nmn_export.engine.gpu import format_capability
from nmn_export.engine.plugin_library import VARIABLE, find_plugin_library
from nmn_export.engine.record import EngineRecord, read_record, record_path
from nmn_export.engine.tensorrt_api import load_package, load_plugins, make_logger
from nmn_export.errors import NmnExportError
from nmn_export.ops import OPS, PLUGIN_ATTRIBUTES

_EXTRAS = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}
"""Packages that run engines, in the order of preference, with the extras that install them."""

_LONGEST = 300
"""Maximum length of a TensorRT message in an error."""


@dataclass(frozen=True)
class OpenEngine:
    """An engine and the objects that must outlive it.

    Attributes:
        trt: The package that runs it.
        runtime: The `IRuntime`, which owns the plugins.
        engine: The `ICudaEngine`.
        log: The errors that TensorRT logged.
        record: The record of the engine, or `None` without a JSON record.
    """

    trt: Any
    runtime: Any
    engine: Any
    log: "Log"
    record: EngineRecord | None = None


class Log:
    """Collects TensorRT's error messages, which it logs instead of raising."""

    def __init__(self) -> None:
        self._errors: list[str] = []

    def __call__(self, severity: str, text: str) -> None:
        """Log a message. The severity is in capitals."""
        if severity.endswith("ERROR"):
            self._errors.append(" ".join(text.split())[:_LONGEST])

    def take(self) -> str:
        """Return the first error since the last call; later ones are its consequences."""
        message = self._errors[0] if self._errors else "no reason from TensorRT"
        self._errors.clear()
        return message


def open_engine(path: Path, plugin_library: Path | None, device: int) -> OpenEngine:
    """Open an engine. Check the file first, then the GPU, then TensorRT.

    Args:
        path: The engine. Its JSON record specifies the package that built it. Without a record, the
            installed packages are tried.
        plugin_library: Path of the plugin library; see `find_plugin_library` for `None`.
        device: Number of the GPU.

    Raises:
        NmnExportError: The file is missing or damaged, there is no GPU, TensorRT is another
            version than the one that built the engine, or it cannot load the engine.
    """
    if not path.is_file():
        raise NmnExportError(
            "An engine is a file", got=f"no file '{path}'", fix="Build it with `nmn-export build`."
        )
    record = read_record(path) if record_path(path).is_file() else None
    need_gpu("An engine", device)
    trt = load_package(_package_for(record))
    if record is not None:
        _check_version(record, trt.__version__)
    log = Log()
    with torch.cuda.device(device):
        runtime = trt.Runtime(make_logger(trt, log))
        _provide_plugins(trt, runtime, record, plugin_library, device)
        plan = path.read_bytes()
        _check_validity(trt, runtime, plan, device, log)
        engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise _unloadable(trt, log.take())
    return OpenEngine(trt, runtime, engine, log, record)


def need_gpu(user: str, device: int = 0) -> None:
    """Raise an error unless PyTorch can use this GPU, which `user` needs."""
    if not torch.cuda.is_available():
        raise NmnExportError(
            f"{user} needs a machine with an NVIDIA GPU and a CUDA build of PyTorch",
            got=f"no GPU that PyTorch {torch.__version__} can use",
            fix="Run it on such a machine; `nmn-export inspect` needs no GPU.",
        )
    if device >= torch.cuda.device_count():
        raise NmnExportError(
            f"The GPUs of this machine are numbered from 0 to {torch.cuda.device_count() - 1}",
            got=device,
            fix="Use one of these numbers.",
        )


def _package_for(record: EngineRecord | None) -> str:
    wanted = [record.tensorrt_package] if record is not None else list(_EXTRAS)
    found = [name for name in wanted if name in _EXTRAS and importlib.util.find_spec(name)]
    if not found:
        built = f" {record.tensorrt}, which built it" if record is not None else ""
        raise NmnExportError(
            f"This engine needs the package {' or '.join(wanted)}{built}",
            got="no such package",
            fix=f"Run: pip install 'nmn-export[{_EXTRAS.get(wanted[0], 'tensorrt')}]'",
        )
    return found[0]


def _check_version(record: EngineRecord, version: str) -> None:
    """Check the version: the one that built the engine, or later for an embedded plugin."""
    package, built = record.tensorrt_package, record.tensorrt
    # With `tensorrt`, an engine with an embedded plugin is version-compatible.
    later = package == "tensorrt" and record.plugin.embedded and _parts(version) >= _parts(built)
    if version != built and not later:
        raise NmnExportError(
            "An engine runs in the version of TensorRT that built it",
            got=f"{package} {version} here and {built} in the engine",
            fix=f"Build it again on this machine, or run: pip install '{package}=={built}'",
        )


def _parts(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def _provide_plugins(
    trt: Any, runtime: Any, record: EngineRecord | None, library: Path | None, device: int
) -> None:
    """Register the plugins, unless they are embedded or not needed."""
    if record is None:
        found = find_plugin_library(library)
        if found is not None:
            load_plugins(trt, runtime, str(found.path))
        return
    if record.plugin.embedded:
        runtime.engine_host_code_allowed = True
        return
    if not record.plugin.layers:
        return
    found = find_plugin_library(library)
    if found is None:
        raise NmnExportError(
            f"{record.plugin.layers} layers of this engine need the plugins {_plugins(OPS)}",
            got="no plugin library",
            fix=f"Build it with `make plugin`, or specify it with --plugin-library or {VARIABLE}.",
        )
    if found.version != record.plugin.version:
        raise NmnExportError(
            "The plugin library must be of the version that the engine was built with",
            got=f"{found.version} in '{found.path}' and {record.plugin.version} in the engine",
            fix="Build the engine again, or specify the other library with --plugin-library.",
        )
    major, minor = torch.cuda.get_device_capability(device)
    if not found.runs_on(10 * major + minor):
        raise NmnExportError(
            "The plugin library must have kernels for this GPU",
            got=f"capability {major}.{minor}, and kernels for "
            + ", ".join(format_capability(c) for c in found.capabilities),
            fix="Build the library again with kernels for this GPU.",
        )
    _check_registered(found.path, load_plugins(trt, runtime, str(found.path)))


def _check_registered(library: Path, registered: set[tuple[str, str, str]]) -> None:
    version, namespace = PLUGIN_ATTRIBUTES["plugin_version"], PLUGIN_ATTRIBUTES["plugin_namespace"]
    missing = [name for name in OPS if (name, version, namespace) not in registered]
    if missing:
        names = ", ".join(name for name, *_ in sorted(registered))
        raise NmnExportError(
            f"The plugin library must have the plugins {_plugins(missing)}",
            got=f"{names or 'none'} in '{library}'",
            fix="Build it again with `make plugin`.",
        )


def _plugins(names: Iterable[str]) -> str:
    version, namespace = PLUGIN_ATTRIBUTES["plugin_version"], PLUGIN_ATTRIBUTES["plugin_namespace"]
    return f"{', '.join(names)} of version {version} in namespace {namespace}"


def _check_validity(trt: Any, runtime: Any, plan: bytes, device: int, log: Log) -> None:
    """Check the engine with `get_engine_validity`, if the package has it."""
    if not hasattr(runtime, "get_engine_validity"):
        return
    validity, diagnostics = runtime.get_engine_validity(plan[: runtime.engine_header_size])
    if validity != trt.EngineValidity.INVALID:
        return
    flags = trt.EngineInvalidityDiagnostics.__members__
    reasons = [name for name, flag in flags.items() if diagnostics & int(flag)]
    details = ", ".join(reasons).lower().replace("_", " ") or log.take()
    gpu = ".".join(map(str, torch.cuda.get_device_capability(device)))
    raise NmnExportError(
        f"{trt.__name__} {trt.__version__} must be able to run the engine on this GPU",
        got=f"{details} (capability {gpu})",
        fix="Build it again on this machine, or for this capability.",
    )


def _unloadable(trt: Any, message: str) -> NmnExportError:
    if re.search(r"plugin", message, re.IGNORECASE):
        fix = "Specify the library that has this plugin with --plugin-library."
    else:
        fix = "Build it again on this machine; the file may be damaged, or for another GPU."
    return NmnExportError(f"{trt.__name__} must be able to load the engine", got=message, fix=fix)
