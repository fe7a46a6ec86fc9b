"""The parent's side of the builder process: start it, send the request, receive the messages."""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from nmn_export.engine.process import messages
from nmn_export.engine.process.messages import (
    LIBRARIES,
    STDERR,
    BuildRequest,
    Failed,
    Inspected,
    Layer,
    Message,
    Ready,
    Report,
    TensorInfo,
)
from nmn_export.engine.process.temporary_folder import check_temporary_folder
from nmn_export.errors import NmnExportError

# The package's __init__ imports PyTorch, which takes seconds. The worker does not need it, so an
# empty package replaces ours.
_START = """
import sys, types
package = types.ModuleType("nmn_export")
package.__path__ = [sys.argv.pop(1)]
sys.modules["nmn_export"] = package
from nmn_export.engine.process.worker import main
main()
"""

_PACKAGE = Path(__file__).parents[2]

_PLUGIN = "nmn_plugin: "
"""Prefix of the lines that the plugin prints."""

_TAIL = 4096
"""Number of bytes at the end of the worker's stderr that are read for error messages."""


class PluginRefusal(NmnExportError):  # noqa: N818 - the plugin is right
    """TensorRT failed because the plugin does not support an op.

    Attributes:
        reason: The plugin's error message.
    """

    def __init__(self, failed: Failed, reason: str) -> None:
        super().__init__(failed.rule, got=reason, fix="Use --plugin off.")
        self.reason = reason


class BuildProcess:
    """The process that runs TensorRT, and the temporary folder shared with it.

    Leaving the context ends the process and removes the folder.

    Args:
        package: The TensorRT package to import; see `choose_package`.

    Attributes:
        folder: The shared folder.

    Raises:
        NmnExportError: The folder for temporary files is not usable.
    """

    def __init__(self, package: str) -> None:
        check_temporary_folder()
        self._temporary = tempfile.TemporaryDirectory(
            prefix="nmn_export.", ignore_cleanup_errors=True
        )
        self.folder = Path(self._temporary.name)
        self._errors: list[str] = []
        self._stderr = (self.folder / STDERR).open("w+b")
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START, str(_PACKAGE), package, str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env=_environment(package, self.folder),
            # Ctrl-C must reach the parent only, which then ends this process.
            process_group=0,
        )

    def __enter__(self) -> "BuildProcess":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            with contextlib.suppress(BrokenPipeError):  # the request was never read
                stream.close()  # type: ignore[union-attr]
        self._temporary.cleanup()

    def ready(self) -> Ready:
        """Wait until TensorRT is loaded, and return its version and capabilities."""
        for report in self._reports():
            if isinstance(report, Ready):
                return report
        raise self._died()

    def build(self, request: BuildRequest) -> Iterator[Report]:
        """Request an engine, and yield the worker's messages until it is built.

        Raises:
            NmnExportError: The engine cannot be built, or the process ended early.
        """
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(asdict(request)) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._died() from error
        for report in self._reports():
            yield report
            if isinstance(report, messages.Done):
                return
        raise self._died()

    def inspect(self) -> list[Layer] | None:
        """Return the layers of the built engine, or `None` if it does not load on this machine.

        If the process dies here, the engine is kept: it is already complete.
        """
        for report in self._reports():
            if isinstance(report, Inspected):
                return report.layers
        return None

    def _reports(self) -> Iterator[Report]:
        assert self._process.stdout
        for line in self._process.stdout:
            report = _read(line)
            if isinstance(report, Failed):
                if reason := self._plugin_error():
                    raise PluginRefusal(report, reason)
                raise NmnExportError(report.rule, got=report.got, fix=report.fix)
            if isinstance(report, Message) and report.severity.endswith("ERROR"):
                self._errors.append(report.text)
            yield report

    def _plugin_error(self) -> str:
        """Return the plugin's last message; under TensorRT-RTX it has no logger and prints it."""
        messages = (*self._errors, *self._printed())
        lines = [line for line in messages if line.startswith(_PLUGIN)]
        return lines[-1].removeprefix(_PLUGIN) if lines else ""

    def _printed(self) -> list[str]:
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - _TAIL))
        return self._stderr.read().decode(errors="replace").strip().splitlines()

    def _died(self) -> NmnExportError:
        code = self._process.wait()
        printed = self._printed()
        messages = [*self._errors[-1:], *printed[-1:]]
        if code == -signal.SIGKILL:
            messages.insert(0, "probably out of memory")
        ended = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        details = "; ".join(messages)
        return NmnExportError(
            "The process that builds the engine must not end before it is built",
            got=f"{ended}{f' ({details})' if details else ''}",
            fix="Nothing was written. Try again with --verbosity verbose.",
        )


def _environment(package: str, folder: Path) -> dict[str, str]:
    """Return the environment of the process, which finds the same packages as this one.

    The parser of tensorrt_rtx opens `libtensorrt_rtx.so` for a plugin node and aborts if the file
    is missing. The wheel contains `libtensorrt_rtx.so.1` only, hence the links.
    """
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(entry for entry in sys.path if entry)
    libraries = importlib.util.find_spec(f"{package}_libs")
    if libraries is not None and libraries.submodule_search_locations:
        links = folder / LIBRARIES
        links.mkdir()
        for place in libraries.submodule_search_locations:
            for library in Path(place).glob("*.so.*"):
                link = links / f"{library.name.partition('.so.')[0]}.so"
                if not link.exists():
                    link.symlink_to(library)
        paths = [str(links), environment.get("LD_LIBRARY_PATH", "")]
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, paths))
    return environment


def _read(line: str) -> Report:
    ((name, values),) = json.loads(line).items()
    return _revive(getattr(messages, name), values)  # type: ignore[no-any-return]


def _revive(kind: Any, values: dict[str, Any]) -> Any:
    """Create a message from its JSON values."""
    parts: dict[str, Any] = {"layers": Layer, "inputs": TensorInfo, "outputs": TensorInfo}
    whole = {
        key: [parts[key](**item) for item in value] if key in parts and value else value
        for key, value in values.items()
    }
    return kind(**whole)
