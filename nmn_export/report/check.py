"""Compare a file with the model it was exported from, as a whole and layer by layer."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx
from torch import nn

from nmn_export.errors import NmnExportError
from nmn_export.graph.names import LAYER_KEY
from nmn_export.layers.folded import FoldedYat
from nmn_export.layers.folded_attention import FoldedYatAttention
from nmn_export.ops import DOMAIN
from nmn_export.report.compare import Comparison, compare
from nmn_export.report.single_attention import AttentionOp, is_attention, near_keys
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


_Layer = FoldedYat | AttentionOp


def _check_layer(
    model: onnx.ModelProto, node: onnx.NodeProto, layer: _Layer, provider: Provider
) -> list[Comparison]:
    op: nn.Module
    if isinstance(layer, AttentionOp):
        op, kind, inputs = layer, "near keys", near_keys(model, node, layer, SEED)
    else:
        x = near_prototypes(layer, SEED).to(op_dtype(model, node))
        op, kind, inputs = LayerOp(as_called(layer, node)), "near prototypes", {LAYER_INPUT: x}
    alone = one_node_model(model, node, inputs)
    runtimes: list[Runner] = [OnnxRuntimeRunner(alone, provider), OnnxReferenceRunner(alone)]
    arrays = {name: to_numpy(t) for name, t in inputs.items()}
    return compare(node.name, kind, arrays, EagerRunner(op), TruthRunner(op), runtimes)


def _layers(model: onnx.ModelProto, reference: nn.Module) -> list[tuple[onnx.NodeProto, _Layer]]:
    """Pair the ⵟ nodes of the file with the layers of the reference, by name.

    The function `yat_attention` belongs to no layer. Its node says what it computes.
    """
    modules = dict(reference.named_modules())
    layers: dict[str, _Layer] = {}
    for name, module in modules.items():
        if isinstance(module, FoldedYatAttention):
            layers[name] = AttentionOp(module)
        elif isinstance(module, FoldedYat):
            layers[name] = module
    pairs, unknown = [], []
    for node in (node for node in model.graph.node if node.domain == DOMAIN):
        layer = _layer(node, layers, modules)
        if layer is None:
            unknown.append(_path(node) or node.name)
        else:
            pairs.append((node, layer))
    if unknown:
        raise NmnExportError(
            "The reference must be the model that the file was exported from",
            got=f"no layer {', '.join(unknown[:5])} in it",
            fix="Name that model, with the same options.",
        )
    return pairs


def _layer(
    node: onnx.NodeProto, layers: Mapping[str, _Layer], modules: Mapping[str, nn.Module]
) -> _Layer | None:
    path = _path(node)
    if (path or node.name) in layers:
        return layers[path or node.name]
    if "" in layers:  # The whole reference is one layer.
        return layers[""]
    return AttentionOp(node) if is_attention(node) and path in modules else None


def _path(node: onnx.NodeProto) -> str:
    """Return the path of the module that a node comes from; "" for the whole model."""
    return next((p.value for p in node.metadata_props if p.key == LAYER_KEY), "")
