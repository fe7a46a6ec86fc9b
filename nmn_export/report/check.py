"""Compare a file with the model it was exported from, as a whole and layer by layer."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx
from torch import nn

from nmn_export.errors import NmnExportError
from nmn_export.graph.names import LAYER_KEY
from nmn_export.layers.folded import FoldedYat
from nmn_export.ops import DOMAIN
from nmn_export.report.compare import Comparison, compare
from nmn_export.report.single_layer import (
    LAYER_INPUT,
    LayerOp,
    as_called,
    near_prototypes,
    one_node_model,
    op_dtype,
)
from nmn_export.runtime.arrays import Arrays, to_numpy
from nmn_export.runtime.inputs import check, check_inputs, draw, draw_inputs
from nmn_export.runtime.onnx_reference import OnnxReferenceRunner
from nmn_export.runtime.onnx_runtime import OnnxRuntimeRunner, Provider
from nmn_export.runtime.pytorch import EagerRunner, TruthRunner
from nmn_export.runtime.runner import Runner
from nmn_export.runtime.tensorrt import TensorRtRunner

SEED = 0


def check_file(
    model: onnx.ModelProto,
    path: Path,
    reference: nn.Module,
    inputs: Arrays | None,
    provider: Provider,
) -> Iterator[Comparison]:
    """Yield the comparisons of a file one by one.

    Args:
        model: The file's model, weights included.
        path: The file, which ONNX Runtime reads itself.
        reference: The folded module in the file's dtype.
        inputs: Arrays by name to compare on; if `None`, drawn from a standard normal distribution.
        provider: Where ONNX Runtime runs.

    Raises:
        NmnExportError: The inputs do not fit, a runtime is missing, or the reference has other
            layers than the file.
    """
    layers = _layers(model, reference)
    given = "given" if inputs is not None else "random"
    inputs = inputs if inputs is not None else draw_inputs(model, SEED)
    check_inputs(model, inputs)
    eager, truth = EagerRunner(reference), TruthRunner(reference)
    runtimes: list[Runner] = [OnnxRuntimeRunner(path, provider), OnnxReferenceRunner(model)]
    yield from compare("model", given, inputs, eager, truth, runtimes)
    for node, layer in layers:
        yield from _check_layer(model, node, layer, provider)


def check_engine(
    engine: TensorRtRunner, reference: nn.Module, inputs: Arrays | None
) -> list[Comparison]:
    """Compare an engine with the model it was built from as a whole, because its layers are fused.

    Args:
        engine: The engine.
        reference: The folded module in the engine's dtype.
        inputs: Arrays by name to compare on; if `None`, drawn in the engine's optimal shapes.

    Raises:
        NmnExportError: The inputs do not fit, or the reference has other outputs.
    """
    given = "given" if inputs is not None else "random"
    arrays = inputs if inputs is not None else draw(engine.inputs, SEED)
    check(engine.inputs, arrays)
    eager, truth = EagerRunner(reference), TruthRunner(reference)
    return compare("model", given, arrays, eager, truth, [engine])


def _check_layer(
    model: onnx.ModelProto, node: onnx.NodeProto, layer: FoldedYat, provider: Provider
) -> list[Comparison]:
    x = near_prototypes(layer, SEED).to(op_dtype(model, node))
    alone = one_node_model(model, node, x)
    op = LayerOp(as_called(layer, node))
    runtimes: list[Runner] = [OnnxRuntimeRunner(alone, provider), OnnxReferenceRunner(alone)]
    return compare(
        node.name,
        "near prototypes",
        {LAYER_INPUT: to_numpy(x)},
        EagerRunner(op),
        TruthRunner(op),
        runtimes,
    )


def _layers(model: onnx.ModelProto, reference: nn.Module) -> list[tuple[onnx.NodeProto, FoldedYat]]:
    """Pair the ⵟ nodes of the file with the layers of the reference, by name."""
    layers = {name: m for name, m in reference.named_modules() if isinstance(m, FoldedYat)}
    nodes = [node for node in model.graph.node if node.domain == DOMAIN]
    names = {node.name: _layer_name(node, layers) for node in nodes}
    unknown = [name for name in names.values() if name not in layers]
    if unknown:
        raise NmnExportError(
            "The reference must be the model that the file was exported from",
            got=f"no layer {', '.join(unknown[:5])} in it",
            fix="Name that model, with the same options.",
        )
    return [(node, layers[names[node.name]]) for node in nodes]


def _layer_name(node: onnx.NodeProto, layers: Mapping[str, FoldedYat]) -> str:
    """Return the path of a node's layer: "" if the whole reference is one layer."""
    path = next((p.value for p in node.metadata_props if p.key == LAYER_KEY), node.name)
    return "" if path not in layers and "" in layers else path
