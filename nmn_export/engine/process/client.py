"""The process that builds, seen from the one that wants an engine."""

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

# The package's own __init__ imports PyTorch, which takes seconds and which the process does not
# need: it gets an empty package in its place.
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
"""With which the lines of the plugin begin."""

_LAST_WORDS = 4096
"""Bytes at the end of what the process printed, in which its last line is looked for."""


class PluginRefusal(NmnExportError):  # noqa: N818 - the plugin is right
    """TensorRT failed because the plugin does not take what it is to compute.

    Attributes:
        words: The plugin's own.
    """

    def __init__(self, failed: Failed, words: str) -> None:
        super().__init__(failed.rule, got=words, fix="Say --plugin off.")
        self.words = words


class BuildProcess:
    """A process with TensorRT in it, and the folder it shares with this one; both end with it.

    Args:
        package: The package to import there, see `choose_package`.

    Attributes:
        folder: The shared folder.

    Raises:
        NmnExportError: There can be no such folder where TMPDIR says.
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
            # Ctrl-C is for this process, which then ends the other.
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
            with contextlib.suppress(BrokenPipeError):  # of a request that was never read
                stream.close()  # type: ignore[union-attr]
        self._temporary.cleanup()

    def ready(self) -> Ready:
        """Wait until TensorRT is loaded, and return what it says of itself."""
        for report in self._reports():
            if isinstance(report, Ready):
                return report
        raise self._died()

    def build(self, request: BuildRequest) -> Iterator[Report]:
        """Ask for an engine, and yield what is told until it is there.

        Raises:
            NmnExportError: It cannot be built, or the process came to an end before it was.
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
        """Return the layers of the engine that was built, or `None` if it does not load here.

        That is no reason to lose the engine, even if TensorRT dies of it.
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
                if words := self._plugin_words():
                    raise PluginRefusal(report, words)
                raise NmnExportError(report.rule, got=report.got, fix=report.fix)
            if isinstance(report, Message) and report.severity.endswith("ERROR"):
                self._errors.append(report.text)
            yield report

    def _plugin_words(self) -> str:
        """Return what the plugin said last; TensorRT-RTX gives it no logger, and it prints."""
        told = (*self._errors, *self._printed())
        lines = [line for line in told if line.startswith(_PLUGIN)]
        return lines[-1].removeprefix(_PLUGIN) if lines else ""

    def _printed(self) -> list[str]:
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - _LAST_WORDS))
        return self._stderr.read().decode(errors="replace").strip().splitlines()

    def _died(self) -> NmnExportError:
        code = self._process.wait()
        printed = self._printed()
        words = [*self._errors[-1:], *printed[-1:]]
        if code == -signal.SIGKILL:
            words.insert(0, "out of memory, if nobody killed it")
        ended = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        told = "; ".join(words)
        return NmnExportError(
            "The process that builds the engine must live until it is built",
            got=f"{ended}{f' ({told})' if told else ''}",
            fix="Nothing was written. Try again; if it ends so again, with --verbosity verbose.",
        )


def _environment(package: str, folder: Path) -> dict[str, str]:
    """Return the environment of the process: the same packages are found there as here.

    The parser of tensorrt_rtx opens `libtensorrt_rtx.so` when it meets a plugin, and dies if there
    is none; the wheel has the library under the name `libtensorrt_rtx.so.1` only.
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
    """Make a report of what JSON left of it."""
    parts: dict[str, Any] = {"layers": Layer, "inputs": TensorInfo, "outputs": TensorInfo}
    whole = {
        key: [parts[key](**item) for item in value] if key in parts and value else value
        for key, value in values.items()
    }
    return kind(**whole)
