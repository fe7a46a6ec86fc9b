"""The four contestants of a CPU benchmark, built from one network of our layers.

linear: the network with plain convolutions, linear layers and softmax attention instead of ⵟ
        layers; the baseline.
ours:   the network, exported by `nmn_export.export`.
naive:  the network with the layers of the `nmn` package, exported by `torch.onnx.export`.
eager:  the network in PyTorch, without export.
"""

import copy
import importlib
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime as ort
import torch
from torch import Tensor, nn

from benchmarks.attention_twins import (
    AttentionOnly,
    SoftmaxAttention,
    SoftmaxOnly,
    UpstreamAttention,
    UpstreamOnly,
)
from nmn_export import export
from nmn_export.graph.capture import quiet
from nmn_export.layers import (
    MultiHeadYatAttention,
    YatConv,
    YatConvTranspose,
    YatDense,
    YatLayer,
)

NAMES = ("linear", "ours", "naive", "eager")

_CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}

_TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def contestants(model: nn.Module, x: Tensor) -> dict[str, Callable[[], object]]:
    """Return a function without arguments for each contestant, by name.

    All ONNX Runtime sessions share one thread pool with one thread per core. With one pool per
    session, idle threads of a session would keep spinning while the next contestant is timed.

    Args:
        model: A network of our layers, in float32. It is switched to evaluation mode.
        x: Its input.
    """
    model = model.eval()
    with tempfile.TemporaryDirectory() as folder:
        ours = Path(folder) / "ours.onnx"
        export(model, x, ours, check=False)
        sessions = {
            "linear": _session(_torch_onnx(linear_twin(model), x)),
            "ours": _session(ours.read_bytes()),
            "naive": _session(_torch_onnx(upstream_twin(model), x)),
        }
    array = x.numpy()
    calls: dict[str, Callable[[], object]] = {
        name: _call(session, array) for name, session in sessions.items()
    }
    calls["eager"] = torch.inference_mode()(lambda: model(x))
    return calls


def linear_twin(model: nn.Module) -> nn.Module:
    """Return a copy with a convolution, linear layer or softmax attention for each ⵟ layer."""
    return _replace(model, _linear)


def upstream_twin(model: nn.Module) -> nn.Module:
    """Return a copy with a layer of the `nmn` package instead of each of our layers."""
    return _replace(model, _upstream)


_Layer = YatLayer | MultiHeadYatAttention | AttentionOnly


def _replace(model: nn.Module, make: Callable[[Any], nn.Module]) -> nn.Module:
    memo: dict[int, Any] = {id(m): make(m) for m in model.modules() if isinstance(m, _Layer)}
    twin: nn.Module = copy.deepcopy(model, memo)
    return twin.eval()


def _linear(layer: _Layer) -> nn.Module:
    if isinstance(layer, MultiHeadYatAttention):
        return SoftmaxAttention(layer)
    if isinstance(layer, AttentionOnly):
        return SoftmaxOnly(layer.is_causal)
    bias = layer.bias is not None
    if isinstance(layer, YatDense):
        return nn.Linear(layer.in_features, layer.out_features, bias)
    assert isinstance(layer, YatConv | YatConvTranspose)
    kinds = _TRANSPOSED if isinstance(layer, YatConvTranspose) else _CONVOLUTIONS
    return kinds[layer.rank](bias=bias, **_geometry(layer))


def _geometry(layer: YatConv | YatConvTranspose) -> dict[str, Any]:
    """Return the options that PyTorch's and upstream's convolutions have under the same names."""
    transposed = isinstance(layer, YatConvTranspose)
    return {
        "in_channels": layer.in_channels,
        "out_channels": layer.out_channels,
        "kernel_size": layer.kernel_size,
        "stride": layer.stride,
        "padding": layer.pads[: layer.rank],
        "dilation": layer.dilation,
        "groups": layer.groups,
    } | ({"output_padding": layer.output_padding} if transposed else {})


def _upstream(layer: _Layer) -> nn.Module:
    if isinstance(layer, MultiHeadYatAttention):
        return UpstreamAttention(layer)
    if isinstance(layer, AttentionOnly):
        return UpstreamOnly(layer.is_causal)
    nmn = importlib.import_module("nmn.torch")
    options: dict[str, Any] = {
        "bias": layer.bias is not None,
        "constant_alpha": layer.constant_alpha,
        "epsilon": layer.epsilon,
    }
    if isinstance(layer, YatDense):
        twin = nmn.YatNMN(layer.in_features, layer.out_features, **options)
    else:
        assert isinstance(layer, YatConv | YatConvTranspose)
        kind = "YatConvTranspose" if isinstance(layer, YatConvTranspose) else "YatConv"
        twin = getattr(nmn, f"{kind}{layer.rank}D")(**_geometry(layer), **options)
    twin.load_state_dict(layer.state_dict())
    upstream: nn.Module = twin
    return upstream


def _torch_onnx(model: nn.Module, x: Tensor) -> bytes:
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model, (x,), dynamo=True, opset_version=18, input_names=["x"], verbose=False
        )
    assert program is not None
    return program.model_proto.SerializeToString()


_pool_set = False


def _session(model: bytes) -> ort.InferenceSession:
    global _pool_set  # noqa: PLW0603 - the thread pool is global to the process, too
    if not _pool_set:
        ort.set_global_thread_pool_sizes(torch.get_num_threads(), 1)
        _pool_set = True
    options = ort.SessionOptions()
    options.use_per_session_threads = False
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _call(session: ort.InferenceSession, array: Any) -> Callable[[], object]:
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: array})
