"""The compiled plugin library: its location and its description."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from nmn_export.errors import NmnExportError

FILE_NAME = "libnmn_plugin.so"

INSTALLED = Path(__file__).parent / FILE_NAME
"""The path that `make plugin` writes to."""

VARIABLE = "NMN_EXPORT_PLUGIN"
"""Environment variable with the path of another plugin library."""

_ELF_MAGIC = b"\x7fELF"

_DESCRIBE = """
import ctypes, sys
describe = ctypes.CDLL(sys.argv[1]).nmnPluginDescription
describe.restype = ctypes.c_char_p
sys.stdout.buffer.write(describe())
"""


@dataclass(frozen=True)
class PluginLibrary:
    """A library of TensorRT plugins for the ⵟ ops.

    Attributes:
        path: Absolute path of the file.
        sha256: SHA-256 of the file.
        version: Version of nmn_export that it belongs to.
        tensorrt_headers: Version of the TensorRT headers it was compiled with.
        capabilities: Compute capabilities that it has kernels for, 89 for 8.9.
        ptx: Lowest capability for which the driver can compile its PTX, or `None` without PTX.
    """

    path: Path
    sha256: str
    version: str
    tensorrt_headers: str
    capabilities: tuple[int, ...]
    ptx: int | None

    def runs_on(self, capability: int) -> bool:
        """Return whether the kernels run on a GPU. A cubin also runs on later minor versions."""
        if self.ptx is not None and capability >= self.ptx:
            return True
        return any(c // 10 == capability // 10 and c <= capability for c in self.capabilities)


def find_plugin_library(path: str | Path | None = None) -> PluginLibrary | None:
    """Return the plugin library, or `None` if there is none.

    Args:
        path: The file; by default the one in the environment variable NMN_EXPORT_PLUGIN, or else
            the one that `make plugin` writes into this package.

    Raises:
        NmnExportError: The specified file does not exist, or the file is not a plugin library of
            this version.
    """
    specified = path or os.environ.get(VARIABLE)
    file = Path(specified or INSTALLED).absolute()
    if file.is_file():
        return _read(file)
    if not specified:
        return None
    raise NmnExportError(
        "The plugin library must be a file",
        got=f"no file '{file}'",
        fix=f"Check --plugin-library and {VARIABLE}, or build it with `make plugin`.",
    )


def _read(file: Path) -> PluginLibrary:
    content = file.read_bytes()
    if not content.startswith(_ELF_MAGIC):
        raise _not_ours(file, "a file that is not a shared library")
    try:
        description = json.loads(_description(file))
        library = PluginLibrary(
            path=file,
            sha256=hashlib.sha256(content).hexdigest(),
            version=str(description["version"]),
            tensorrt_headers=str(description["tensorrt_headers"]),
            capabilities=tuple(int(c) for c in description["capabilities"]),
            ptx=int(description["ptx"]) if description.get("ptx") else None,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _not_ours(file, "a library without the description of ours") from error
    version = metadata.version("nmn-export")
    if library.version != version:
        raise NmnExportError(
            f"The plugin library must be of this version of nmn_export, {version}",
            got=f"version {library.version}: '{file}'",
            fix="Build it again with `make plugin`.",
        )
    return library


def _description(file: Path) -> bytes:
    """Return the library's description. A damaged library would crash this process on loading."""
    command = [sys.executable, "-I", "-c", _DESCRIBE, str(file)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise _not_ours(file, f"a library, perhaps cut off, that ends in {name} when it is loaded")
    if done.returncode > 0:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1]
        raise _not_ours(file, last.partition(": ")[2].removeprefix(f"{file}: "))
    return done.stdout


def _not_ours(file: Path, got: str) -> NmnExportError:
    return NmnExportError(
        f"The plugin library must be the {FILE_NAME} of nmn_export",
        got=f"{got}: '{file}'",
        fix="Build it with `make plugin`.",
    )
