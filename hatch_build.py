"""What a wheel carries beside the Python sources: the plugin library, where it has been built."""

import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LIBRARY = "nmn_export/engine/libnmn_plugin.so"


class PluginLibraryHook(BuildHookInterface[Any]):
    """Adds the library that `make plugin` built; such a wheel is for this platform only."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Change `build_data` in place; see hatchling."""
        library = Path(self.root, LIBRARY)
        if version == "editable" or not library.is_file():
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        build_data["force_include"][str(library)] = LIBRARY
