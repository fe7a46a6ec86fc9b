"""Plugin assignment: which ⵟ ops the plugin computes, and which are decomposed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

from nmn_export.engine.gpu import format_capability
from nmn_export.engine.graph.decomposition import decompose
from nmn_export.engine.graph.nodes import check_nodes, name_nodes, yat_nodes
from nmn_export.engine.graph.weights import prepare_for_plugin
from nmn_export.engine.plugin_library import PluginLibrary, find_plugin_library
from nmn_export.engine.process.messages import Network
from nmn_export.engine.record import FileRecord, PluginMode, PluginRecord
from nmn_export.engine.tensorrt_api import PLUGIN_LAYER
from nmn_export.errors import CheckError, NmnExportError


@dataclass(frozen=True)
class PluginAssignment:
    """How the ⵟ ops of a model are divided between the plugin and standard ops.

    Attributes:
        mode: The requested plugin mode.
        names: Names of all ⵟ nodes of the model.
        reasons: Why a node is decomposed, by node name; empty with mode "off".
        library: The plugin library, or `None` if no op needs it.
    """

    mode: PluginMode
    names: frozenset[str]
    reasons: dict[str, str]
    library: PluginLibrary | None

    def count(self, network: Network, embedded: bool) -> PluginRecord:
        """Count the ⵟ ops that are plugin layers in the network that TensorRT parsed.

        Raises:
            CheckError: An assigned op is not a plugin layer, and mode is "require".
            NmnExportError: An assigned op is not a plugin layer, in another mode.
        """
        layers = [layer.name for layer in network.layers if layer.type == PLUGIN_LAYER]
        in_plugin = self.names.intersection(layers)
        assigned = set() if self.library is None else self.names - set(self.reasons)
        if missing := sorted(assigned - in_plugin):
            raise self._missing_layers(missing)
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

    def _missing_layers(self, missing: Sequence[str]) -> NmnExportError:
        node, reason = f"'{missing[0]}'", "TensorRT made no plugin layer of it"
        if self.mode == "require":
            return not_in_plugin(node, reason, len(missing))
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        return NmnExportError(
            "An op whose weights are prepared for the plugin must become a plugin layer",
            got=f"{node}: {reason}{more}",
            fix="Use --plugin off to decompose all ⵟ ops into standard ops.",
        )


def choose_library(
    mode: PluginMode, path: str | Path | None, embed_plugin: bool
) -> PluginLibrary | None:
    """Return the plugin library, or `None` with mode "off" or if none is found with mode "auto".

    Raises:
        NmnExportError: The library is required and missing, the options contradict each other, or
            the file is not a plugin library of this version.
    """
    if mode == "off":
        if embed_plugin or path:
            raise NmnExportError(
                "--plugin off builds an engine without the plugin",
                got="--embed-plugin" if embed_plugin else f"--plugin-library {path}",
                fix="Leave out one of the two.",
            )
        return None
    library = find_plugin_library(path)
    if library is None and (mode == "require" or embed_plugin):
        raise NmnExportError(
            "--plugin require and --embed-plugin need the plugin library",
            got="none",
            fix="Build it with `make plugin`, or specify it with --plugin-library.",
        )
    return library


def assign(
    model: onnx.ModelProto,
    mode: PluginMode,
    library: PluginLibrary | None,
    targets: Sequence[int],
    tf32: bool,
    refusal: str = "",
) -> tuple[ir.Model, PluginAssignment]:
    """Prepare the weights of the ops that the plugin computes, and decompose the others.

    Args:
        model: A model written by `export`, weights included.
        mode: The requested plugin mode.
        library: The result of `choose_library`.
        targets: Compute capabilities that the engine is built for.
        tf32: Whether float32 products may have reduced precision.
        refusal: Why the plugin rejected the model in an earlier attempt, if it did.

    Returns:
        The model for TensorRT's parser, and the assignment of its ⵟ ops.

    Raises:
        NmnExportError: The plugin is required and has no kernels for a target, a ⵟ node is invalid,
            or a node to decompose has no function body.
        CheckError: The plugin is required and does not support an op, or the model has no ⵟ op.
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
        reason = refusal or _why_unusable(library, targets, mode)
        reasons = (
            dict.fromkeys(names, reason)
            if reason
            else prepare_for_plugin(graph, "bf16x3" if tf32 else "bf16x6")
        )
    if mode == "require" and reasons:
        name, reason = min(reasons.items())
        raise not_in_plugin(f"'{name}'", reason, len(reasons))
    decomposed = names if mode == "off" else frozenset(reasons)
    decompose(graph, decomposed)
    used = None if decomposed == names else library
    return graph, PluginAssignment(mode, names, reasons, used)


def _why_unusable(library: PluginLibrary | None, targets: Sequence[int], mode: PluginMode) -> str:
    """Return why the library cannot be used for any op, or an empty string."""
    if library is None:
        return "there is no plugin library"
    lacking = [capability for capability in targets if not library.runs_on(capability)]
    if not lacking:
        return ""
    written = ", ".join(format_capability(c) for c in lacking)
    if mode == "require":
        available = ", ".join(format_capability(c) for c in library.capabilities)
        raise NmnExportError(
            f"The plugin library has kernels for {available}",
            got=f"compute capability {written} with --plugin require",
            fix="Remove it, or use --plugin auto.",
        )
    return f"the plugin library has no kernels for compute capability {written}"


def not_in_plugin(node: str, reason: str, count: int = 1) -> CheckError:
    """Return the error for a required plugin that does not compute an op."""
    more = f" (and {count - 1} more)" if count > 1 else ""
    return CheckError(
        "--plugin require requires the plugin to compute every ⵟ op",
        got=f"{node}, which it does not compute: {reason}{more}",
        fix="Fix that, or use --plugin auto to decompose it into standard ops.",
    )
