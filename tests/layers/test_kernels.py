"""Layers use the torch ops on devices with fused kernels. The CPU ops replace these here."""

import pytest
import torch

from nmn_export.layers import YatConv2d, YatConvTranspose2d, YatDense, scalars

LAYERS = {
    "learned alpha": YatDense(6, 4),
    "constant alpha": YatDense(6, 4, constant_alpha=True, spherical=True),
    "geometric alpha": YatConv2d(2, 4, 3, padding=1, use_alpha="geometric"),
    "transposed": YatConvTranspose2d(2, 4, 3, stride=2, output_padding=1, groups=2),
    "learned epsilon": YatConv2d(2, 4, 3, groups=2, learnable_epsilon=True),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_the_op_and_the_formula_agree_in_values_and_gradients(layer, monkeypatch):
    x = torch.randn((3, 6) if isinstance(layer, YatDense) else (2, 2, 5, 5))
    results = []
    for kernels in (False, True):
        monkeypatch.setattr(scalars, "has_kernels", lambda _, k=kernels: k)
        layer.zero_grad()
        y = layer(x)
        y.sum().backward()
        results.append([y.detach(), *(p.grad for p in layer.parameters())])
    for eager, op in zip(*results, strict=True):
        torch.testing.assert_close(op, eager, rtol=1e-5, atol=1e-6)


def test_the_op_is_called_where_it_has_kernels(monkeypatch):
    called = []
    real = torch.ops.nmn.yat_dense

    def spy(*arguments):
        called.append(arguments)
        return real(*arguments)

    layer = YatDense(6, 4)
    monkeypatch.setattr(scalars, "has_kernels", lambda _: True)
    layer._product(spy, lambda *_: pytest.fail("eager"), torch.randn(2, 6), False, False)
    assert len(called) == 1


def test_half_precision_saturates_after_alpha(monkeypatch):
    layer = YatDense(4, 2, bias=False, epsilon=1e-3).half()
    with torch.no_grad():
        layer.alpha.fill_(1e-3)
        layer.weight.fill_(100.0)
    monkeypatch.setattr(scalars, "has_kernels", lambda _: True)
    x = layer.weight[:1].detach().clone()
    assert layer(x)[0, 0] == 65504  # 1e-3 · 4e4² / 1e-3, which α = 1e-3 does not bring below


@pytest.mark.parametrize("convert", [torch.nn.Module.half, torch.nn.Module.bfloat16])
def test_a_learned_epsilon_stays_out_of_the_half_precisions(convert):
    layer = convert(YatDense(4, 2, learnable_epsilon=True, epsilon=1e-8))
    assert layer.weight.dtype != torch.float32
    assert layer.epsilon_param.dtype == torch.float32
    assert layer.fold().epsilon == pytest.approx(1e-8, rel=1e-4)
