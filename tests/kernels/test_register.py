import pytest
import torch

from nmn_export.kernels import register as register_module
from nmn_export.kernels.device import Device
from nmn_export.kernels.register import register
from nmn_export.ops import OPS


def test_every_op_has_a_cuda_implementation() -> None:
    register()
    names = [spec.torch_op.name().removesuffix(".default") for spec in OPS.values()]
    for name in (*names, "nmn::causal_linear_attention"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(name, "CUDA")


@pytest.mark.parametrize(
    ("dtype", "capability", "expected"),
    [
        (torch.float16, 80, "fused"),
        (torch.float32, 90, "fused"),
        (torch.float64, 90, "eager"),
        (torch.float16, 75, "eager"),
    ],
)
def test_unsupported_inputs_use_the_eager_op(
    dtype: torch.dtype, capability: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(capability, processors=2)
    monkeypatch.setattr(register_module, "device_of", lambda _: device)
    x = torch.ones(2, 3, dtype=dtype)
    run = register_module._fused_if_supported(
        lambda *arguments: ("fused", *arguments), lambda *arguments: ("eager", *arguments)
    )
    name, *arguments = run(x, 1e-5, True)
    assert name == expected
    assert arguments[0] is x
    assert arguments[1:] == [1e-5, True]
