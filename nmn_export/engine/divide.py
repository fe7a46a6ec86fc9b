"""Which ⵟ ops of a model the plugin computes: what is asked for, and what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

from nmn_export.engine.plugin_library import PluginLibrary, find_plugin_library
from nmn_export.engine.prepare import (
    check_nodes,
    decompose,
    name_nodes,
    prepare_for_plugin,
    yat_nodes,
)
from nmn_export.engine.protocol import Network
from nmn_export.engine.record import FileRecord, PluginMode, PluginRecord
from nmn_export.engine.tensorrt_api import PLUGIN_LAYER
from nmn_export.errors import CheckError, NmnExportError


@dataclass(frozen=True)
class Division:
    """How the ⵟ ops of a model are divided between the plugin and standard ops.

    Attributes:
        mode: What was asked for.
        names: Of all ⵟ nodes that the file has.
        reasons: For each of those that are decomposed though the plugin was wanted, why.
        library: The library, or `None` if no op needs it.
    """

    mode: PluginMode
    names: frozenset[str]
    reasons: dict[str, str]
    library: PluginLibrary | None

    def count(self, network: Network, embedded: bool) -> PluginRecord:
        """Say how many ⵟ ops became layers of the plugin in the network that TensorRT parsed.

        Raises:
            CheckError: One did not, and was required to.
            NmnExportError: One did not, and has no body in the model.
        """
        layers = [layer.name for layer in network.layers if layer.type == PLUGIN_LAYER]
        in_plugin = self.names.intersection(layers)
        wanted = set() if self.library is None else self.names - set(self.reasons)
        if missing := sorted(wanted - in_plugin):
            raise self._not_made(missing)
        library = self.library
        return PluginRecord(
            mode=self.mode,
            layers=len(in_plugin),
            decomposed=len(self.names - in_plugin),
            reasons=self.reasons,
            library=FileRecord.of(library.path) if library else None,
            version=library.version if library else None,
            embedded=embedded and library is not None,
            others=[name for name in layers if name not in in_plugin],
        )

    def _not_made(self, missing: Sequence[str]) -> NmnExportError:
        what, why = f"'{missing[0]}'", "TensorRT made no plugin layer of it"
        if self.mode == "require":
            return not_in_plugin(what, why, len(missing))
        more = f" ({len(missing) - 1} more so)" if len(missing) > 1 else ""
        return NmnExportError(
            "An op whose weights are prepared for the plugin must become a layer of it",
            got=f"{what}: {why}{more}",
            fix="Say --plugin off to have all of them made of standard ops.",
        )


def library_for(
    mode: PluginMode, path: str | Path | None, embed_plugin: bool
) -> PluginLibrary | None:
    """Return the library, or `None` if it is not wanted, or not there and not required.

    Raises:
        NmnExportError: It is required and not there, or wanted and not wanted at once, or what is
            there is not ours.
    """
    if mode == "off":
        if embed_plugin or path:
            raise NmnExportError(
                "--plugin off makes an engine without the plugin",
                got="--embed-plugin" if embed_plugin else f"--plugin-library {path}",
                fix="Leave out one of the two.",
            )
        return None
    library = find_plugin_library(path)
    if library is None and (mode == "require" or embed_plugin):
        raise NmnExportError(
            "--plugin require and --embed-plugin need the plugin library",
            got="none",
            fix="Build it with `make plugin`, or name it with --plugin-library.",
        )
    return library


def divide(
    model: onnx.ModelProto,
    mode: PluginMode,
    library: PluginLibrary | None,
    targets: Sequence[int],
    tf32: bool,
    refusal: str = "",
) -> tuple[ir.Model, Division]:
    """Prepare the weights of the ops that the plugin computes, and decompose the others.

    Args:
        model: A file of ours, weights included.
        mode: What is asked for.
        library: What `library_for` returned.
        targets: Compute capabilities that the engine is for.
        tf32: Whether float32 products may be less exact.
        refusal: Why there is no library, if the plugin was tried.

    Returns:
        The model as TensorRT is to get it, and what became of its ⵟ ops.

    Raises:
        NmnExportError: The plugin is required, and has no kernels for a target; or a ⵟ node is
            damaged, or has no body and needs one.
        CheckError: The plugin is required, and does not compute an op, or there is none.
    """
    graph = ir.from_proto(model)
    check_nodes(graph)
    name_nodes(graph)
    names = frozenset(str(node.name) for node in yat_nodes(graph))
    if mode == "require" and not names:
        raise CheckError(
            "--plugin require needs a file with ⵟ ops",
            got="standard ops only",
            fix="Export it without --inline.",
        )
    reasons: dict[str, str] = {}
    if mode != "off":
        reason = refusal or _unusable(library, targets, mode)
        reasons = (
            dict.fromkeys(names, reason)
            if reason
            else prepare_for_plugin(graph, "bf16x3" if tf32 else "bf16x6")
        )
    if mode == "require" and reasons:
        name, why = min(reasons.items())
        raise not_in_plugin(f"'{name}'", why, len(reasons))
    decomposed = names if mode == "off" else frozenset(reasons)
    decompose(graph, decomposed)
    used = None if decomposed == names else library
    return graph, Division(mode, names, reasons, used)


def _unusable(library: PluginLibrary | None, targets: Sequence[int], mode: PluginMode) -> str:
    """Return why the library computes no op at all, or nothing."""
    if library is None:
        return "there is no plugin library"
    lacking = [capability for capability in targets if not library.runs_on(capability)]
    if not lacking:
        return ""
    written = ", ".join(written_capability(c) for c in lacking)
    if mode == "require":
        available = ", ".join(written_capability(c) for c in library.capabilities)
        raise NmnExportError(
            f"The plugin library has kernels for {available}",
            got=f"compute capability {written} with --plugin require",
            fix="Leave it out, or say --plugin auto.",
        )
    return f"the plugin library has no kernels for compute capability {written}"


def written_capability(capability: int) -> str:
    """Return 8.9 for 89."""
    return f"{capability // 10}.{capability % 10}"


def not_in_plugin(what: str, reason: str, count: int = 1) -> CheckError:
    """Return what to say where the plugin is required and does not compute an op."""
    more = f" ({count - 1} more so)" if count > 1 else ""
    return CheckError(
        "--plugin require wants the plugin to compute every ⵟ op",
        got=f"{what}, which it does not: {reason}{more}",
        fix="Mend that, or say --plugin auto to have it made of standard ops.",
    )
